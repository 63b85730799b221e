"""Who has a model call in hand: a lease, so that nobody buys what is being bought. `model_step` and its worker ask it.

It saves money and decides nothing: the ledger's row of the step, written with the reply, says which reply counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["release", "renew", "sweep", "take"]

_Q = queries("model_leases")


async def take(conn: Connection, key: str, owner: str, lease: float) -> float | None:
    """Take the call for *lease* seconds and return None; or return in how many seconds its owner may be given up."""
    if (await conn.execute(_Q["take"], key, owner, lease)).endswith(" 1"):
        return None
    left: float | None = await conn.fetchval(_Q["left"], key)
    return left or 0.0  # released or run out in between: now


async def renew(conn: Connection, owners: Mapping[str, str], lease: float) -> None:
    """Prolong the leases of these calls, given as key and owner. One that another has taken is left to it."""
    await conn.execute(_Q["renew"], list(owners), list(owners.values()), lease)


async def release(conn: Connection, key: str, owner: str) -> None:
    """Let the next one make the call at once."""
    await conn.execute(_Q["release"], key, owner)


async def sweep(conn: Connection) -> None:
    """Forget leases an hour old: whoever had them was lost, and nobody came for the call."""
    await conn.execute(_Q["sweep"])
