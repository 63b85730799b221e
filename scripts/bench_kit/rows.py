"""What is looked up all the time, among 100,000 runs, messages and effects of one thread. A test uses it too."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.ids import run_ids_from
from holdfast.memory.database import Connection, connect
from holdfast.memory.queries import queries
from scripts.bench_kit import report
from tests import standalone

__all__ = ["LOOKUPS", "ROWS", "fill", "measure"]

ROWS = 100_000
WAITING = 1_000  # threads with a run that has not ended
SCOPE = "bench:big@first"
TENANT = "bench"
_ANY = uuid.uuid5(uuid.NAMESPACE_URL, "any")

_FILL = """
insert into definitions (hash, body) values ('d', '{{}}');
insert into threads (tenant, thread, writer, last_seq) values ('{tenant}', 'big', 'first', {rows});
insert into runs (run_id, thread_id, message_id, agent, definition, mode, state, accept_no)
select md5(n::text)::uuid, 1, 'm' || n, 'one', 'd', 'next', 'done', n from generate_series(1, {rows}) n;
insert into messages (thread_id, seq, run_id, step_no, role, body, tokens)
select 1, n, md5(n::text)::uuid, 1, 'assistant', '{{"role": "assistant", "content": "x"}}', 4
from generate_series(1, {rows}) n;
insert into messages (thread_id, seq, run_id, step_no, role, call_id)
values (1, {rows} + 1, md5('1')::uuid, 2, 'tool', 'c');
insert into effects (key, run_id, scope, step_no, tool, class, args_hash, state)
select md5(n::text), md5(n::text)::uuid, '{scope}', n, 'model', 'pure', 'h', 'done' from generate_series(1, {rows}) n;
insert into threads (tenant, thread, writer)
select '{tenant}', 'waits-' || n, 'w' || n from generate_series(1, {waiting}) n;
insert into runs (run_id, thread_id, message_id, agent, definition, mode, state)
select md5('waits' || id)::uuid, id, 'm', 'one', 'd', 'next', 'waiting' from threads where thread like 'waits-%';
analyze
"""

# What it is, the room of the SQL, its name, and its arguments on these tables.
LOOKUPS: Mapping[str, tuple[str, str, tuple[Any, ...]]] = {
    "the last step of a scope": ("ledger", "last_step", (SCOPE,)),
    "open slots of a thread": ("threads", "open_slots", (1,)),
    "a run by the beginning of its id": ("runs", "by_prefix", (*(run_ids_from(str(_ANY)[:8]) or ()), TENANT)),
    "the same, as a tool asks": ("stored", "runs", (TENANT, *(run_ids_from(str(_ANY)[:8]) or ()))),
    "the next 200 threads with work": ("runs", "open_threads", (0, 200)),
    "runs that wait on a thread": ("runs", "open_of_thread", (1,)),
    "who wrote to a thread last": ("threads", "writer", (TENANT, "big")),
    "names of agents": ("runs", "known_agents", ("holdfast",)),
}


async def fill(conn: Connection) -> None:
    """Fill empty tables."""
    for statement in _FILL.format(tenant=TENANT, scope=SCOPE, rows=ROWS, waiting=WAITING).split(";"):
        await conn.execute(statement)


async def measure(rounds: int, out: Path) -> None:
    """Time each look-up *rounds* times and report seconds."""
    async with standalone.servers() as given, standalone.world(given, "") as world:
        conn = await connect(world.settings.database_url or "")
        try:
            await fill(conn)
            rows = {name: report.spread(await _times(conn, rounds, *lookup)) for name, lookup in LOOKUPS.items()}
        finally:
            await conn.close()
    report.show(f"seconds of a look-up among {ROWS:,} rows", rows, ["one connection, each statement alone"], out, rows)


async def _times(conn: Connection, rounds: int, room: str, name: str, args: tuple[Any, ...]) -> list[float]:
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        await conn.fetch(queries(room)[name], *args)
        found.append(time.perf_counter() - began)
    return found
