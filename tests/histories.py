"""Workflow histories as tests read them, over the whole continue-as-new chain, and take them back, as Reset does."""

from __future__ import annotations

import uuid
from collections import Counter

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHistory

from holdfast.convert import data_converter
from holdfast.settings import Settings

__all__ = ["chain", "connect", "reset", "sizes", "total"]


async def connect(settings: Settings) -> Client:
    """Return a plain Temporal client of the server in *settings*."""
    assert settings.temporal_address is not None
    return await Client.connect(
        settings.temporal_address, namespace=settings.temporal_namespace, data_converter=data_converter
    )


async def chain(client: Client, workflow_id: str, first_run_id: str) -> list[WorkflowHistory]:
    """Return the histories of an execution and of all that continued it, in order."""
    found: list[WorkflowHistory] = []
    run_id = first_run_id
    while run_id:
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        found.append(history)
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


async def reset(client: Client, workflow_id: str, *, task: int = 0) -> None:
    """Take a workflow's newest execution back to one of its completed tasks: the first, -2 for the last but one."""
    run_id = (await client.get_workflow_handle(workflow_id).describe()).run_id
    history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    done = [event.event_id for event in history.events if event.HasField("workflow_task_completed_event_attributes")]
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            reason="test",
            workflow_task_finish_event_id=done[task],
            request_id=uuid.uuid4().hex,
        )
    )


def sizes(histories: list[WorkflowHistory]) -> Counter[str]:
    """Return the bytes of serialized events by type."""
    count: Counter[str] = Counter()
    for history in histories:
        for event in history.events:
            count[EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")] += event.ByteSize()
    return count


def total(histories: list[WorkflowHistory]) -> int:
    """Return the bytes of all events, serialized."""
    return sizes(histories).total()
