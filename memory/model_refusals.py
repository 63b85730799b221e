"""For how long the model of a step has refused, by PostgreSQL's clock. `model_step` asks it when its model refuses.

Counted from the first refusal. Time in which nobody asked the model does not count: no worker, no free slot, or no
database was there.
"""

from __future__ import annotations

from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["count", "drop", "pause", "sweep"]

_Q = queries("model_refusals")


async def count(conn: Connection, key: str, spent: float) -> float:
    """Write down that a call of *spent* seconds was refused; return for how many seconds the model has refused."""
    waited: float = await conn.fetchval(_Q["count"], key, spent)
    return waited


async def pause(conn: Connection, key: str, seconds: float) -> None:
    """Write down that the model is asked again after so many seconds: those count."""
    await conn.execute(_Q["pause"], key, seconds)


async def drop(conn: Connection, key: str) -> None:
    """Begin anew: whoever repeats the step has the whole patience again."""
    await conn.execute(_Q["drop"], key)


async def sweep(conn: Connection) -> None:
    """Forget refusals a day old: their steps have ended, or nobody has come for them since."""
    await conn.execute(_Q["sweep"])
