"""Reading a run: its events as they come, its answer, steps, approvals and messages. `RunHandle` is made of this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote

from holdfast import trace
from holdfast.contracts import AgentDefinition, Event
from holdfast.errors import InvalidInput, RunEnded, StackError
from holdfast.ids import workflow_id_for
from holdfast.link import Link
from holdfast.memory import decisions, events, family, ledger, requests, runs, threads
from holdfast.memory.database import Connection
from holdfast.tree import with_children
from holdfast.typed.answers import read_output
from holdfast.views import (
    Answer,
    ApprovalView,
    MessageView,
    RunStatus,
    RunSummary,
    StepDetail,
    StepView,
    Usage,
    WaitingCall,
)

if TYPE_CHECKING:
    from temporalio.client import WorkflowHistory

__all__ = ["LAST_KINDS", "RunReader"]

LAST_KINDS = ("ended", "refused", "merged")
"""Kinds of event after which nothing more comes."""

T = TypeVar("T")

_POLL = 1.0  # a notification can be lost: readers look each second as well
_POLL_TOKENS = 0.5  # tokens notify too, a few times a second
_PAGE = 500
_UNSTORED = 10.0  # what is accepted is written down within a second, unless a server is away


class RunReader:
    """What can be read of a run, all of it from PostgreSQL."""

    def __init__(
        self, link: Link, run_id: str, thread: str, *, again: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Take the run's id; *again* sends its message once more, which is safe."""
        self.run_id = run_id
        self.thread = thread
        self._link = link
        self._again = again
        self._again_at = 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(run_id={self.run_id!r}, thread={self.thread!r})"

    @property
    def workflow_id(self) -> str:
        """The id of the Temporal workflow that works on this run's thread."""
        return workflow_id_for(self._link.tenant, self.thread)

    # ------------------------------------------------------------------------------------ follow and read

    async def events(self, after: int = 0, *, tokens: bool = False, children: bool = False) -> AsyncIterator[Event]:
        """Yield the run's events with a number above *after*, as they happen, until its last.

        Numbers have no gaps, so the last one seen is all it takes to resume. With *tokens*, events of kind `tokens`
        come between them: `data["text"]` is what the model has said so far in that step, and replaces what came
        before; they carry the last number and are not part of the record.

        With *children*, the events of the agents that the run asks (and that those ask) come inline, between
        `child_started` and `child_ended`; `run_id` tells whose an event is. Of a child that began up to *after*, none.

        Raises:
            StackError: PostgreSQL was away for longer than `client_patience`; resume with the last number seen.

        """
        if children:
            stream = with_children(
                self.events(after, tokens=tokens),
                lambda run_id, thread: RunReader(self._link, run_id, thread).events(tokens=tokens),
            )
            async with aclosing(stream):
                async for event in stream:
                    yield event
            return
        shown: tuple[int, int, str] | None = None
        with self._link.woken(self.run_id) as waker:
            while True:
                waker.clear()
                last = after
                batch = await self._link.read(lambda conn, last=last: events.read(conn, self.run_id, last, _PAGE))  # type: ignore[misc]
                for event in batch:
                    after = event.seq
                    yield event
                    if event.kind in LAST_KINDS:
                        return
                if batch:
                    self._again = None
                    continue
                await self._stored()
                if tokens:
                    heard = await self._link.read(lambda conn: events.read_deltas(conn, self.run_id))
                    if heard is not None and heard != shown:
                        shown = heard
                        yield self._tokens(after, heard)
                elif await self._over(after):
                    return
                try:
                    async with asyncio.timeout(_POLL_TOKENS if tokens else _POLL):
                        await waker.wait()
                except TimeoutError:
                    if tokens and after and await self._over(after):
                        return

    def _tokens(self, after: int, heard: tuple[int, int, str]) -> Event:
        step, generation, text = heard
        data = {"step": step, "generation": generation, "text": text}
        return Event(run_id=self.run_id, seq=after, kind="tokens", at=datetime.now(UTC), data=data)

    async def _stored(self) -> None:
        """Send the message again when for a while nothing is stored of its run. Called again and again by who waits.

        A workflow that has accepted a message may be ended from outside before a worker has written it down; then
        nobody else knows of it. The same message id is the same run, so it is never too much.
        """
        if self._again is None:
            return
        now, pause = asyncio.get_running_loop().time(), self._link.settings.scaled(_UNSTORED)
        if not self._again_at:
            self._again_at = now + pause
        if now < self._again_at:
            return
        if await self._link.read(lambda conn: runs.by_id(conn, self.run_id)) is not None:
            self._again = None
            return
        with suppress(StackError):  # nobody is there to take it: who waits, waits on
            await self._again()
        self._again_at = asyncio.get_running_loop().time() + pause

    async def _over(self, after: int) -> bool:
        """Whether the run has ended and all its events have been read: someone resumed behind the last one."""

        async def look(conn: Connection) -> bool:
            row = await runs.by_id(conn, self.run_id)
            return row is not None and row["ended_at"] is not None and not await events.read(conn, self.run_id, after)

        return await self._link.read(look)

    @overload
    async def result(self, timeout: float | None = None) -> Answer[Any]: ...

    @overload
    async def result(self, timeout: float | None = None, *, output: type[T]) -> Answer[T]: ...

    @overload
    async def result(self, timeout: float | None = None, *, output: Any) -> Answer[Any]: ...

    async def result(self, timeout: float | None = None, *, output: Any = None) -> Answer[Any]:
        """Wait for the run's end and return its answer; a steering message has that of the run it joined.

        Its `output` is text; JSON where the agent gives typed answers; with *output*, a type, that type.

        Raises:
            RunEnded: it ended without an answer; `state` says how.
            OutputInvalid: the answer is not of the type *output*.
            TimeoutError: it has not ended within *timeout* seconds. It goes on.
            StackError: PostgreSQL was away for longer than `client_patience`.

        """
        try:
            async with asyncio.timeout(timeout):
                status = await self._ended()
                if status.merged_into is not None:
                    return await RunReader(self._link, status.merged_into, self.thread).result(output=output)
        except TimeoutError:
            raise TimeoutError(f"run {self.run_id} has not ended within {timeout:g} s; it goes on") from None
        text = await self._link.read(lambda conn: runs.answer_text(conn, self.run_id))
        if status.state != "done" or text is None:
            raise RunEnded(
                f"run {self.run_id} ended without an answer: {status.state}"
                + (f", {status.error}" if status.error else ""),
                state=status.state,
            )
        return Answer(
            run_id=self.run_id,
            thread=self.thread,
            output=read_output(await self.definition(), text, output),
            text=text,
            state=status.state,
            usage=status.usage,
            cost_usd=status.cost_usd,
            steps=status.steps,
            rounds=status.rounds,
            tokens_below=status.tokens_below,
            cost_usd_below=status.cost_usd_below,
            unpriced=status.unpriced,
            unpriced_below=status.unpriced_below,
        )

    async def _ended(self) -> RunStatus:
        with self._link.woken(self.run_id) as waker:
            while True:
                waker.clear()
                status = await self.status()
                if status.ended:
                    return status
                await self._stored()
                try:
                    async with asyncio.timeout(_POLL):
                        await waker.wait()
                except TimeoutError:
                    continue

    async def recorded(self) -> list[Event]:
        """Return all events so far, without waiting for more."""
        return await self._link.read(lambda conn: trace.all_events(conn, self.run_id))

    async def status(self) -> RunStatus:
        """Return how the run stands; `accepted` as long as nothing is stored of it."""

        async def look(conn: Connection) -> RunStatus:
            row = await runs.by_id(conn, self.run_id)
            if row is None:
                return RunStatus(run_id=self.run_id, thread=self.thread, agent="", state="accepted")
            asked = await decisions.of_run(conn, self.run_id)
            steps = await ledger.of_run(conn, self.run_id)
            summary = RunSummary.of(
                {
                    **row,
                    "tokens": row["tokens_in"] + row["tokens_out"],
                    "approvals": sum(approval["state"] == "pending" for approval in asked),
                    "in_doubt": sum(step["state"] == "in_doubt" for step in steps),
                }
            )
            return RunStatus(
                **summary.model_dump(),
                message_id=row["message_id"],
                mode=row["mode"],
                message=await runs.message_text(conn, self.run_id),
                merged_into=str(row["merged_into"]) if row["merged_into"] else None,
                started_at=row["started_at"],
                usage=Usage(input_tokens=row["tokens_in"], output_tokens=row["tokens_out"]),
            )

        return await self._link.read(look)

    async def definition(self) -> AgentDefinition | None:
        """Return the agent as it was when the run was admitted; None before that."""

        async def look(conn: Connection) -> AgentDefinition | None:
            row = await runs.by_id(conn, self.run_id)
            return await runs.definition(conn, row["definition"]) if row is not None and row["definition"] else None

        return await self._link.read(look)

    async def definitions(self) -> dict[int, AgentDefinition]:
        """Return the agent that each model call asked as, by the step; it changes where a conversation is handed over.

        A tool call belongs to the model call before it.
        """
        steps = [int(event.data["step"]) for event in await self.recorded() if event.kind == "replied"]

        async def look(conn: Connection) -> dict[int, AgentDefinition]:
            found = {}
            for step in steps:
                request = await requests.get(conn, self.run_id, step)
                if request is not None and (body := await runs.definition(conn, request.definition)) is not None:
                    found[step] = body
            return found

        return await self._link.read(look)

    async def histories(self) -> list[WorkflowHistory]:
        """Return the histories, as far as they are kept, of the workflow executions that worked on this run, in order.

        Raises:
            StackError: Temporal does not answer.

        """
        status = await self.status()
        since, until = status.created_at or datetime.now(UTC), status.ended_at or datetime.now(UTC)
        wire = await self._link.wire()
        return await wire.histories(self.workflow_id, self.run_id, since=since, until=until)

    async def children(self) -> list[RunSummary]:
        """Return the runs of the agents that this run has asked, in the order in which it asked."""
        rows = await self._link.read(lambda conn: family.children(conn, self.run_id))
        return [RunSummary.of(dict(row)) for row in rows]

    async def messages(self, after: int = 0, limit: int = 200) -> list[MessageView]:
        """Return up to *limit* messages of the run's thread with a seq above *after*, in order."""
        rows = await self._link.read(
            lambda conn: threads.page(conn, self._link.tenant, self.thread, after=after, limit=limit)
        )
        return [MessageView.model_validate(row) for row in rows]

    async def steps(self) -> list[StepView]:
        """Return the run's rows in the effect ledger, in order."""
        return [StepView.of(dict(row)) for row in await self._link.read(lambda conn: ledger.of_run(conn, self.run_id))]

    async def trace(self, *, whole: bool = True) -> list[StepDetail]:
        """Return the run's steps with arguments, results, errors and replies in full, in order.

        They include calls that wait for approval, were rejected or were not made. With *whole* False, long results are
        trimmed, as the model got them. The requests of model calls are not included: see `step`.
        """
        tenant = self._link.tenant
        return await self._link.read(lambda conn: trace.read_steps(conn, tenant, self.run_id, whole=whole))

    async def step(self, number: int, *, request: bool = True) -> StepDetail:
        """Return one step in full; for a model call, including the request as sent: system prompt, tools, messages.

        With *request* False, the request is not rebuilt.

        Raises:
            InvalidInput: the run has no such step.

        """
        tenant, settings = self._link.tenant, self._link.settings

        async def look(conn: Connection) -> StepDetail:
            found = await trace.read_steps(conn, tenant, self.run_id, whole=True, only=number)
            if not found:
                raise InvalidInput(
                    f"no step {number} is recorded for run {self.run_id}. `holdfast show {self.run_id[:8]}` lists its "
                    "steps; a model call is listed once its reply has been recorded."
                )
            wanted = request and found[0].kind == "model"
            sent = await trace.read_request(conn, settings, self.run_id, number) if wanted else None
            return found[0] if sent is None else found[0].model_copy(update={"request": sent[0], "agent": sent[1]})

        return await self._link.read(look)

    async def approvals(self) -> list[ApprovalView]:
        """Return the calls that a person was asked to approve, including decided ones, ordered by step."""
        return await self._link.read(lambda conn: trace.read_approvals(conn, self.run_id))

    async def waiting(self) -> list[WaitingCall]:
        """Return the calls that wait for a person now, in this run and in those of the agents that it asked."""
        return await self._link.read(lambda conn: trace.read_waiting(conn, self.run_id))

    def ui_url(self) -> str | None:
        """Return the address of the thread's workflow in the Temporal Web UI, or None if no UI is known."""
        base = self._link.settings.temporal_ui
        if base is None:
            return None
        namespace = quote(self._link.settings.temporal_namespace, safe="")
        return f"{base.rstrip('/')}/namespaces/{namespace}/workflows/{quote(self.workflow_id, safe='')}"
