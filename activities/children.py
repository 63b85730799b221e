"""Activities around a call of another agent: what it is asked, what came of it; and the hand-off to one."""

from __future__ import annotations

from typing import Any

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus

from holdfast.activities.calls import arguments_of, step_of
from holdfast.activities.deps import Deps, here
from holdfast.activities.endings import status_of
from holdfast.activities.outcome import Outcome, commit_outcome, fill, recorded_outcome
from holdfast.activities.prices import unbound
from holdfast.advice import DO_WITHOUT, GO_ON
from holdfast.contracts import (
    OPEN_STATES,
    Activity,
    AgentDefinition,
    ChildOutcome,
    ChildReady,
    ChildStep,
    HandedOff,
    HandOff,
    Owner,
    ToolDefinition,
)
from holdfast.errors import StaleWriter, ToolArgumentsInvalid
from holdfast.ids import canonical_json, storable, workflow_id_for
from holdfast.memory import events, family, ledger, runs, threads
from holdfast.memory.database import Connection
from holdfast.typed.answers import read_output

__all__ = ["ChildActivities"]


class ChildActivities:
    """The child's own work is done by its own workflow; here is only what concerns the run that asks."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name=Activity.PREPARE_CHILD)
    async def prepare_child(self, inp: ChildStep) -> ChildReady:
        """Return what to ask; or the outcome, if it is recorded, or nobody may be asked."""
        at = here()
        settings = self._deps.settings
        step = step_of(at, inp)
        definition = await self._deps.definition(inp.definition)
        async with self._deps.pool.acquire() as conn:
            done = await ledger.stored(conn, step.key)
            over = done is None and await runs.has_ended(conn, inp.run_id)
            asked = await runs.agent(conn, inp.agent, settings.task_queue)
        if done is not None:
            return ChildReady(outcome=await recorded_outcome(self._deps, at, inp, step.key, done[0]))
        if over:
            raise StaleWriter(f"run {inp.run_id} has ended, so {inp.agent} is not asked for it any more")
        if inp.depth > settings.agent_depth:
            text = (
                f"error: {inp.agent} was not asked: agents may ask other agents up to a depth of "
                f"{settings.agent_depth}, and this "
                f"conversation has reached that depth. {DO_WITHOUT}"
            )
            return ChildReady(outcome=await commit_outcome(self._deps, at, inp, Outcome(text, status="error")))
        unpriced = None if asked is None else await unbound(self._deps, inp.run_id, asked[1])
        if unpriced is not None:
            text = f"error: {inp.agent} was not asked: {unpriced}"
            return ChildReady(outcome=await commit_outcome(self._deps, at, inp, Outcome(text, status="error")))
        try:
            text = _message(definition, inp.tool, await arguments_of(self._deps, at, inp))
        except ToolArgumentsInvalid as exc:
            return ChildReady(outcome=await commit_outcome(self._deps, at, inp, Outcome(f"error: {exc}", "error")))
        size = len(text.encode())
        if size > settings.text_max:
            text = f"error: the message has {size} bytes, {settings.text_max} are allowed: shorten it"
            return ChildReady(outcome=await commit_outcome(self._deps, at, inp, Outcome(text, status="error")))
        if size <= settings.text_inline:
            return ChildReady(text=text)
        ref = f"child-{inp.child}"
        async with self._deps.pool.acquire() as conn:
            await threads.put_blob(conn, at.tenant, text.encode(), blob_id=ref)
        return ChildReady(text_ref=ref)

    @activity.defn(name=Activity.CHILD_RESULT)
    async def child_result(self, inp: ChildStep) -> ChildOutcome:
        """Take the child's answer, or why there is none, into the parent's slot, ledger and record, all at once."""
        at = here()
        step = step_of(at, inp)
        status = None
        async with self._deps.pool.acquire() as conn:
            done = await ledger.stored(conn, step.key)
            run, answer = await _stands(conn, inp.child)
        if done is not None:
            return ChildOutcome(status="ended", outcome=await recorded_outcome(self._deps, at, inp, step.key, done[0]))
        if run is None:
            status = await status_of(self._deps.client, workflow_id_for(at.tenant, inp.thread))
            async with self._deps.pool.acquire() as conn:  # it may have begun, and ended, between the two looks
                run, answer = await _stands(conn, inp.child)
        if run is None:
            if status is None or status == WorkflowExecutionStatus.RUNNING:
                return ChildOutcome(status="lost" if status is None else "running")
            run = {"state": f"{status.name.lower()} in Temporal", "error": "it had not begun", "agent": inp.agent}
        if run["state"] in OPEN_STATES:
            return ChildOutcome(status="running")
        outcome, told = _told(inp, run, answer)
        seq = None
        async with self._deps.pool.acquire() as conn, conn.transaction():
            if await ledger.record_pure(conn, step, at.owner, outcome.contract().model_dump(mode="json")):
                seq = await fill(conn, self._deps, at, inp, outcome)
                if seq is not None:
                    about = {"step": inp.step_no, "run_id": inp.child, "thread": inp.thread, **told}
                    seq = await events.emit(conn, inp.run_id, "child_ended", **about)
        if seq is not None:
            self._deps.notifier.poke(inp.run_id, seq)
        return ChildOutcome(status="ended", outcome=outcome.contract())

    # ------------------------------------------------------------------------------------ hand-off

    @activity.defn(name=Activity.HAND_OFF)
    async def hand_off(self, inp: HandOff) -> HandedOff:
        """Move thread and run to another agent: owner, slot, ledger row and event in one transaction."""
        at = here()
        step = step_of(at, inp)
        async with self._deps.pool.acquire() as conn:
            done = await ledger.stored(conn, step.key)
            found = await runs.agent(conn, inp.agent, self._deps.settings.task_queue)
        if done is not None:
            await recorded_outcome(self._deps, at, inp, step.key, done[0])
            return HandedOff.model_validate(done[0])
        owner: Owner | None = None
        unpriced = None if found is None else await unbound(self._deps, inp.run_id, found[1], how="hands over to")
        if inp.late:
            outcome = Outcome("error: this conversation was handed over by another call of the same reply", "error")
        elif found is None:
            outcome = Outcome(f"error: no worker knows the agent {inp.agent}. {GO_ON}", "error")
        elif unpriced is not None:
            outcome = Outcome(f"error: the conversation was not handed over: {unpriced}", "error")
        else:
            digest, body = found
            owner = Owner(agent=body.name, definition=digest, budget=body.budget, memory=body.memory)
            outcome = Outcome(f"The conversation is handed over: from here on {body.name} speaks.")
        out = HandedOff(**outcome.contract().model_dump(), owner=owner)
        seq, first = None, True
        async with self._deps.pool.acquire() as conn, conn.transaction():
            thread = await threads.lock_for_writer(conn, at.tenant, at.thread, inp.writer)
            run = await runs.lock(conn, inp.run_id)
            if run is None or run["state"] not in OPEN_STATES:
                return HandedOff(status="error")  # its run is over: nobody speaks there any more
            first = await ledger.record_pure(conn, step, at.owner, out.model_dump(mode="json"))
            if first:
                if owner is not None:
                    await threads.own(conn, thread, owner.agent)
                    await family.hand_over(conn, thread.id, inp.run_id, owner)
                seq = await fill(conn, self._deps, at, inp, outcome)
                if owner is not None:
                    seq = await events.emit(
                        conn, inp.run_id, "handed_off", step=inp.step_no, agent=owner.agent, before=run["agent"]
                    )
        if seq is not None:
            self._deps.notifier.poke(inp.run_id, seq)
        return out if first else await self.hand_off(inp)  # another attempt was first: its outcome is recorded


async def _stands(conn: Connection, run_id: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return a run's row, and its answer: of an agent that gives typed ones the JSON alone, without words around it."""
    row = await runs.by_id(conn, run_id)
    answer = await runs.answer_text(conn, run_id) if row is not None else None
    if row is None or answer is None:
        return None if row is None else dict(row), None
    definition = await runs.definition(conn, row["definition"])
    if definition is not None and definition.output is not None:
        answer = canonical_json(read_output(definition, answer))
    return dict(row), answer


