"""The gapless record of each run, and the tokens of a model call under way. Activities write, clients read."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from holdfast.contracts import Event
from holdfast.ids import storable
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["CHANNEL", "drop_deltas", "emit", "new_generation", "read", "read_deltas", "write_delta"]

CHANNEL = "holdfast_events"  # its payload is `run_id:seq`

_Q = queries("events")


async def emit(conn: Connection, run_id: str, kind: str, /, **data: Any) -> int:
    """Append an event and return its number. Call it last in a transaction: it locks the run's head until commit."""
    text = storable(json.dumps(data, ensure_ascii=False, default=str))
    seq: int = await conn.fetchval(_Q["emit"], run_id, kind, text)
    return seq


def _event(row: asyncpg.Record) -> Event:
    return Event(
        run_id=str(row["run_id"]), seq=row["seq"], kind=row["kind"], at=row["at"], data=json.loads(row["data"])
    )


async def read(conn: Connection, run_id: str, after: int = 0, limit: int = 500) -> list[Event]:
    """Return up to *limit* events with a number above *after*, in order."""
    return [_event(row) for row in await conn.fetch(_Q["read"], run_id, after, limit)]


async def new_generation(conn: Connection) -> int:
    """Return a number above that of every earlier attempt of any model call."""
    value: int = await conn.fetchval(_Q["generation"])
    return value


async def write_delta(conn: Connection, run_id: str, step_no: int, generation: int, n: int, text: str) -> None:
    """Show tokens *n* of an attempt; an attempt older than one already heard is refused silently."""
    await conn.execute(_Q["delta"], run_id, step_no, generation, n, text)


async def read_deltas(conn: Connection, run_id: str) -> tuple[int, int, str] | None:
    """Return (step_no, generation, text so far) of the newest attempt under way, if any has spoken."""
    rows = await conn.fetch(_Q["deltas"], run_id)
    if not rows:
        return None
    return rows[0]["step_no"], rows[0]["generation"], "".join(row["text"] for row in rows)


async def drop_deltas(conn: Connection, run_id: str, step_no: int) -> None:
    """Forget the tokens of a model call: its reply is about to be committed."""
    await conn.execute(_Q["drop_deltas"], run_id, step_no)
