"""Activities of the memory queue: recall, remember, search; and the tools `remember` and `recall` themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from temporalio import activity

from holdfast.activities.deps import Deps, here
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
from holdfast.errors import ConfigurationError, StorageError, ToolError
from holdfast.memory import events, outbox, runs
from holdfast.memory.database import Pool
from holdfast.memory.longterm import LongTermMemory, MemoryRecord
from holdfast.settings import Settings
from holdfast.tools.context import ToolContext
from holdfast.tools.runner import Begun, ToolRunner
from holdfast.tools.threads import Seat
from holdfast.tools.tool import AnyTool

__all__ = ["MemoryActivities", "MemoryToolRunner"]

log = structlog.get_logger(__name__)

_QUERY = 4000  # characters of a message that are searched for


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
            text = await runs.message_text(conn, inp.run_id)
        hits = await self._memory.search(at.tenant, (text or "")[:_QUERY], inp.limit, thread=at.thread)
        async with self._deps.pool.acquire() as conn, conn.transaction():
            await outbox.put_recall(conn, inp.run_id, inp.step_no, hits)
            seq = await events.emit(conn, inp.run_id, "recalled", count=len(hits))
        self._deps.notifier.poke(inp.run_id, seq)
        return Recalled(count=len(hits))

    @activity.defn(name=Activity.REMEMBER)
    async def remember(self, inp: Remember) -> Remembered:
        """Carry outbox rows over. A crash between the two stores repeats an upsert, which leaves one point."""
        async with self._deps.pool.acquire() as conn:
            rows = await outbox.take(conn, inp.run_id, inp.limit)
        if rows:
            await self._memory.remember(
                [
                    MemoryRecord(
                        tenant=row["tenant"],
                        text=row["text"],
                        thread=row["thread"],
                        run_id=str(row["run_id"]),
                        at=row["created_at"],
                        kind=row["kind"],
                        source_key=row["source_key"],
                    )
                    for row in rows
                ]
            )
        async with self._deps.pool.acquire() as conn:
            await outbox.drop(conn, [row["id"] for row in rows])
            left = await outbox.count(conn)
        return Remembered(count=len(rows), left=left)

    @activity.defn(name=Activity.SEARCH_MEMORY)
    async def search_memory(self, inp: MemoryQuestion) -> MemoryAnswer:
        """Answer a question to memory."""
        return MemoryAnswer(hits=await self._memory.search(inp.tenant, inp.text, inp.limit, thread=inp.thread))


class MemoryToolRunner(ToolRunner):
    """Carries out the tools `remember` and `recall`, which have no function of their own to run."""

    def __init__(self, memory: LongTermMemory, settings: Settings, pool: Pool) -> None:
        super().__init__(settings)
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
            ToolError: nothing can be looked up just now.

        """
        del deadline, begun, seat  # the engine answers in milliseconds, and both operations may be repeated
        if tool.name == "remember":
            return await self._remember(args["text"], ctx)
        try:
            hits = await self._memory.search(ctx.tenant, args["query"], args["limit"], thread=ctx.thread)
        except StorageError as exc:
            log.warning("a recall was not answered", error=str(exc))
            raise ToolError("the long-term memory does not answer just now; go on without it") from exc
        return "\n".join(_line(hit) for hit in hits) or "nothing is remembered about that"

    async def _remember(self, text: str, ctx: ToolContext) -> str:
        source, at = f"tool:{ctx.idempotency_key}", datetime.now(UTC)
        record = MemoryRecord(
            tenant=ctx.tenant, text=text, thread=ctx.thread, run_id=ctx.run_id, at=at, source_key=source
        )
        try:
            await self._memory.remember([record])
        except StorageError as exc:
            log.warning("a memory waits for its store", error=str(exc))
            about = {"tenant": ctx.tenant, "run_id": ctx.run_id, "thread": ctx.thread, "kind": record.kind}
            # The same key, so that it is one memory whatever came of this try.
            async with self._database.acquire() as conn:
                await outbox.put(conn, source_key=source, text=text, **about)
            return "noted; it will be remembered as soon as the long-term memory answers again"
        return "remembered"


def _line(hit: MemoryHit) -> str:
    when = f" ({hit.at:%Y-%m-%d})" if hit.at else ""
    return f"- {hit.text}{when}"
