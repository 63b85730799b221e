"""What is done to all runs of a thread, or to all that nobody waits for, however many there are."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, cast

import asyncpg
import pytest
from temporalio.client import Client as Temporal
from temporalio.service import RPCError, RPCStatusCode

from holdfast.activities.admit import AdmitActivities
from holdfast.activities.deps import Deps
from holdfast.activities.endings import stop_orphans
from holdfast.contracts import Admitted
from holdfast.memory import runs
from holdfast.memory.database import Pool
from holdfast.memory.threads import ThreadRow

RUNS = 50


async def _run(conn: Any, thread: int, state: str, parent: str | None = None) -> str:
    run_id = str(uuid.uuid4())
    await conn.execute(
        "insert into runs (run_id, thread_id, message_id, agent, mode, state, budget, parent_run_id, accept_no) "
        "values ($1::uuid, $2, $1::uuid::text, 'a', 'next', $3, '{}', $4, "
        "(select coalesce(max(accept_no), 0) + 1 from runs where thread_id = $2))",
        *(run_id, thread, state, parent),
    )
    return run_id


async def test_a_thread_is_taken_over_in_a_few_statements(pool: Pool) -> None:
    """Its row is locked meanwhile: the work in PostgreSQL does not grow by a round trip for each run that waits."""
    statements: list[str] = []

    def count(query: Any) -> None:
        statements.append(query.query)

    async with pool.acquire() as conn, conn.transaction():
        thread = await conn.fetchval("insert into threads (tenant, thread) values ('t', 'a') returning id")
        ids = [await _run(conn, thread, "queued") for _ in range(RUNS)]
        await conn.execute(
            "insert into approvals (run_id, step_no, call_id, tool, args_hash, policy, state) "
            "select run_id, 1, 'c', 'tool', 'hash', 'always', 'pending' from runs"
        )
        row = ThreadRow(thread, None, 0, 0)
        with conn.query_logger(count):
            await AdmitActivities(cast("Deps", None))._take_over(conn, row, "new", Admitted(), None)
        assert len(statements) < 10, statements
        assert await conn.fetchval("select count(*) from approvals where state = 'void'") == RUNS
        assert len(ids) == RUNS


async def test_runs_are_locked_in_the_order_of_their_ids(pool: Pool) -> None:
    """Who waits for the second of them holds the first already, and not the third."""
    async with pool.acquire() as conn, pool.acquire() as other, pool.acquire() as third:
        thread = await conn.fetchval("insert into threads (tenant, thread) values ('t', 'a') returning id")
        first, second, last = sorted([await _run(conn, thread, "queued") for _ in range(3)])
        async with other.transaction():
            await runs.lock(other, second)
            async with conn.transaction():
                waiting = asyncio.ensure_future(runs.lock_all(conn, [last, second, first]))
                free = "select run_id::text from runs order by run_id for update skip locked"
                async with asyncio.timeout(30):
                    while [row["run_id"] for row in await third.fetch(free)] != [last]:
                        assert not waiting.done()
                waiting.cancel()
                with pytest.raises((asyncio.CancelledError, asyncpg.QueryCanceledError)):
                    await waiting


class Unreachable:
    """A Temporal that knows none of the workflows that are to be told; it writes down which were."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get_workflow_handle(self, workflow_id: str) -> Unreachable:
        """Return itself as the handle."""
        self.asked.append(workflow_id)
        return self

    async def signal(self, _name: str, _word: object) -> None:
        """Fail."""
        raise RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")


async def test_runs_that_cannot_be_stopped_do_not_hide_the_others(pool: Pool) -> None:
    """Each pass tells the next ones, and begins anew after the last."""
    temporal = Unreachable()
    async with pool.acquire() as conn:
        top = await conn.fetchval("insert into threads (tenant, thread) values ('t', 'top') returning id")
        parent = await _run(conn, top, "stopped")
        for name in ("one", "two", "three"):
            thread = await conn.fetchval("insert into threads (tenant, thread) values ('t', $1) returning id", name)
            await _run(conn, thread, "queued", parent)
        for _ in range(4):
            await stop_orphans(cast("Temporal", temporal), conn, 1)
    assert len(temporal.asked) == 3
    assert set(temporal.asked) == {"t:one", "t:two", "t:three"}
