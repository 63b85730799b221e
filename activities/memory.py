"""Activities of the memory queue: recall, remember, search; and the tools `remember` and `recall` themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import ValidationError
from temporalio import activity

from holdfast.activities.deps import Deps, here
from holdfast.advice import GO_ON
from holdfast.contracts import (
    Activity,
    MemoryAnswer,
    MemoryHit,
    MemoryQuestion,
    Recall,
    Recalled,
    Remember,
    Remembered,
)
from holdfast.errors import ConfigurationError, MemoryRefused, StorageError, ToolError
from holdfast.memory import events, outbox, runs
from holdfast.memory.database import Pool
from holdfast.memory.longterm import LongTermMemory, MemoryRecord, takes_probe
from holdfast.secrets import mask
from holdfast.settings import Settings
from holdfast.tools.context import ToolContext
from holdfast.tools.runner import Begun, ToolRunner
from holdfast.tools.threads import Seat
from holdfast.tools.tool import AnyTool

__all__ = ["MemoryActivities", "MemoryToolRunner"]

log = structlog.get_logger(__name__)

_QUERY = 4000  # characters of a message that are searched for
_HOPELESS = (ValidationError, UnicodeError)  # what no other try with the same row can mend


class MemoryActivities:
    """Needs `deps.memory`; only the process that serves the memory queue registers them."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @property
    def _memory(self) -> LongTermMemory:
        if self._deps.memory is None:
            raise ConfigurationError("this worker has no long-term memory")
        return self._deps.memory

    @activity.defn(name=Activity.RECALL)
    async def recall(self, inp: Recall) -> Recalled:
        """Find what this thread left about the run's message; the hits are stored, the workflow gets their number."""
        at = here()
        async with self._deps.pool.acquire() as conn:
            if (found := await outbox.recalled(conn, inp.run_id, inp.step_no)) is not None:  # as after a Reset
                return Recalled(count=found)
            if await runs.has_ended(conn, inp.run_id):
                return Recalled()
            text = await runs.message_text(conn, inp.run_id)
        hits, refusal = [], None
        try:
            hits = await self._memory.search(at.tenant, (text or "")[:_QUERY], inp.limit, thread=at.thread)
        except MemoryRefused as exc:
            log.warning("a message cannot be searched for in long-term memory", error=str(exc))
            refusal = mask(str(exc))
        async with self._deps.pool.acquire() as conn, conn.transaction():
            if not await outbox.put_recall(conn, inp.run_id, inp.step_no, hits):
                return Recalled(count=await outbox.recalled(conn, inp.run_id, inp.step_no) or 0)
            if refusal is None:
                seq = await events.emit(conn, inp.run_id, "recalled", count=len(hits))
            else:
                seq = await events.emit(conn, inp.run_id, "memory_unavailable", why=refusal)
        self._deps.notifier.poke(inp.run_id, seq)
        return Recalled(count=len(hits))

    @activity.defn(name=Activity.REMEMBER)
    async def remember(self, inp: Remember) -> Remembered:
        """Carry outbox rows over. A crash between the two stores repeats an upsert, which leaves one point."""
        async with self._deps.pool.acquire() as conn:
            rows = await outbox.take(conn, inp.run_id, inp.limit)
        taken, set_aside = await self._carry(rows)
        async with self._deps.pool.acquire() as conn:
            await outbox.drop(conn, taken)
            left = await outbox.count(conn)
        return Remembered(count=len(taken) + set_aside, left=left)

    async def _carry(self, rows: Sequence[outbox.Row]) -> tuple[list[int], int]:
        """Return the ids of the rows that memory has taken, and how many it will never take and were set aside.

        A row is set aside only if memory takes another text right after it refused this one: a memory that refuses
        every text is misconfigured or full, and the rows wait until that is corrected.

        Raises:
            StorageError: memory took none.

        """
        if not rows:
            return [], 0
        try:
            await self._memory.remember([_record(row) for row in rows])
        except (StorageError, *_HOPELESS) as exc:
            log.info("memory refused several rows at once, so each is tried alone", rows=len(rows), error=str(exc))
        else:
            return [row["id"] for row in rows], 0
        taken: list[int] = []
        set_aside = 0
        for row in rows:
            try:
                await self._carry_alone(row)
                taken.append(row["id"])
            except (MemoryRefused, *_HOPELESS) as exc:
                await self._set_aside(row, exc)
                set_aside += 1
            except StorageError:  # an outage, or this row alone: the next attempt begins with another one
                async with self._deps.pool.acquire() as conn:
                    await outbox.failed(conn, row["id"])
                if taken or set_aside:
                    break
                raise
        return taken, set_aside

    async def _carry_alone(self, row: outbox.Row) -> None:
        """Have memory take one row.

        Raises:
            MemoryRefused, ValidationError, UnicodeError: it takes other texts, but will never take this one.
            StorageError: it takes none at present.

        """
        record = _record(row)
        try:
            await self._memory.remember([record])
        except (MemoryRefused, *_HOPELESS) as exc:
            if not await takes_probe(self._memory):
                raise _refuses_all(exc) from exc
            raise

    async def _set_aside(self, row: outbox.Row, exc: Exception) -> None:
        why = mask(f"{type(exc).__name__}: {exc}")
        async with self._deps.pool.acquire() as conn:
            await outbox.set_aside(conn, row["id"], why)
        log.error(
            "long-term memory permanently refused this text: it is set aside in the table outbox",
            outbox_id=row["id"],
            run_id=str(row["run_id"]),
            thread=row["thread"],
            kind=row["kind"],
            error=why,
        )

    @activity.defn(name=Activity.SEARCH_MEMORY)
    async def search_memory(self, inp: MemoryQuestion) -> MemoryAnswer:
        """Answer a question to memory. One that the embedding model refuses ends with that error."""
        return MemoryAnswer(hits=await self._memory.search(inp.tenant, inp.text, inp.limit, thread=inp.thread))


