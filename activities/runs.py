"""Activities at the edges of a run: its place in the thread, the window the model is sent, its end."""

from __future__ import annotations

from temporalio import activity

from holdfast.activities.deps import Deps, here
from holdfast.activities.requests import model_of, window_limit
from holdfast.contracts import (
    OPEN_STATES,
    PREVIEW,
    Activity,
    BeginRun,
    Begun,
    Compact,
    Compacted,
    Ended,
    EndRun,
    RecallMissed,
    RunState,
)
from holdfast.errors import StaleWriter, UnknownRun
from holdfast.ids import effect_key
from holdfast.memory import decisions, events, family, ledger, outbox, runs, threads
from holdfast.memory.database import Connection
from holdfast.memory.ledger import Step
from holdfast.visible import first_line

__all__ = ["RunActivities"]

_COMPACT = "compact"  # the tool name under which the ledger knows compactions
_SHOWN = 200  # characters of an error that go back to the workflow
_REMEMBERED = 8000  # characters of a question or an answer that long-term memory is given


class RunActivities:
    """Begins, compacts and ends runs."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name=Activity.BEGIN_RUN)
    async def begin_run(self, inp: BeginRun) -> Begun:
        """Give the message its place in the thread; twice is once.

        The run's steps are numbered from the number returned: the same again after a Reset, so that recorded steps are
        found, and above all that the ledger has where the run is new to this chain, so that no other run's are.
        A run that has ended begins nothing, nor does anything join it: the answer says how it ended.
        """
        at = here()
        scope = at.scope(inp)
        base = Begun(step_no=inp.step_no)
        async with self._deps.pool.acquire() as conn, conn.transaction():
            thread = await threads.lock_for_writer(conn, at.tenant, at.thread, inp.writer, at.execution)
            row = await runs.lock(conn, inp.run_id)
            if row is None:
                raise UnknownRun(f"run {inp.run_id} is not in the database")
            if row["state"] not in OPEN_STATES:
                if inp.into is None:  # one that has joined its run before stays there
                    base.step_no = max(inp.step_no, await ledger.last_step(conn, scope))
                    base.over = RunState(row["state"])
                return base
            if inp.into is not None:
                joined_run = await runs.lock(conn, inp.into)
                if joined_run is not None and joined_run["state"] not in OPEN_STATES:
                    base.over = RunState(joined_run["state"])
                    return base
            moved = bool(inp.definition) and row["definition"] not in (None, inp.definition)  # by a hand-off meanwhile
            if row["seq"] is None:
                await threads.place(conn, thread, row["message"])
            if inp.into is not None:
                await runs.merge(conn, inp.run_id, inp.into)
                seq = await events.emit(conn, inp.run_id, "merged", into=inp.into)
                joined = await events.emit(conn, inp.into, "joined", run_id=inp.run_id, message_id=row["message_id"])
                self._deps.notifier.poke(inp.into, joined)
            elif row["base"] is not None and row["scope"] == scope:
                base = Begun.model_validate_json(row["base"])
                if moved:
                    base.moved = await family.owner(conn, inp.run_id)
                return base
            else:
                base = Begun(
                    step_no=max(inp.step_no, 1 + await ledger.last_step(conn, scope)),
                    rounds=row["rounds"],
                    steps=row["steps"],
                    tokens=row["tokens"],
                    cost_usd=float(row["cost_usd"]),
                    unpriced=row["unpriced"],
                )
                await runs.begin(conn, inp.run_id, scope, base)
                if moved:
                    base.moved = await family.owner(conn, inp.run_id)
                if row["started_at"] is not None:
                    return base
                seq = await events.emit(conn, inp.run_id, "started")
        self._deps.notifier.poke(inp.run_id, seq)
        return base

    @activity.defn(name=Activity.COMPACT)
    async def compact(self, inp: Compact) -> Compacted:
        """Move the window's start so that half of it is free again; a sliding window."""
        at = here()
        definition = await self._deps.definition(inp.definition)
        await self._deps.warm(model_of(definition, self._deps.settings))
        scope = at.scope(inp)
        key = effect_key(scope, inp.step_no, _COMPACT)
        step = Step(key, inp.run_id, scope, inp.step_no, _COMPACT, "pure", args_hash=inp.definition)
        async with self._deps.pool.acquire() as conn, conn.transaction():
            thread = await threads.lock_for_writer(conn, at.tenant, at.thread, inp.writer)
            done = await ledger.stored(conn, key)
            if done is not None:  # twice would halve the window twice
                return Compacted.model_validate(done[0])
            if await runs.has_ended(conn, inp.run_id):
                raise StaleWriter(f"run {inp.run_id} has ended: its window is not moved any more")
            sizes = await threads.sizes(conn, thread.id, thread.window_from)
            # Sizes are estimates: a provider may find the window full that by them is not.
            goal = min(window_limit(definition, self._deps.settings), sum(tokens for _, _, tokens in sizes)) // 2
            from_seq, kept = _slide(sizes, goal, thread.window_from)
            out = Compacted(from_seq=from_seq, tokens=kept, changed=from_seq != thread.window_from)
            await ledger.record_pure(conn, step, at.owner, out.model_dump(mode="json"))
            if not out.changed:
                return out
            await threads.set_window(conn, thread.id, from_seq)
            seq = await events.emit(conn, inp.run_id, "compacted", from_seq=from_seq, tokens=kept)
        self._deps.notifier.poke(inp.run_id, seq)
        return out

    @activity.defn(name=Activity.RECALL_MISSED)
    async def recall_missed(self, inp: RecallMissed) -> None:
        """Write down that the run goes on without memory."""
        async with self._deps.pool.acquire() as conn, conn.transaction():
            if await runs.has_ended(conn, inp.run_id):  # its record has its last event
                return
            seq = await events.emit(conn, inp.run_id, "memory_unavailable", why=inp.why)
        self._deps.notifier.poke(inp.run_id, seq)

    @activity.defn(name=Activity.END_RUN)
    async def end_run(self, inp: EndRun) -> Ended:
        """Close the run: open slots are interrupted, the answer commits with what is to be remembered."""
        at = here()
        async with self._deps.pool.acquire() as conn, conn.transaction():
            thread = await threads.lock_for_writer(conn, at.tenant, at.thread, inp.writer)
            row = await runs.lock(conn, inp.run_id)
            if row is None:
                raise UnknownRun(f"run {inp.run_id} is not in the database")
            if row["state"] not in OPEN_STATES:
                await _audit_stop(conn, inp, f"the run had ended: {row['state']}")
                return await _ended_before(conn, inp.run_id)
            await threads.fill_interrupted(conn, thread.id, inp.run_id)
            await decisions.void(conn, inp.run_id)
            await runs.end(conn, inp.run_id, inp.state, error=inp.error, answer_seq=inp.answer_seq, steps=inp.steps)
            remembers = inp.memory and inp.state == RunState.DONE
            if remembers:
                await self._put_outbox(conn, at.tenant, at.thread, inp.run_id)
            usage = await runs.by_id(conn, inp.run_id)
            if usage is None:
                raise UnknownRun(f"run {inp.run_id} vanished")
            in_time = inp.state == RunState.STOPPED
            await _audit_stop(conn, inp, None if in_time else f"it came too late: the run is {inp.state.value}")
            if inp.stop is not None and in_time:
                await events.emit(conn, inp.run_id, "stop_requested", actor=inp.stop.actor, reason=inp.stop.reason)
            below = {"tokens_below": usage["tokens_below"], "cost_usd_below": float(usage["cost_usd_below"])}
            seq = await events.emit(
                conn,
                inp.run_id,
                "ended",
                state=inp.state.value,
                error=inp.error,
                answer_seq=inp.answer_seq,
                tokens=usage["tokens_in"] + usage["tokens_out"],
                cost_usd=float(usage["cost_usd"]),
                rounds=usage["rounds"],
                steps=inp.steps,
                **(below if usage["tokens_below"] else {}),
                **{name: usage[name] for name in ("unpriced", "unpriced_below") if usage[name]},
            )
        self._deps.notifier.poke(inp.run_id, seq)
        return Ended(state=inp.state, outbox=remembers)

    async def _put_outbox(self, conn: Connection, tenant: str, thread: str, run_id: str) -> None:
        asked = (await runs.message_text(conn, run_id) or "")[:_REMEMBERED]
        answer = (await runs.answer_text(conn, run_id) or "")[:_REMEMBERED]
        await outbox.put(
            conn,
            tenant=tenant,
            source_key=f"run:{run_id}",
            run_id=run_id,
            thread=thread,
            kind="answer",
            text=f"Asked: {asked}\nAnswered: {answer}",
        )


