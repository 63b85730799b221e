"""One update-with-start to a thread's workflow, one try. The client's line and AskWorkflow's activity send by it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import Client, WithStartWorkflowOperation, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError

from holdfast.contracts import AGENT_WORKFLOW, PREVIEW, Contract, Message, ThreadStart
from holdfast.settings import Settings
from holdfast.visible import first_line

__all__ = ["CLOSED_UNDER_US", "ELSEWHERE", "refused_as", "update_with_start"]

Out = TypeVar("Out", bound=Contract)

_SUMMARY = 400  # bytes of a summary that Temporal takes

CLOSED_UNDER_US = "AcceptedUpdateCompletedWorkflow"
"""What Temporal says when the workflow ended between taking the update and answering it: then the next one will."""

ELSEWHERE = "ThreadElsewhere"
"""What a thread's workflow says to a message for another task queue: find out anew which queue it is, and try again."""


async def update_with_start(
    temporal: Client,
    settings: Settings,
    workflow_id: str,
    name: str,
    arg: Contract,
    *,
    update_id: str,
    result_type: type[Out],
    queue: str | None = None,
) -> Out:
    """Send an update to the thread's workflow, starting it if it does not run; errors are Temporal's own.

    *queue* is where it is started; unset, on the task queue of the settings.
    """
    start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(  # an operation serves one try
        AGENT_WORKFLOW,
        ThreadStart(),
        id=workflow_id,
        task_queue=queue or settings.task_queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        task_timeout=timedelta(seconds=settings.scaled(settings.task_timeout)),
        static_summary=_summary(arg),
    )
    # The SDK also leaves its error in a future; unless someone looks at it, asyncio prints a traceback later.
    heard = asyncio.ensure_future(start.workflow_handle())
    heard.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        out: Out = await temporal.execute_update_with_start_workflow(
            name, arg, start_workflow_operation=start, id=update_id, result_type=result_type
        )
        return out
    finally:
        heard.cancel()


def _summary(arg: Contract) -> str | None:
    """Return what lists of workflows show of a thread that a message starts."""
    if not isinstance(arg, Message):
        return None
    said = first_line(arg.text or "", PREVIEW)
    whole = f"{arg.agent}: {said}" if said else arg.agent
    return whole.encode()[:_SUMMARY].decode(errors="ignore")


def refused_as(exc: WorkflowUpdateFailedError) -> str | None:
    """Return the name of the error by which the workflow refused an update."""
    return exc.cause.type if isinstance(exc.cause, ApplicationError) else None