class MemoryToolRunner(ToolRunner):
    """Carries out the tools `remember` and `recall`, which have no function of their own to run.

    Without a memory, where no worker of the memory queue took the call: what is to be kept is kept in the outbox, which
    that worker empties when it is back.
    """

    def __init__(self, memory: LongTermMemory | None, settings: Settings, pool: Pool) -> None:
        super().__init__(settings)
        self._queue = settings.memory_queue
        self._memory = memory
        self._database = pool

    @asynccontextmanager
    async def seat(self, tool: AnyTool, *, within: float, look_up: bool = False) -> AsyncIterator[Seat | None]:
        """Hold nothing: no thread is needed."""
        del tool, within, look_up
        yield None

    async def run(
        self,
        tool: AnyTool,
        args: dict[str, Any],
        ctx: ToolContext,
        *,
        deadline: float,
        begun: Begun | None = None,
        seat: Seat | None = None,
    ) -> Any:
        """Return the tool's result as text. With the store away the run goes on: what is to be kept is kept later.

        Raises:
            ToolError: nothing can be looked up just now, or the text is one that memory will never take.

        """
        del deadline, begun, seat  # the engine answers in milliseconds, and both operations may be repeated
        if tool.name == "remember":
            return await self._remember(args["text"], ctx)
        if self._memory is None:
            raise ToolError(
                "the memory worker does not answer: no worker accepted this from the task queue "
                f"{self._queue} in time. {GO_ON}"
            )
        try:
            hits = await self._memory.search(ctx.tenant, args["query"], args["limit"], thread=ctx.thread)
        except MemoryRefused as exc:
            raise ToolError(f"the long-term memory cannot search for this text: {mask(str(exc))}") from exc
        except StorageError as exc:
            log.warning("the long-term memory did not answer a recall", error=str(exc))
            raise ToolError("the long-term memory does not answer at the moment; continue without it") from exc
        return "\n".join(_line(hit) for hit in hits) or "nothing is remembered about that"

    async def _remember(self, text: str, ctx: ToolContext) -> str:
        source, at = f"tool:{ctx.idempotency_key}", datetime.now(UTC)
        record = MemoryRecord(
            tenant=ctx.tenant, text=text, thread=ctx.thread, run_id=ctx.run_id, at=at, source_key=source
        )
        try:
            if self._memory is None:
                raise StorageError(f"no worker of the task queue {self._queue} accepted it in time")
            try:
                await self._memory.remember([record])
            except MemoryRefused as exc:
                if not await takes_probe(self._memory):
                    raise _refuses_all(exc) from exc
                raise
        except MemoryRefused as exc:
            raise ToolError(f"this text cannot be remembered: {mask(str(exc))}") from exc
        except StorageError as exc:
            log.warning("a memory could not be stored yet; it is kept in PostgreSQL and stored later", error=str(exc))
            about = {"tenant": ctx.tenant, "run_id": ctx.run_id, "thread": ctx.thread, "kind": record.kind}
            # The same key, so that it is one memory whatever came of this try.
            async with self._database.acquire() as conn:
                await outbox.put(conn, source_key=source, text=text, **about)
            return "noted; it will be stored as soon as the long-term memory answers again"
        return "remembered"


def _refuses_all(exc: Exception) -> StorageError:
    """Return the error for a memory that has also refused the probe."""
    return StorageError(
        f"The long-term memory refuses every text at present, even a harmless one: {exc} What is to be remembered "
        "waits in PostgreSQL. Correct the memory (the vector size of its collection, a limit or quota that is reached, "
        "the embedding model); Holdfast retries."
    )


def _record(row: outbox.Row) -> MemoryRecord:
    return MemoryRecord(
        tenant=row["tenant"],
        text=row["text"],
        thread=row["thread"],
        run_id=str(row["run_id"]),
        at=row["created_at"],
        kind=row["kind"],
        source_key=row["source_key"],
    )


def _line(hit: MemoryHit) -> str:
    when = f" ({hit.at:%Y-%m-%d})" if hit.at else ""
    return f"- {hit.text}{when}"
