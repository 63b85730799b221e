"""Periodic work that one worker at a time does: whose turn it is, and what is removed once nothing needs it."""

from __future__ import annotations

from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["collect_blobs", "collect_deltas", "collect_late_outcomes", "move", "take"]

_Q = queries("chores")


async def take(conn: Connection, name: str, every: float) -> str | None:
    """Take the next turn of a chore and return its cursor; None: another worker took one within *every* seconds."""
    cursor: str | None = await conn.fetchval(_Q["take"], name, every)
    return cursor


async def move(conn: Connection, name: str, cursor: str) -> None:
    """Store how far a chore has come."""
    await conn.execute(_Q["move"], name, cursor)


async def collect_blobs(conn: Connection, after: str, keep: float, limit: int) -> tuple[str, int]:
    """Remove blobs older than *keep* seconds that no message names, among the next *limit* by id.

    Return (where to go on, how many were removed); at the end it begins anew.
    """
    row = await conn.fetchrow(_Q["blobs"], after, keep, limit)
    if row is None or row["looked"] < limit:
        return "", row["gone"] if row is not None else 0
    return row["last"], row["gone"]


async def collect_late_outcomes(conn: Connection, keep: float, limit: int) -> int:
    """Remove up to *limit* outcomes that came too late and are older than *keep* seconds; return how many."""
    return _count(await conn.execute(_Q["late_outcomes"], keep, limit))


async def collect_deltas(conn: Connection, keep: float, limit: int) -> int:
    """Remove up to *limit* pieces of token streams older than *keep* seconds; return how many."""
    return _count(await conn.execute(_Q["deltas"], keep, limit))


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
