"""What to do in an attempt that Temporal gives up: is its end wanted, or is only the machine slow?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from holdfast.activities.deps import Deps, Here
from holdfast.activities.endings import status_of
from holdfast.memory.database import UNAVAILABLE

__all__ = ["only_believed_lost", "watch"]


def only_believed_lost() -> bool:
    """Whether the server heard no beat for too long, as on a starved machine, and nobody asked for this attempt's end.

    It says the same when the workflow is no more, and will not say anything more to this attempt: see `watch`.
    """
    why = activity.cancellation_details()
    return why is not None and not (why.cancel_requested or why.worker_shutdown or why.paused or why.reset)


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
