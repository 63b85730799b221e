"""With 100,000 rows and a thousand queued runs: what is looked up all the time stays as quick as with ten."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from holdfast.contracts import AgentDefinition, Message, ToolDefinition
from holdfast.ids import run_id_for, run_ids_from
from holdfast.memory import definitions, runs, threads
from holdfast.memory.database import Connection, Pool
from holdfast.memory.queries import queries
from scripts.bench_kit.rows import LOOKUPS, fill

MOST_ROWS = 5_000  # that one look-up may touch, all threads with work included


async def _touched(conn: Connection, room: str, name: str, args: tuple[Any, ...]) -> float:
    """Return how many rows PostgreSQL touched to answer, those it threw away included."""
    plan = await conn.fetchval(f"explain (analyze, format json) {queries(room)[name]}", *args)

    def rows(node: dict[str, Any]) -> float:
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        return float(own + sum(rows(each) for each in node.get("Plans", [])))

    return rows(json.loads(plan)[0]["Plan"])


async def test_no_look_up_reads_a_whole_table(pool: Pool) -> None:
    """Each is answered from an index that leads to the few rows it is about."""
    async with pool.acquire() as conn:
        await fill(conn)
        touched = {what: await _touched(conn, *lookup) for what, lookup in LOOKUPS.items()}
        assert {what: rows for what, rows in touched.items() if rows > MOST_ROWS} == {}
        found = await conn.fetchval("select run_id from runs where thread_id = 1 limit 1")
        assert await runs.find(conn, "bench", str(found)[:11]) == [str(found)]


async def test_a_thousand_queued_runs_parse_their_definition_once(pool: Pool) -> None:
    """With a definition of 79 KB, to read the queue took 1.9 CPU-seconds of the loop on which leases are renewed."""
    schema = {"type": "object", "properties": {f"field{n}": {"type": "string"} for n in range(20)}}
    tools = [ToolDefinition(name=f"tool{n}", description="x" * 80, parameters=schema) for n in range(96)]
    body = AgentDefinition(name="one", model="openai/test", tools=tools)
    assert len(body.model_dump_json()) > 75_000
    definitions._parsed.clear()
    async with pool.acquire() as conn, conn.transaction():
        await runs.publish_agent(conn, body, "large", "holdfast")
        thread = await threads.claim(
            conn, "t", "queue", "w", datetime.now(UTC), execution="w", queue="holdfast", create=True
        )
        assert thread is not None
        for n in range(1000):
            message = Message(message_id=f"m{n}", agent="one", text="hello")
            run_id = run_id_for("t", "queue", message.message_id)
            text = runs.user_body("hello")
            await runs.insert(conn, thread.id, run_id, message, body=text, order=n, definition="large")
        began = time.thread_time()
        queued = await runs.open_of_thread(conn, thread.id)
        took = time.thread_time() - began
    assert [len(queued), queued[0].definition, queued[-1].budget] == [1000, "large", body.budget]
    assert took < 0.5, "CPU-seconds of this thread"


def test_ids_that_begin_so() -> None:
    """A beginning stands for a range of ids; what is no beginning of an id for none."""
    first, last = run_ids_from("6f8f57f0-6f") or ("", "")
    assert (str(first), str(last)) == ("6f8f57f0-6f00-0000-0000-000000000000", "6f8f57f0-6fff-ffff-ffff-ffffffffffff")
    for wrong in ("6f8f57f06", "-", "6f8f57f0-6f8f57f0", "g", "6" * 40, "6f8f57f0-6f0e-5a3b-9d0c-1b8f3f6f7a111"):
        assert run_ids_from(wrong) is None
