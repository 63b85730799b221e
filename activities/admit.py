"""The activity `admit`: from accepted messages to queued runs, in one transaction that also claims the thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from temporalio import activity

from holdfast.activities.deps import Deps, Here, here
from holdfast.activities.endings import execution_ended, stop_begun
from holdfast.activities.hooks import Heard, hear
from holdfast.activities.outcome import emit_notes
from holdfast.contracts import OPEN_STATES, PREVIEW, Activity, Admit, Admitted, ChildStart, Limits, Message, Run
from holdfast.ids import child_thread, effect_key, run_id_for
from holdfast.memory import decisions, events, family, runs, threads
from holdfast.memory.database import Connection
from holdfast.memory.threads import ThreadRow, Written
from holdfast.visible import first_line

__all__ = ["AdmitActivities"]

_LARGE = 64 * 1024  # characters of a text whose JSON is made in a thread


class AdmitActivities:
    """Claims the thread, drops what is known, refuses what cannot be answered, stores the rest."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name=Activity.ADMIT)
    async def admit(self, inp: Admit) -> Admitted:
        """Store messages as runs; with `open`, also return the runs that an earlier execution left."""
        at = here()
        heard = await self._heard(at, inp) if self._deps.hooks.has("message") else {}
        bodies = await self._bodies(at, inp, heard)
        before = await self._before(at, inp) if inp.open else None
        while True:
            try:
                return await self._store(at, inp, heard, bodies, before)
            except _TakenOver:
                before = await self._before(at, inp)

    async def _store(
        self, at: Here, inp: Admit, heard: dict[str, Heard], bodies: dict[str, str], before: _Before | None
    ) -> Admitted:
        out = Admitted(limits=self._limits() if inp.open else None)
        news: list[tuple[str, int]] = []
        async with self._deps.pool.acquire() as conn, conn.transaction():
            thread = await threads.claim(
                conn,
                *(at.tenant, at.thread, inp.writer, inp.started),
                execution=at.execution,
                queue=self._deps.settings.task_queue,
                create=bool(inp.messages),
            )
            if thread is None:
                return out
            asked = await _who_asks(conn, at, inp.child) if inp.child is not None else None
            if inp.open and asked is not None and asked.why is None and not thread.scope:
                await family.give_scope(conn, thread.id, asked.child.scope)
                thread.scope = asked.child.scope
            out.scope = thread.scope
            if out.limits is not None and thread.scope:
                out.limits.linger = 0.0  # whoever asked has the answer; nobody else is expected here
            if thread.before is not None:
                before = None if asked is not None else before or _Before(None)
                news += await self._take_over(conn, thread, inp.writer, out, before)
            if inp.open:
                out.runs.extend(_anew(run) for run in await runs.open_of_thread(conn, thread.id))
            for message in inp.messages:
                about = heard.get(message.message_id), bodies.get(message.message_id)
                await self._admit_one(conn, at, thread, message, asked, about, out, news)
        for run_id, seq in news:
            self._deps.notifier.poke(run_id, seq)
        return out

    async def _heard(self, at: Here, inp: Admit) -> dict[str, Heard]:
        """Show new messages to plugins, all at once, before anything is locked; a known one was shown before.

        A text that is not stored yet is refused: stored a moment later, it would be admitted unseen.
        """
        new: list[tuple[Message, str]] = []
        unseen: dict[str, Heard] = {}
        async with self._deps.pool.acquire() as conn:
            for message in inp.messages:
                if await runs.of_message(conn, run_id_for(at.tenant, at.thread, message.message_id)) is None:
                    text = message.text
                    if text is None:
                        data = await threads.get_blob(conn, at.tenant, message.text_ref or "")
                        text = None if data is None else _decoded(data)
                    if text is None:
                        unseen[message.message_id] = Heard(None, _not_stored(message))
                    else:
                        new.append((message, text))
        child = inp.child.message.message_id if inp.child is not None else None
        parent = inp.child.parent if inp.child is not None else None
        heard = await asyncio.gather(
            *(hear(self._deps, at, each, text, parent if each.message_id == child else None) for each, text in new)
        )
        return unseen | {message.message_id: each for (message, _), each in zip(new, heard, strict=True)}

    async def _bodies(self, at: Here, inp: Admit, heard: dict[str, Heard]) -> dict[str, str]:
        """Return the JSON of each message's text, made before anything is locked; none of a text that is not stored."""
        found: dict[str, str] = {}
        for message in inp.messages:
            name = message.message_id
            text = heard[name].text if name in heard else message.text
            if text is None and name not in heard:
                async with self._deps.pool.acquire() as conn:
                    data = await threads.get_blob(conn, at.tenant, message.text_ref or "")
                text = None if data is None else _decoded(data)
            if text is not None:
                large = len(text) > _LARGE
                found[name] = await asyncio.to_thread(runs.user_body, text) if large else runs.user_body(text)
        return found

    async def _before(self, at: Here, inp: Admit) -> _Before:
        """Ask Temporal, before anything is locked, how the thread's last writer ended, if it has left a run begun.

        By the run id of its execution: a listing of workflows lags behind what a person did a moment ago.
        """
        async with self._deps.pool.acquire() as conn:
            found = await threads.written_by(conn, at.tenant, at.thread)
        if found is None or found[0].writer == inp.writer or not found[1]:
            return _Before(None)
        left = found[0]
        return _Before(left, await execution_ended(self._deps.client, at.workflow_id, left.execution or left.writer))

    async def _take_over(
        self, conn: Connection, thread: ThreadRow, writer: str, out: Admitted, before: _Before | None
    ) -> list[tuple[str, int]]:
        """Tidy up after an execution that is no more: its open calls are interrupted, its approvals void.

        If a person ended it, that ends the run it worked on, whether a sweep or the next message finds it; not if the
        run that asked for it asks again, as after its Reset: *before* is None then. On a thread with a scope the same
        calls come again under the same keys: they find their slots, and what is recorded.

        Raises:
            _TakenOver: *before* is about another writer than the one that this one has just followed.

        """
        left = await runs.open_of_thread(conn, thread.id)
        ids = [run.run_id for run in left]  # a thousand may wait: a statement for each would hold the thread for long
        await runs.lock_all(conn, ids)  # before their slots and approvals, as whoever decides or ends a run does
        if not thread.scope:
            await threads.fill_interrupted(conn, thread.id)
            await decisions.void(conn, *ids)
        stopped: list[tuple[str, int]] = []
        if before is not None and any(run.begun for run in left):
            if before.written != thread.before:
                raise _TakenOver
            if before.why is not None:
                stopped = await stop_begun(conn, thread.id, before.why, writer=writer)
        out.ended += [run for run in left if run.notify is not None and run.run_id in dict(stopped)]
        return stopped

    async def _admit_one(
        self,
        conn: Connection,
        at: Here,
        thread: ThreadRow,
        message: Message,
        asked: _Asked | None,
        about: tuple[Heard | None, str | None],
        out: Admitted,
        news: list[tuple[str, int]],
    ) -> None:
        heard, body = about
        run_id = run_id_for(at.tenant, at.thread, message.message_id)
        if asked is not None and asked.child.message.message_id != message.message_id:
            asked = None
        known = await runs.of_message(conn, run_id)
        if known is not None:
            run, state = known
            if message.text_ref is not None:
                await threads.drop_blob(conn, at.tenant, message.text_ref)
            if state in OPEN_STATES:
                if all(run.run_id != other.run_id for other in out.runs):
                    out.runs.append(_anew(run))
            elif message.notify is not None:
                out.ended.append(run.model_copy(update={"notify": message.notify}))
            return
        why = _not_stored(message) if body is None and heard is None else None
        if message.text_ref is not None and body is not None:  # it has its place in the thread now
            await threads.drop_blob(conn, at.tenant, message.text_ref)
        if thread.agent not in (None, message.agent) and await family.handed_over(conn, thread.id, message.agent):
            # Sent before the conversation moved, or by a Schedule that cannot know: it goes to whose it is now.
            message = message.model_copy(update={"agent": thread.agent})
        queue = self._deps.settings.task_queue
        found = await runs.agent(conn, message.agent, queue)
        if found is None:
            names = ", ".join(await runs.agent_names(conn, queue)) or "none; is a worker up?"
            why = why or f"there is no agent {message.agent!r}. The workers of the task queue {queue} know: {names}"
        elif thread.agent is not None and thread.agent != message.agent:
            why = why or (
                f"thread {at.thread} belongs to agent {thread.agent!r}: ask that one, or choose another thread"
            )
        if heard is not None:
            why = why or heard.refused
        if asked is not None and asked.why is not None:
            why, asked = why or asked.why, None
        parent, parent_step = (asked.parent, asked.child.step_no) if asked is not None else (None, None)
        origin: dict[str, Any] = {"body": body, "parent": parent, "parent_step": parent_step}
        if why is not None:
            await runs.insert(conn, thread.id, run_id, message, order=None, definition=None, refused=why, **origin)
            out.ended.append(
                Run(run_id=run_id, message_id=message.message_id, agent=message.agent, notify=message.notify)
            )
            await emit_notes(conn, run_id, 0, heard.notes if heard is not None else ())
            news.append((run_id, await events.emit(conn, run_id, "refused", error=why)))
            return
        if thread.agent is None:
            await threads.own(conn, thread, message.agent)
        digest = found[0] if found else None
        order, budget = await threads.take_order(conn, thread.id), found[1].budget if found else None
        await runs.insert(conn, thread.id, run_id, message, order=order, definition=digest, budget=budget, **origin)
        stored = await runs.of_message(conn, run_id)
        if stored is not None:
            out.runs.append(stored[0].model_copy(update={"preview": _preview(message, body)}))
        news.append(
            (
                run_id,
                await events.emit(
                    conn, run_id, "accepted", agent=message.agent, message_id=message.message_id, mode=message.mode
                ),
            )
        )
        if heard is not None and heard.notes:
            news.append((run_id, await emit_notes(conn, run_id, 0, heard.notes) or 0))
        if asked is not None:  # once, with the run's row: the record of the run that asks says so
            seq = await events.emit(
                conn,
                asked.child.parent,
                "child_started",
                step=parent_step,
                run_id=run_id,
                agent=message.agent,
                thread=at.thread,
            )
            news.append((asked.child.parent, seq))

    def _limits(self) -> Limits:
        settings = self._deps.settings
        return Limits(
            lease=settings.scaled(settings.lease),
            linger=settings.linger,
            linger_asked=settings.linger_asked,
            look_after=settings.look_after,
            memory_wait=settings.scaled(settings.memory_wait),
            model_timeout=settings.model_timeout,
            hook_time=self._deps.hooks.seconds,
            roll_after=settings.roll_after_events,
            memory_queue=settings.memory_queue,
            task_queue=settings.task_queue,
            task_timeout=settings.scaled(settings.task_timeout),
        )


