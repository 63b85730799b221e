"""How far plugins have heard each run's record. The runtime's teller reads and writes it."""

from __future__ import annotations

from holdfast.ids import storable
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["behind", "refused", "set_aside", "take", "told"]

_Q = queries("listeners")


async def behind(conn: Connection, plugin: str, most: int) -> list[str]:
    """Return runs with events that a plugin has not heard and nobody is telling it, a hundred or two.

    The first time makes it known as a listener: it is told of runs in which something happens from then on. What it
    has heard whole is not looked at again, and of the rest at most the oldest *most* events: a look costs what happened
    lately, however much is stored. A run whose next event the plugin refuses does not hold up the others: it is found
    by its own row until it was told to its end.
    """
    since = await conn.fetchval(_Q["listen"], plugin)
    found = [str(row["run_id"]) for row in await conn.fetch(_Q["behind"], plugin, since, most)]
    if not found:
        await conn.execute(_Q["caught_up"], plugin, since, most)
    return found + [str(row["run_id"]) for row in await conn.fetch(_Q["pending"], plugin)]


async def take(conn: Connection, plugin: str, run_id: str, lease: float) -> int | None:
    """Be the one that tells a plugin of a run, for *lease* seconds; return what it heard last. None: another one is."""
    seq: int | None = await conn.fetchval(_Q["take"], plugin, run_id, lease)
    return seq


async def told(conn: Connection, plugin: str, run_id: str, seq: int, lease: float, *, whole: bool = False) -> None:
    """Write down that a plugin has heard up to *seq*; with *lease* 0 another may go on telling it. *whole*: all."""
    await conn.execute(_Q["told"], plugin, run_id, seq, lease, whole)


async def refused(conn: Connection, plugin: str, run_id: str, pause: float, longest: float) -> tuple[int, bool]:
    """Have the next event of a run told again after a pause, which doubles each time up to *longest* seconds.

    Return how often it was refused, and whether the plugin has taken another event since the first time.
    """
    row = await conn.fetchrow(_Q["refused"], plugin, run_id, pause, longest)
    return (int(row["tries"]), bool(row["others"])) if row is not None else (0, False)


async def set_aside(conn: Connection, plugin: str, run_id: str, seq: int, error: str) -> None:
    """Keep in `unheard` that a plugin never took an event, and count it as heard."""
    await conn.execute(_Q["set_aside"], plugin, run_id, seq, storable(error))
