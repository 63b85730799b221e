"""What to do in an attempt that Temporal gives up: is its end wanted, or is only the machine slow?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from holdfast.activities.deps import Deps, Here
from holdfast.activities.endings import status_of
from holdfast.memory.database import UNAVAILABLE

__all__ = ["given_up", "only_believed_lost", "watch"]


def only_believed_lost() -> bool:
    """Whether the server heard no beat for too long, as on a starved machine, and nobody asked for this attempt's end.

    It says the same when the workflow is no more, and will not say anything more to this attempt: see `watch`.
    """
    why = activity.cancellation_details()
    return why is not None and not (why.cancel_requested or why.worker_shutdown or why.paused or why.reset)


async def given_up(deps: Deps, at: Here) -> bool:
    """Whether Temporal has given the running attempt up, or was asked to, and only its word is still under way.

    A stop gives up all calls of a run at once, but each hears of it with a heartbeat of its own: the thread that one
    call leaves is another one's before that one has heard. False if Temporal does not answer.
    """
    info = activity.info()
    handle = deps.client.get_workflow_handle(at.workflow_id, run_id=at.execution)
    try:
        told = await handle.describe(rpc_timeout=timedelta(seconds=deps.settings.scaled(deps.settings.lease)))
    except RPCError:
        return False
    for pending in told.raw_description.pending_activities:
        if pending.activity_id == info.activity_id:
            wanted = pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
            return not wanted or pending.attempt != info.attempt
    return True


async def watch(deps: Deps, at: Here, work: asyncio.Task[Any], pointless: Callable[[], Awaitable[bool]]) -> None:
    """Cancel *work*, which goes on after its attempt, as soon as it is pointless or its workflow is no more.

    A stop, or whoever takes the step over, reaches the attempts that Temporal knows, and this one it does not know.
    """
    while not work.done():
        with suppress(*UNAVAILABLE, RPCError):  # nobody to ask just now
            if await pointless() or await status_of(deps.client, at.workflow_id) != WorkflowExecutionStatus.RUNNING:
                work.cancel()
                return
        await asyncio.wait([work], timeout=deps.settings.scaled(2 * deps.settings.beat))
