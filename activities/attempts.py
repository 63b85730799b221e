"""What an attempt does that Temporal gives up: is its end wanted, or is only the machine slow? Model calls ask it."""

from __future__ import annotations

from contextlib import suppress

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from holdfast.activities.deps import Deps, Here
from holdfast.activities.endings import status_of

__all__ = ["only_believed_lost", "workflow_is_over"]


def only_believed_lost() -> bool:
    """Whether the server heard no beat for too long, as on a starved machine, and nobody asked for this attempt's end.

    It says the same when the workflow is no more: then see `workflow_is_over`.
    """
    why = activity.cancellation_details()
    return why is not None and not (why.cancel_requested or why.worker_shutdown or why.paused or why.reset)


async def workflow_is_over(deps: Deps, at: Here) -> bool:
    """Whether the workflow of the attempt has closed; False also when Temporal cannot tell just now."""
    with suppress(RPCError):
        return await status_of(deps.client, at.workflow_id) != WorkflowExecutionStatus.RUNNING
    return False
