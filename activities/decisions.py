"""Activities around a person's word: approvals are mirrored, decisions audited before they count, doubts resolved."""

from __future__ import annotations

import json
from typing import Literal

from temporalio import activity

from holdfast.activities.calls import fitting
from holdfast.activities.deps import Deps, here
from holdfast.contracts import (
    OPEN_STATES,
    Activity,
    Asked,
    AuditRefusals,
    Call,
    RecordDecision,
    Recorded,
    RequestApprovals,
    Resolved,
    ResolveEffect,
    RunState,
    Said,
)
from holdfast.errors import StaleWriter, StorageError, ToolArgumentsInvalid
from holdfast.ids import args_hash, canonical_json, effect_key
from holdfast.memory import decisions, events, ledger, runs, threads
from holdfast.memory.database import Connection
from holdfast.memory.resolve import resolve_step
from holdfast.visible import fitted, visible

__all__ = ["DecisionActivities"]

_MOST_SHOWN = 5  # calls of which they do
_VOID = "another workflow has taken over the thread and withdrawn this approval: decide the one that is pending now"
_SHOWN = 2000  # characters of long arguments that travel in a history, to be shown beside it


class DecisionActivities:
    """All of these are tried without end: with PostgreSQL away the decision stands, and the tool waits."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name=Activity.REQUEST_APPROVALS)
    async def request_approvals(self, inp: RequestApprovals) -> Asked:
        """Mirror pending approvals and tell whoever watches; twice is once.

        After a Reset nobody is asked a second time: a decision that was recorded stands, and a call whose outcome the
        ledger has takes no effect again.
        """
        at = here()
        seq = None
        out = Asked()
        async with self._deps.pool.acquire() as conn, conn.transaction():
            thread = await threads.hold_for_writer(conn, at.tenant, at.thread, inp.writer)
            run = await runs.lock(conn, inp.run_id)  # before its approvals and events, as whoever ends a run does
            over = thread is None or run is None or run["state"] not in OPEN_STATES
            for call in inp.calls:
                said = await self._said(conn, inp, call)
                key = effect_key(at.scope(inp), call.step_no, call.tool)
                ended = await ledger.stored(conn, key) is not None
                if said is not None and (ended or not over or not said.approve):  # an approval of an ended run is void
                    out.said.append(said)
                    continue
                if ended:
                    out.settled.append(call.step_no)
                    continue
                if over:
                    raise StaleWriter(f"run {inp.run_id} has ended, or is another workflow's now: nobody is asked")
                # In the model's own order, as everywhere else where a person reads them.
                args = await threads.call_arguments(conn, at.tenant, at.thread, call.seq, call.call_id) or call.args
                if call.args is None and len(out.shown) < _MOST_SHOWN:
                    out.shown[call.step_no] = fitted(visible(args or ""), _SHOWN)
                if await decisions.ask(
                    conn,
                    inp.run_id,
                    call.step_no,
                    call.call_id,
                    tool=call.tool,
                    args_hash=call.args_hash,
                    policy=inp.definition,
                ):
                    seq = await events.emit(
                        conn,
                        inp.run_id,
                        "approval_requested",
                        step=call.step_no,
                        call_id=call.call_id,
                        tool=call.tool,
                        args=fitted(args or "", _SHOWN),
                        args_hash=call.args_hash,
                    )
            if len(out.settled) + len(out.said) < len(inp.calls):
                await runs.set_state(conn, inp.run_id, RunState.WAITING)
        if seq is not None:
            self._deps.notifier.poke(inp.run_id, seq)
        return out

    async def _said(
        self, conn: Connection, inp: RequestApprovals | RecordDecision, call: Call | RecordDecision
    ) -> Said | None:
        """Return the decision that a call has had: a Reset may have taken it from the history."""
        row = await decisions.said(
            conn,
            inp.run_id,
            call.step_no,
            call.call_id,
            args_hash=call.args_hash,
            policy=inp.definition,
            seq=call.seq,
        )
        if row is None:
            return None
        edited = None if row["args"] is None else args_hash(json.loads(row["args"]))
        return Said(step_no=call.step_no, approve=row["state"] == "approved", args_hash=edited, reason=row["reason"])

    @activity.defn(name=Activity.RECORD_DECISION)
    async def record_decision(self, inp: RecordDecision) -> Recorded:
        """Write the audit row; edited arguments that do not fit the tool's schema are refused there.

        A decision that stands is returned as it is, also when a Reset comes after the end of its run.
        """
        decision = inp.decision
        decision_id = decision.decision_id or ""
        out = Recorded(accepted=True, args_hash=inp.args_hash)
        text: str | None = None
        if decision.approve and decision.args is not None:
            definition = await self._deps.definition(inp.definition)
            tool = self._deps.tool(definition.name, inp.tool)
            try:
                if tool is not None:
                    fitting(tool, decision.args)
                text = canonical_json(decision.args)
                out.args_hash = args_hash(decision.args)
            except (ToolArgumentsInvalid, ValueError) as exc:
                out = Recorded(accepted=False, why=f"the edited arguments do not fit: {exc}")
        async with self._deps.pool.acquire() as conn, conn.transaction():
            run = await runs.lock(conn, inp.run_id)
            over = run is None or run["state"] not in OPEN_STATES
            before = await decisions.judged(conn, decision_id)
            if before is not None and before.about(inp.run_id, inp.step_no, inp.seq):  # the same decision, sent again
                said = await self._said(conn, inp, inp)
                over = over and not before.accepted
                digest = before.detail.get("args_hash") or inp.args_hash
                why = before.detail.get("why")
                return Recorded(accepted=before.accepted, said=said, args_hash=digest, why=why, over=over)
            if before is not None:
                out = Recorded(
                    accepted=False,
                    why=f"decision id {decision_id} was already used for another call: use a different id for each "
                    "decision",
                )
                decision_id = f"{activity.info().workflow_run_id}:{activity.info().activity_id}"  # of all its attempts
            said = await self._said(conn, inp, inp)
            if said is not None:
                word = "approved" if said.approve else "rejected"
                out = Recorded(accepted=False, said=said, why=f"the call was {word} before: one decision stands")
            elif over:
                why = "the run has ended, so none of its calls waits for a decision"
                out = Recorded(accepted=False, why=why, over=True)
            elif out.accepted and not await self._mirror(conn, inp, text, decision_id):
                out = Recorded(accepted=False, why=_VOID, over=True)
            fresh = await self._audit(conn, inp, out, decision_id)
            if not fresh and before is None:
                raise StorageError(f"another decision has just taken the id {decision_id}")  # the next try sees it
            # The record of an ended run has its last event.
            seq = await self._tell(conn, inp, out) if fresh and not (over or out.over) else None
        if seq is not None:
            self._deps.notifier.poke(inp.run_id, seq)
        return out

    async def _mirror(self, conn: Connection, inp: RecordDecision, text: str | None, decision_id: str) -> bool:
        """Decide the approval; False: it is not pending any more."""
        state: Literal["approved", "rejected"] = "approved" if inp.decision.approve else "rejected"
        return await decisions.decide(
            conn, inp.run_id, inp.step_no, state, args=text, decision_id=decision_id, call_id=inp.call_id
        )

    async def _audit(self, conn: Connection, inp: RecordDecision, out: Recorded, decision_id: str) -> bool:
        decision = inp.decision
        return await decisions.audit(
            conn,
            decision_id,
            run_id=inp.run_id,
            step_no=inp.step_no,
            action="approve" if decision.approve else "reject",
            actor=decision.actor,
            verified=decision.verified,
            accepted=out.accepted,
            detail={
                "tool": inp.tool,
                "call_id": inp.call_id,
                "seq": inp.seq,
                "args_hash": out.args_hash or inp.args_hash,
                "reason": decision.reason,
                "edited": decision.args,
                "why": out.why,
            },
        )

    async def _tell(self, conn: Connection, inp: RecordDecision, out: Recorded) -> int:
        """Say in the run's record what was decided; return the event's number."""
        decision = inp.decision
        about = {"step": inp.step_no, "call_id": inp.call_id, "tool": inp.tool}
        if not out.accepted:
            return await events.emit(conn, inp.run_id, "approval_refused", why=out.why, **about)
        await runs.resume(conn, inp.run_id)
        return await events.emit(
            conn,
            inp.run_id,
            "approval_decided",
            approve=decision.approve,
            reason=decision.reason,
            actor=decision.actor,
            edited=decision.args is not None,
            **about,
        )

    @activity.defn(name=Activity.AUDIT_REFUSALS)
    async def audit_refusals(self, inp: AuditRefusals) -> None:
        """Write the audit rows of words that a thread refused, each once."""
        async with self._deps.pool.acquire() as conn, conn.transaction():
            for word in inp.words:
                await decisions.refuse(conn, word)

    @activity.defn(name=Activity.RESOLVE_EFFECT)
    async def resolve_effect(self, inp: ResolveEffect) -> Resolved:
        """Carry out a person's word on a call in doubt, audited."""
        at = here()
        async with self._deps.pool.acquire() as conn, conn.transaction():
            resolved, seq = await resolve_step(
                conn, tenant=at.tenant, thread=at.thread, run_id=inp.run_id, resolution=inp.resolution
            )
        if seq is not None:
            self._deps.notifier.poke(inp.run_id, seq)
        return resolved
