"""Faults by hand through Temporal: Terminate, and Reset of the execution that runs or of one before it."""

from __future__ import annotations

import random
import uuid
from contextlib import suppress
from typing import ClassVar

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode

from tests.conformance.faults.struck import Struck
from tests.conformance.stage import Stage, now

__all__ = ["Reset", "ResetOlder", "Terminate"]

_AWAY = {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.UNKNOWN}


_CHILDREN = """
select t.thread from holdfast.runs r join holdfast.threads t on t.id = r.thread_id
where r.parent_run_id is not null and r.state in ('queued', 'running', 'waiting')
"""


async def _choose(stage: Stage, chance: random.Random) -> str | None:
    """Return a thread with a run under way, perhaps one that another run asked for."""
    threads = stage.active | {row["thread"] for row in await stage.rows(_CHILDREN)}
    return chance.choice(sorted(threads)) if threads else None


class Terminate:
    """A thread's workflow is terminated in Temporal: the run under way ends there or is taken up, the queue goes on."""

    name: ClassVar[str] = "Terminate through Temporal"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Terminate one."""
        thread = await _choose(stage, chance)
        if thread is None:
            return None
        handle = stage.plain.get_workflow_handle(f"{stage.world.settings.tenant}:{thread}")
        at = now()
        try:
            await handle.terminate("a fault")
        except RPCError as exc:  # it has just ended by itself; or Temporal was killed meanwhile, and had done it or not
            return None if exc.status == RPCStatusCode.NOT_FOUND else Struck(at, now(), threads=[thread], note=thread)
        return Struck(at, now(), threads=[thread], note=thread)


class Reset:
    """A thread's workflow is reset to one of its workflow tasks: it goes that way again and repeats nothing."""

    name: ClassVar[str] = "Reset through Temporal"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Reset one."""
        thread = await _choose(stage, chance)
        if thread is None:
            return None
        workflow_id = f"{stage.world.settings.tenant}:{thread}"
        with suppress(RPCError):  # it ended meanwhile, or Temporal is away
            described = await stage.plain.get_workflow_handle(workflow_id).describe()
            if described.status == WorkflowExecutionStatus.RUNNING:
                history = await _history(stage, workflow_id, described.run_id)
                return await _reset(stage, chance, thread, described.run_id, history)
        return None


class ResetOlder:
    """A thread's workflow is reset to a task of an execution that has continued as new: Temporal ends the newer ones.

    What they did stays in PostgreSQL, so the older one finds it there and repeats nothing.
    """

    name: ClassVar[str] = "Reset of an older execution"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Reset one."""
        thread = await _choose(stage, chance)
        if thread is None:
            return None
        workflow_id = f"{stage.world.settings.tenant}:{thread}"
        with suppress(RPCError):
            described = await stage.plain.get_workflow_handle(workflow_id).describe()
            if described.status != WorkflowExecutionStatus.RUNNING:
                return None
            first = _first(await _history(stage, workflow_id, described.run_id))
            older: list[tuple[str, WorkflowHistory]] = []
            query = f"WorkflowId = '{workflow_id}' and ExecutionStatus = 'ContinuedAsNew'"
            async for found in stage.plain.list_workflows(query):
                history = await _history(stage, workflow_id, found.run_id)
                if _first(history) == first:
                    older.append((found.run_id, history))
            if older:
                return await _reset(stage, chance, thread, *chance.choice(older))
        return None


async def _history(stage: Stage, workflow_id: str, run_id: str) -> WorkflowHistory:
    return await stage.plain.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()


def _first(history: WorkflowHistory) -> str:
    return history.events[0].workflow_execution_started_event_attributes.first_execution_run_id


async def _reset(
    stage: Stage, chance: random.Random, thread: str, run_id: str, history: WorkflowHistory
) -> Struck | None:
    """Reset an execution to one of its tasks, any that was completed."""
    tasks = [
        event.event_id for event in history.events if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    if not tasks:
        return None
    task = chance.choice(tasks)
    request = ResetWorkflowExecutionRequest(
        namespace=stage.world.settings.temporal_namespace,
        workflow_execution=WorkflowExecution(workflow_id=history.workflow_id, run_id=run_id),
        reason="a fault",
        workflow_task_finish_event_id=task,
        request_id=str(uuid.uuid4()),
    )
    at = now()
    try:
        await stage.plain.workflow_service.reset_workflow_execution(request)
    except RPCError as exc:  # it ended meanwhile; or Temporal was killed, and had done it or not
        if exc.status not in _AWAY:
            return None
    return Struck(at, now(), threads=[thread], note=f"{thread}, event {task} of {len(history.events)}")