async def _audit_stop(conn: Connection, inp: EndRun, why: str | None) -> None:
    """Write the audit row of the request to stop a run, once; with *why* it changed nothing."""
    if inp.stop is None:
        return
    asked = inp.stop
    decision_id = asked.decision_id or f"{inp.run_id}:stop"
    before = await decisions.judged(conn, decision_id)
    if before is not None and (before.run_id, before.action) != (inp.run_id, "stop"):  # the id of another word
        decision_id = f"{inp.run_id}:stop:{decision_id}"
    await decisions.audit(
        conn,
        decision_id,
        run_id=inp.run_id,
        step_no=None,
        action="stop",
        actor=asked.actor,
        accepted=why is None,
        detail={"reason": asked.reason, "why": why},
    )


async def _ended_before(conn: Connection, run_id: str) -> Ended:
    """Return how a run stands that had ended when its workflow came to its end, as after a Reset."""
    row = await runs.by_id(conn, run_id)
    if row is None:
        raise UnknownRun(f"run {run_id} vanished")
    answer = await runs.answer_text(conn, run_id)
    return Ended(
        state=RunState(row["state"]),
        before=True,
        error=None if row["error"] is None else row["error"][:_SHOWN],
        preview=first_line(answer or "", PREVIEW),
    )


def _slide(sizes: list[tuple[int, str, int]], goal: int, current: int) -> tuple[int, int]:
    """Return (first seq kept, its tokens): the longest tail within *goal* that does not begin with a tool's result."""
    kept, total = current, 0
    tail = 0
    for seq, role, tokens in reversed(sizes):
        tail += tokens
        if tail > goal and kept != current:
            break
        if role != "tool":
            kept, total = seq, tail
        if tail > goal and role != "tool":
            break
    return kept, total
