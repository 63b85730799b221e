"""How many PostgreSQL connections workers may hold, and whether the server has so many. Runtime and doctor ask."""

from __future__ import annotations

from typing import Literal, NamedTuple

from holdfast.memory.database import Connection
from holdfast.memory.queries import queries
from holdfast.settings import Settings

__all__ = ["Shortage", "held_at_most", "shortage", "tool_pool"]

_Q = queries("connections")


class Shortage(NamedTuple):
    """A limit that the workers and clients which are connected may reach, and what to do about it."""

    why: str
    advice: str


def tool_pool(settings: Settings) -> int:
    """Return the size of each of a worker's two pools for tools: `local_tx` ones, and what tools read."""
    return max(2, settings.database_pool // 2)


def held_at_most(settings: Settings, role: Literal["agents", "memory"]) -> int:
    """Return how many connections a worker holds at most: its pools, and one that renews leases."""
    tools = 2 * tool_pool(settings) if role == "agents" else 0
    return settings.database_pool + tools + 1


async def shortage(
    conn: Connection, settings: Settings, role: Literal["agents", "memory"] | None = None, name: str = ""
) -> Shortage | None:
    """Say whether the workers that are connected may need more connections than there are, this one included.

    *role* and *name* are those of the worker that asks; the pools of the others are taken to be of the same size.
    """
    of_agents, of_memory = held_at_most(settings, "agents"), held_at_most(settings, "memory")
    for row in await conn.fetch(_Q["limits"], f"holdfast-{name}-leases"):
        agents, memory = row["agents"] + (role == "agents"), row["memory"] + (role == "memory")
        need = agents * of_agents + memory * of_memory + row["others"]
        if need > row["most"]:
            return Shortage(
                f"PostgreSQL allows {row['most']} connections ({row['name']}), and up to {need} may be needed: "
                f"{agents} agent workers may use {of_agents} each, {memory} memory workers {of_memory} each, "
                f"and {row['others']} other connections are open",
                f"raise the limit to {need}, plus 5 for each further client, lower HOLDFAST_DATABASE_POOL "
                f"({settings.database_pool}), or run fewer workers",
            )
    return None