def _told(inp: ChildStep, run: dict[str, Any], answer: str | None) -> tuple[Outcome, dict[str, Any]]:
    """Return what the model reads of a run that has ended, and what the record of the asking run says."""
    if run["state"] == "done" and answer is not None:
        outcome = Outcome(answer)
    else:
        why = f": {run['error']}" if run["error"] else ""
        outcome = Outcome(f"error: {inp.agent} gave no answer, its run is {run['state']}{why}", status="error")
    told: dict[str, Any] = {"state": run["state"], "agent": run["agent"], "tokens": 0, "cost_usd": 0.0}
    if "run_id" in run:
        told["tokens"] = run["tokens_in"] + run["tokens_out"] + run["tokens_below"]
        told["cost_usd"] = float(run["cost_usd"] + run["cost_usd_below"])
        if run["unpriced"] + run["unpriced_below"]:
            told["unpriced"] = run["unpriced"] + run["unpriced_below"]
        if run["started_at"] is not None and run["ended_at"] is not None:
            outcome.seconds = (run["ended_at"] - run["started_at"]).total_seconds()
    return outcome, told


def _message(definition: AgentDefinition, tool: str, args: dict[str, Any]) -> str:
    """Return what the other agent is asked: the message itself, or its typed input as JSON."""
    declared: ToolDefinition | None = next((each for each in definition.tools if each.name == tool), None)
    properties = declared.parameters.get("properties", {}) if declared is not None else {}
    if list(properties) == ["message"] and isinstance(args.get("message"), str):
        text = str(args["message"])
    else:
        text = canonical_json(args)
    text = storable(text)
    if not text.strip():
        raise ToolArgumentsInvalid("the message is empty: say what you want to know")
    return text
