"""Tells whether a detached stack still has work or clients. Only the supervisor calls it."""

from __future__ import annotations

from holdfast.errors import StorageError
from holdfast.memory.database import UNAVAILABLE, connect

__all__ = ["is_in_use"]

_OPEN_RUNS = "select count(*) from holdfast.runs where state in ('queued', 'running', 'waiting')"
_CLIENTS = "select count(*) from pg_stat_activity where application_name like 'holdfast-client%'"


async def is_in_use(database_url: str) -> bool:
    """Say whether a run is open or a client is connected; when in doubt, yes."""
    try:
        conn = await connect(database_url, name="holdfast-supervisor")
    except StorageError:
        return True
    try:
        if await conn.fetchval(_CLIENTS):
            return True
        if await conn.fetchval("select to_regclass('holdfast.runs')") is None:
            return False
        return bool(await conn.fetchval(_OPEN_RUNS))
    except UNAVAILABLE:
        return True
    finally:
        await conn.close(timeout=5.0)
