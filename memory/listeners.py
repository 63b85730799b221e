"""How far plugins have heard each run's record. The runtime's teller reads and writes it."""

from __future__ import annotations

from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["behind", "take", "told"]

_Q = queries("listeners")


async def behind(conn: Connection, plugin: str) -> list[str]:
    """Return runs with events that a plugin has not heard and nobody is telling it, a hundred at most.

    The first time makes it known as a listener: it is told of runs in which something happens from then on. What it
    has heard whole is not looked at again, so that a look costs what happened lately, however much is stored.
    """
    since = await conn.fetchval(_Q["listen"], plugin)
    found = [str(row["run_id"]) for row in await conn.fetch(_Q["behind"], plugin, since)]
    if not found:
        await conn.execute(_Q["caught_up"], plugin, since)
    return found


async def take(conn: Connection, plugin: str, run_id: str, lease: float) -> int | None:
    """Be the one that tells a plugin of a run, for *lease* seconds; return what it heard last. None: another one is."""
    seq: int | None = await conn.fetchval(_Q["take"], plugin, run_id, lease)
    return seq


async def told(conn: Connection, plugin: str, run_id: str, seq: int, lease: float) -> None:
    """Write down that a plugin has heard up to *seq*; with *lease* 0 another may go on telling it."""
    await conn.execute(_Q["told"], plugin, run_id, seq, lease)
