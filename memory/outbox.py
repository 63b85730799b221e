"""What is to be remembered: rows commit with the answer, and leave when memory has them. Also recalled hits.

A row that memory will never take stays, set aside, with the reason in `refusal`.
"""

from __future__ import annotations

import json
from typing import TypeAlias

import asyncpg

from holdfast.contracts import MemoryHit
from holdfast.ids import storable
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["Row", "count", "drop", "failed", "get_recall", "put", "put_recall", "recalled", "set_aside", "take"]

Row: TypeAlias = asyncpg.Record

_Q = queries("outbox")


async def put(
    conn: Connection, *, tenant: str, source_key: str, run_id: str, thread: str, kind: str, text: str
) -> None:
    """Write down that *text* is to be remembered, once per *source_key*."""
    await conn.execute(_Q["put"], tenant, source_key, run_id, thread, kind, storable(text))


async def take(conn: Connection, run_id: str | None, limit: int) -> list[Row]:
    """Return rows of one run, or the oldest of all. They stay until `drop`: doing one twice leaves one memory.

    Rows that failed before come after the others; those that were set aside are left out.
    """
    return await conn.fetch(_Q["take"], run_id, limit)


async def failed(conn: Connection, row: int) -> None:
    """Have a row that failed alone come after the others."""
    await conn.execute(_Q["failed"], row)


async def set_aside(conn: Connection, row: int, why: str) -> None:
    """Keep a row that long-term memory will never take, and try it no more."""
    await conn.execute(_Q["set_aside"], row, storable(why))


async def drop(conn: Connection, ids: list[int]) -> None:
    """Remove rows that long-term memory has acknowledged."""
    await conn.execute(_Q["drop"], ids)


async def count(conn: Connection) -> int:
    """Return how many rows wait, at most 1,000; those set aside do not."""
    value: int = await conn.fetchval(_Q["count"])
    return value


async def put_recall(conn: Connection, run_id: str, step_no: int, hits: list[MemoryHit]) -> bool:
    """Store what memory knew when a run began, so that its request can be rebuilt. False: it was stored before."""
    text = json.dumps([hit.model_dump(mode="json") for hit in hits], ensure_ascii=False)
    status: str = await conn.execute(_Q["put_recall"], run_id, step_no, text)
    return status.endswith(" 1")


async def recalled(conn: Connection, run_id: str, step_no: int) -> int | None:
    """Return how many hits are stored for a run's recall step; None if it has not been made."""
    count: int | None = await conn.fetchval(_Q["recalled"], run_id, step_no)
    return count


async def get_recall(conn: Connection, run_id: str, step_no: int) -> list[MemoryHit]:
    """Return the hits stored for a run's recall step."""
    text = await conn.fetchval(_Q["get_recall"], run_id, step_no)
    return [] if text is None else [MemoryHit.model_validate(hit) for hit in json.loads(text)]
