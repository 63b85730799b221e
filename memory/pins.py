"""What MCP servers say of their tools, and what of it a person has accepted. The MCP room and the client ask it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import asyncpg

from holdfast.ids import canonical_json
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries
from holdfast.visible import hides

__all__ = [
    "Change",
    "Offer",
    "Pin",
    "PinState",
    "ServerRow",
    "accept",
    "listing",
    "pinned_hash",
    "revisions",
    "see",
    "servers",
]

_Q = queries("pins")

PinState = Literal["pinned", "changed", "new", "gone"]


@dataclass(frozen=True)
class Offer:
    """A tool as its server describes it. The hash binds all that a model is told of it."""

    tool: str
    description: str
    schema: dict[str, Any]
    annotations: dict[str, Any] = field(default_factory=dict)
    hash: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Compute the hash. Raises ValueError if the schema is no JSON."""
        told = {"name": self.tool, "description": self.description, "inputSchema": self.schema}
        object.__setattr__(self, "hash", hashlib.sha256(canonical_json(told).encode()).hexdigest())

    @property
    def hides(self) -> bool:
        """Whether it holds what a person who looks at it would not see."""
        return any(map(hides, (self.tool, self.description, *_texts(self.schema))))

    def body(self) -> str:
        """Return what is stored of it."""
        return json.dumps({"description": self.description, "schema": self.schema}, ensure_ascii=False)


@dataclass(frozen=True)
class Pin:
    """A tool of a server: what agents are given (None: nothing yet), and what the server said last."""

    server: str
    tool: str
    pinned: Offer | None
    pinned_at: datetime | None
    offered: Offer
    offered_at: datetime
    present: bool

    @property
    def state(self) -> PinState:
        """Whether it can be called: `pinned`. Else suspended (`changed`, `new`) or no longer listed (`gone`)."""
        if not self.present:
            return "gone"
        if self.pinned is None:
            return "new"
        return "pinned" if self.pinned.hash == self.offered.hash else "changed"


@dataclass(frozen=True)
class ServerRow:
    """A server that was seen: what it said of itself, and when."""

    server: str
    said: dict[str, Any]
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True)
class Change:
    """What a new look at a server's tools brought. `first`: the server is new, its tool was pinned as it is."""

    tool: str
    kind: Literal["first", "new", "changed", "restored", "gone"]


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a JSON value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _pin(row: asyncpg.Record) -> Pin:
    offered = json.loads(row["offered"])
    pinned = json.loads(row["pinned"]) if row["pinned"] is not None else None
    annotations = json.loads(row["annotations"])
    return Pin(
        server=row["server"],
        tool=row["tool"],
        pinned=Offer(row["tool"], pinned["description"], pinned["schema"], annotations) if pinned else None,
        pinned_at=row["pinned_at"],
        offered=Offer(row["tool"], offered["description"], offered["schema"], annotations),
        offered_at=row["offered_at"],
        present=row["present"],
    )


async def see(conn: Connection, server: str, said: dict[str, Any], offers: Sequence[Offer]) -> list[Change]:
    """Write down what a server lists now, in the caller's transaction; return what is different from before.

    A server never seen before is trusted: all it lists is pinned, but for what hides something from whoever looks at
    it. Of a known one nothing new is: it waits for `accept`.
    """
    first = bool(await conn.fetchval(_Q["meet"], server, canonical_json(said)))
    known = {pin.tool: pin for pin in await listing(conn, [server])}
    changes: list[Change] = []
    for offer in offers:
        pin = known.pop(offer.tool, None)
        trusted = first and not offer.hides
        await conn.execute(
            _Q["offer"], server, offer.tool, offer.body(), offer.hash, canonical_json(offer.annotations), trusted
        )
        before = pin.state if pin is not None else None
        if pin is None:
            changes.append(Change(offer.tool, "first" if trusted else "new"))
        elif pin.pinned is not None and pin.pinned.hash == offer.hash:
            if before != "pinned":
                changes.append(Change(offer.tool, "restored"))
        elif pin.offered.hash != offer.hash or before == "gone":
            changes.append(Change(offer.tool, "new" if pin.pinned is None else "changed"))
    for pin in known.values():
        if pin.present:
            await conn.execute(_Q["gone"], server, pin.tool)
            changes.append(Change(pin.tool, "gone"))
    if changes:
        await conn.execute(_Q["touch"], server)
    return changes


async def listing(conn: Connection, servers: Iterable[str]) -> list[Pin]:
    """Return all tools ever seen of these servers, by server and name."""
    return [_pin(row) for row in await conn.fetch(_Q["tools"], list(servers))]


async def servers(conn: Connection) -> list[ServerRow]:
    """Return the servers ever seen, by name."""
    rows = await conn.fetch(_Q["servers"])
    return [ServerRow(row["server"], json.loads(row["said"]), row["first_seen"], row["last_seen"]) for row in rows]


async def revisions(conn: Connection, servers: Iterable[str]) -> dict[str, int]:
    """Return a number for each server that goes up when its tools or their pins change."""
    return {row["server"]: row["revision"] for row in await conn.fetch(_Q["revisions"], list(servers))}


async def pinned_hash(conn: Connection, server: str, tool: str) -> str | None:
    """Return the hash of what is pinned of a tool now; None: nothing is."""
    found: str | None = await conn.fetchval(_Q["pinned_hash"], server, tool)
    return found


async def accept(conn: Connection, server: str, tools: dict[str, str]) -> list[str]:
    """Pin what the server offers of *tools* (hash by name), in the caller's transaction; return those that were.

    One whose offer has another hash by now is left as it is: nobody has looked at that.
    """
    if await conn.fetchval(_Q["lock"], server) is None:
        return []
    done = []
    for tool, digest in tools.items():
        status: str = await conn.execute(_Q["accept"], server, tool, digest)
        if status.endswith(" 1"):
            done.append(tool)
    if done:
        await conn.execute(_Q["touch"], server)
    return done
