"""Which messages a model call was sent, so that its request can be rebuilt: ranges of seq, never copies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import asyncpg

from holdfast.memory import threads
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries
from holdfast.memory.threads import Entry

__all__ = ["Recorded", "get", "put", "read_ranges", "sent_entries"]

_Q = queries("requests")

Ranges = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A model call's request as it is on record; ranges are (first, last) seq."""

    definition: str
    ranges: Ranges
    recall_step: int | None
    params: dict[str, Any]
    hash: str


async def sent_entries(conn: Connection, thread_id: int, run_id: str, window_from: int) -> tuple[list[Entry], Ranges]:
    """Return what a model call is sent now: the window, and before it the message the run answers, if that fell out."""
    entries = await threads.window(conn, thread_id, window_from)
    if not entries:
        return [], []
    ranges = [(entries[0].seq, entries[-1].seq)]
    pinned = await conn.fetchval(_Q["pinned"], run_id)
    if pinned is not None and pinned < entries[0].seq:
        entries = await threads.window(conn, thread_id, pinned, pinned) + entries
        ranges.insert(0, (pinned, pinned))
    return entries, ranges


async def put(
    conn: Connection,
    run_id: str,
    step_no: int,
    *,
    definition: str,
    ranges: Ranges,
    recall_step: int | None,
    params: dict[str, Any],
    digest: str,
) -> None:
    """Record a request, in the transaction that commits its reply."""
    spans = [asyncpg.Range(first, last, lower_inc=True, upper_inc=True) for first, last in ranges]
    await conn.execute(_Q["put"], run_id, step_no, definition, spans, recall_step, json.dumps(params), digest)


async def get(conn: Connection, run_id: str, step_no: int) -> Recorded | None:
    """Return what is on record of a model call."""
    row = await conn.fetchrow(_Q["get"], run_id, step_no)
    if row is None:
        return None
    ranges = [(span.lower, span.upper - 1) for span in row["ranges"]]  # PostgreSQL gives [first, last + 1)
    return Recorded(row["definition"], ranges, row["recall"], json.loads(row["params"]), row["hash"])


async def read_ranges(conn: Connection, thread_id: int, ranges: Ranges) -> list[Entry]:
    """Return the messages of these ranges, in order."""
    entries: list[Entry] = []
    for first, last in ranges:
        entries += await threads.window(conn, thread_id, first, last)
    return entries
