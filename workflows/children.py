"""Calls of other agents: each is a workflow with a thread of its own, found again by names made of the asking step.

The state of such a call is in the run, so a roll-over in between loses nothing: the child tells by the signal `ended`,
which reaches whatever execution there is, and `calls.py` looks by itself now and then.
"""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import WorkflowAlreadyStartedError

from holdfast.contracts import (
    AGENT_WORKFLOW,
    PREVIEW,
    Activity,
    Call,
    Carry,
    ChildOutcome,
    ChildReady,
    ChildStart,
    ChildStep,
    HandedOff,
    HandOff,
    Message,
    Owner,
    Run,
    StopRequest,
    ThreadStart,
)
from holdfast.ids import child_thread, effect_key, effect_scope, run_id_for, split_workflow_id, workflow_id_for
from holdfast.workflows import options

__all__ = ["ask", "hand_off", "hear", "move", "result", "stop_all"]

AGENT = SearchAttributeKey.for_keyword("HoldfastAgent")


class _Child:  # what a call's other agent is known by: the same after a Reset, on any attempt
    def __init__(self, carry: Carry, call: Call) -> None:
        own = workflow.info().workflow_id
        self.tenant = split_workflow_id(own)[0]
        scope = effect_scope(own, carry.scope or carry.writer)
        self.key = effect_key(scope, call.step_no, call.tool)
        self.thread = child_thread(call.agent or "", self.key)
        self.run_id = run_id_for(self.tenant, self.thread, self.key)
        self.workflow_id = workflow_id_for(self.tenant, self.thread)


def _about(carry: Carry, run: Run, call: Call) -> dict[str, Any]:
    return {
        "writer": carry.writer,
        "scope": carry.scope,
        "run_id": run.run_id,
        "step_no": call.step_no,
        "definition": run.definition,
        "call_id": call.call_id,
        "tool": call.tool,
        "seq": call.seq,
        "effect": call.effect,
        "args": call.args,
        "args_hash": call.args_hash,
        "edited": call.edited,
        "agent": call.agent,
    }


def _step(carry: Carry, run: Run, call: Call, child: _Child) -> ChildStep:
    return ChildStep(thread=child.thread, child=child.run_id, depth=run.depth + 1, **_about(carry, run, call))


async def ask(carry: Carry, run: Run, call: Call) -> None:
    """Start the other agent, or find it at work already; it is heard of later. Not to be cancelled in between."""
    child = _Child(carry, call)
    ready: ChildReady = await options.execute(
        Activity.PREPARE_CHILD,
        _step(carry, run, call, child),
        ChildReady,
        carry.limits,
        summary=f"ask {call.agent}"[:PREVIEW],
    )
    if ready.outcome is not None:
        call.state = "done"
        return
    if run.stop is not None:
        return
    call.child = child.run_id
    start = ChildStart(
        message=Message(
            message_id=child.key,
            agent=call.agent or "",
            text=ready.text,
            text_ref=ready.text_ref,
            notify=workflow.info().workflow_id,
        ),
        scope=child.key,
        parent=run.run_id,
        step_no=call.step_no,
    )
    try:
        handle = await workflow.start_child_workflow(
            AGENT_WORKFLOW,
            ThreadStart(child=start),
            id=child.workflow_id,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
            task_timeout=options.task_timeout(carry.limits),
            static_summary=f"{call.agent}, asked by {run.agent}"[:PREVIEW],
        )
        handle.add_done_callback(_let_go)  # its end is heard of by signal, which outlives this execution
    except WorkflowAlreadyStartedError:  # as after a Reset
        await _signal(child.workflow_id, "child", start)
    if run.stop is not None:
        await _stop(child.workflow_id, child.run_id, run.stop)
    if call.state == "ready":
        call.state = "answered" if call.heard else "child"


def _let_go(handle: asyncio.Task[Any]) -> None:
    if not handle.cancelled():
        handle.exception()


async def result(carry: Carry, run: Run, call: Call) -> None:
    """See how the other agent's run stands; its answer fills the slot."""
    call.heard = False
    seen: ChildOutcome = await options.execute(
        Activity.CHILD_RESULT,
        _step(carry, run, call, _Child(carry, call)),
        ChildOutcome,
        carry.limits,
        summary=f"answer of {call.agent}"[:PREVIEW],
    )
    if seen.status == "ended":
        call.state = "done"
        call.failed = seen.outcome.preview if seen.outcome is not None and seen.outcome.status == "error" else ""
    elif seen.status == "lost":
        call.state = "ready"
    else:
        call.state = "answered" if call.heard else "child"


def hear(carry: Carry, run_id: str) -> None:
    """Take in that a run has ended which this thread may have asked for."""
    for call in carry.current.calls if carry.current else []:
        if call.child == run_id and call.state != "done":
            call.heard = True
            if call.state == "child":
                call.state = "answered"


async def stop_all(carry: Carry, calls: list[Call], why: str) -> None:
    """Stop what these calls have started. Whom the word does not reach, the next model step stops, or a sweep."""
    away = [_Child(carry, call) for call in calls if call.child is not None and call.state != "done"]
    await asyncio.gather(*(_stop(child.workflow_id, child.run_id, why) for child in away))


async def _stop(workflow_id: str, run_id: str, why: str) -> None:
    await _signal(workflow_id, "stop", StopRequest(run_id=run_id, reason=f"with the run that asked: {why}"[:500]))


async def _signal(workflow_id: str, name: str, arg: Any) -> None:
    try:
        await workflow.get_external_workflow_handle(workflow_id).signal(name, arg)
    except Exception as exc:  # noqa: BLE001  # it has ended already: nothing to say
        workflow.logger.info("%s does not listen: %s", workflow_id, exc)


async def hand_off(carry: Carry, run: Run, call: Call) -> None:
    """Let another agent go on with this conversation; what waits on the thread is its as well."""
    late = any(other.handed for other in run.calls)
    handed: HandedOff = await options.execute(
        Activity.HAND_OFF,
        HandOff(late=late, **_about(carry, run, call)),
        HandedOff,
        carry.limits,
        summary=f"hand off to {call.agent}"[:PREVIEW],
    )
    if handed.owner is not None:
        call.handed = True
        move(run, handed.owner)
        for waiting in carry.queue:
            move(waiting, handed.owner)
            waiting.budget = handed.owner.budget
        workflow.upsert_search_attributes([AGENT.value_set(run.agent)])
    call.state = "done"


def move(run: Run, owner: Owner) -> None:
    """Let a run be another agent's. What it may spend stays as it is."""
    run.agent, run.definition, run.memory = owner.agent, owner.definition, owner.memory
