"""Reads that tools are allowed: large results of their thread, states of their tenant's runs. Activities call it."""

from __future__ import annotations

import re
from typing import Any

from holdfast.ids import run_ids_from
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["result", "runs_by_prefix"]

_Q = queries("stored")
_HANDLE = re.compile(r"result-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-[0-9]{1,9}")
_PREFIX = re.compile(r"[0-9a-f-]{6,36}")


async def result(
    conn: Connection, tenant: str, thread: str, handle: str, start: int, length: int | None
) -> tuple[bytes, int] | None:
    """Return (bytes from *start* on, size of the whole) of a result that a slot of this very thread names, or None."""
    match = _HANDLE.fullmatch(handle)
    if match is None:
        return None
    row = await conn.fetchrow(_Q["result"], tenant, thread, match[1], handle, start + 1, length)
    return None if row is None else (row["part"], row["bytes"])


async def runs_by_prefix(conn: Connection, tenant: str, prefix: str) -> list[dict[str, Any]]:
    """Return up to two runs of the tenant: state and counts, none of their texts, arguments or results."""
    between = run_ids_from(prefix) if _PREFIX.fullmatch(prefix) else None
    if between is None:
        return []
    return [
        {**dict(row), "run_id": str(row["run_id"]), "cost_usd": float(row["cost_usd"])}
        for row in await conn.fetch(_Q["runs"], tenant, *between)
    ]