def _preview(message: Message, body: str | None) -> str:
    """Return the first line of a message. Of a long one, which may have megabytes, only the beginning is looked at."""
    text = message.text
    if text is None:
        text = (body or "").partition('"content": "')[2][: 4 * PREVIEW].partition("\\n")[0].replace('\\"', '"')
    return first_line(text, PREVIEW)


def _not_stored(message: Message) -> str:
    return f"the text named by text_ref {message.text_ref!r} is not stored: store it first, then send the message"


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")


class _TakenOver(Exception):  # the thread has had another writer between the look and the lock
    pass


@dataclass(frozen=True, slots=True)
class _Before:
    """Who has left a run begun on the thread, and how a person ended that execution, if one did."""

    written: Written | None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which run asks for a message, and if that cannot be, why."""

    child: ChildStart
    parent: Any = None  # its row
    why: str | None = None


async def _who_asks(conn: Connection, at: Here, child: ChildStart) -> _Asked:
    """Look up who asks. Anyone with access to Temporal can start a workflow and say that some run asked for it."""
    parent = await runs.by_id(conn, child.parent)
    if parent is None or parent["tenant"] != at.tenant:
        return _Asked(child, why=f"run {child.parent}, which is said to ask, is not known here")
    agent = child.message.agent
    definition = await runs.definition(conn, parent["definition"] or "")
    tools = [tool.name for tool in definition.tools if tool.agent == agent] if definition is not None else []
    keys = [effect_key(parent["scope"] or "", child.step_no, tool) for tool in tools]
    if child.scope not in keys or child.message.message_id != child.scope:
        return _Asked(child, why=f"step {child.step_no} of run {child.parent} does not ask {agent} this")
    if at.thread != child_thread(agent, child.scope):
        return _Asked(child, why=f"thread {at.thread} is not the one on which that step asks")
    return _Asked(child, parent)


def _anew(run: Run) -> Run:
    """Return an open run as a chain gets it that has not begun it: what it has used, `begin_run` tells."""
    return run.model_copy(update={"begun": False, "rounds": 0, "steps": 0, "tokens": 0, "cost_usd": 0.0, "unpriced": 0})
