"""Stored definitions of agents, by hash. One never changes, so a process reads and parses each of them once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from holdfast.contracts import AgentDefinition
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["one", "several"]

_Q = queries("runs")
_KEPT = 256  # parsed definitions; the one that was not used for longest goes first
_parsed: OrderedDict[str, AgentDefinition] = OrderedDict()


async def several(conn: Connection, digests: Iterable[str]) -> dict[str, AgentDefinition]:
    """Return the definitions with these hashes, those there are. They are shared: never change one."""
    wanted = set(digests)
    found = {digest: body for digest in wanted if (body := _parsed.get(digest)) is not None}
    missing = list(wanted - found.keys())
    if missing:
        for row in await conn.fetch(_Q["definitions"], missing):
            found[row["hash"]] = _parsed[row["hash"]] = AgentDefinition.model_validate_json(row["body"])
    for digest in found:
        _parsed[digest] = found[digest]
        _parsed.move_to_end(digest)
    while len(_parsed) > _KEPT:
        _parsed.popitem(last=False)
    return found


async def one(conn: Connection, digest: str) -> AgentDefinition | None:
    """Return the definition with this hash, or None."""
    return (await several(conn, [digest])).get(digest)
