"""Where a person looks at MCP servers and accepts what changed: `client.mcp`. Client and command line use it."""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from holdfast.contracts import ApprovalPolicy, EffectClass
from holdfast.errors import InvalidInput, UnknownServer
from holdfast.mcp.away import away
from holdfast.mcp.server import tool_name
from holdfast.memory import decisions, pins, runs
from holdfast.memory.database import Connection
from holdfast.memory.pins import Offer, Pin, PinState
from holdfast.visible import visible

__all__ = ["ServerDesk", "ServerView", "ToolView"]

T = TypeVar("T")


class Read(Protocol):
    """Runs a piece of work on a connection, again if the connection is lost."""

    async def __call__(self, work: Callable[[Connection], Awaitable[T]]) -> T: ...


@dataclass(frozen=True)
class ToolView:
    """A tool of a server. `agents` are those that are given it now, with effect class and approval."""

    server: str
    tool: str
    name: str
    state: PinState
    agents: dict[str, tuple[EffectClass, ApprovalPolicy]]
    annotations: dict[str, Any]
    pinned: Offer | None
    offered: Offer

    @property
    def suspended(self) -> bool:
        """Whether calls are refused until somebody accepts it."""
        return self.state in ("changed", "new")

    def diff(self) -> list[str]:
        """Return the lines of a unified diff, from what is pinned to what the server says now."""
        before = _text(self.pinned) if self.pinned is not None else []
        return list(
            difflib.unified_diff(
                before,
                _text(self.offered),
                f"{self.name} as accepted" if before else f"{self.name} (never accepted)",
                f"{self.name} as offered now",
                lineterm="",
                n=3,
            )
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "server": self.server,
            "tool": self.tool,
            "name": self.name,
            "state": self.state,
            "agents": {name: {"effect": effect, "approval": ask} for name, (effect, ask) in self.agents.items()},
            "annotations": self.annotations,
            "pinned_hash": self.pinned.hash if self.pinned is not None else None,
            "offered_hash": self.offered.hash,
        }


@dataclass(frozen=True)
class ServerView:
    """A server that a worker has seen, and its tools."""

    server: str
    said: dict[str, Any]
    first_seen: datetime
    last_seen: datetime
    tools: list[ToolView]


class ServerDesk:
    """The servers that workers have seen, and their tools as pinned and as offered."""

    def __init__(self, read: Read, home: Path, queue: str) -> None:
        """Take what runs a piece of work on the database, the folder of the stack, and the task queue of the agents."""
        self._read, self._home, self._queue = read, home, queue

    def away(self) -> dict[str, str]:
        """Return why servers cannot be reached now, by name, as this folder's own workers say."""
        return away(self._home)

    async def servers(self) -> list[ServerView]:
        """Return all servers by name, each with its tools."""

        async def look(conn: Connection) -> list[ServerView]:
            found = await pins.servers(conn)
            known = await pins.listing(conn, [row.server for row in found])
            given = _given(await runs.known_agents(conn, self._queue))
            return [
                ServerView(
                    row.server,
                    row.said,
                    row.first_seen,
                    row.last_seen,
                    [_view(pin, given) for pin in known if pin.server == row.server],
                )
                for row in found
            ]

        return await self._read(look)

    async def tools(self, server: str, tool: str | None = None) -> list[ToolView]:
        """Return a server's tools, or the one of that name (with or without the prefix).

        Raises:
            UnknownServer: no worker has seen it.

        """
        seen = {view.server: view for view in await self.servers()}
        if server not in seen:
            known = ", ".join(seen) or "none; workers meet them when they start"
            why = self.away().get(server)
            more = f" It is away: {why}" if why else ""
            raise UnknownServer(f"No worker has seen an MCP server {server[:64]!r}. Known: {known}.{more}")
        found = [view for view in seen[server].tools if tool is None or tool in (view.tool, view.name)]
        if not found and tool is not None:
            raise UnknownServer(
                f"MCP server {server!r} has no tool {tool[:128]!r}. `holdfast mcp list` shows its tools."
            )
        return found

    async def accept(self, looked: list[ToolView], *, actor: str | None = None) -> list[str]:
        """Pin what these tools offered when they were looked at; return the names of those that were suspended.

        Workers give new runs the accepted text within seconds; runs under way keep what they have, and their calls go
        through. It is audited. One that has changed since is left suspended.

        Raises:
            InvalidInput: two tools would have one name for the model; nothing was accepted.

        """
        wanted = [view for view in looked if view.suspended]
        _check_names(looked)
        decision_id = f"mcp-{uuid.uuid4().hex}"

        async def work(conn: Connection) -> list[str]:
            done: list[str] = []
            async with conn.transaction():
                for server in sorted({view.server for view in wanted}):
                    hashes = {view.tool: view.offered.hash for view in wanted if view.server == server}
                    accepted = await pins.accept(conn, server, hashes)
                    done += [tool_name(server, tool) for tool in accepted]
                    detail = {"server": server, "tools": {tool: hashes[tool] for tool in accepted}}
                    await decisions.audit(
                        conn,
                        f"{decision_id}-{server}",
                        run_id=None,
                        step_no=None,
                        action="mcp_accept",
                        actor=actor,
                        accepted=len(accepted) == len(hashes),
                        detail=detail,
                    )
            return done

        return await self._read(work) if wanted else []


def _given(agents: dict[str, Any]) -> dict[str, dict[str, tuple[EffectClass, ApprovalPolicy]]]:
    """Return for each tool's name the agents that have it."""
    found: dict[str, dict[str, tuple[EffectClass, ApprovalPolicy]]] = {}
    for name, agent in agents.items():
        for tool in agent.tools:
            found.setdefault(tool.name, {})[name] = (tool.effect, tool.approval)
    return found


def _view(pin: Pin, given: dict[str, dict[str, tuple[EffectClass, ApprovalPolicy]]]) -> ToolView:
    name = tool_name(pin.server, pin.tool)
    return ToolView(
        pin.server,
        pin.tool,
        name,
        pin.state,
        given.get(name, {}),
        pin.offered.annotations,
        pin.pinned,
        pin.offered,
    )


def _text(offer: Offer) -> list[str]:
    """Return an offer as lines, every character visible: what hides in a description is what one looks for."""
    schema = json.dumps(offer.schema, indent=2, sort_keys=True, ensure_ascii=True)
    return ["description:", *map(_visible, offer.description.split("\n")), "schema:", *schema.splitlines()]


def _visible(line: str) -> str:
    """Write out what is not drawn, and what only looks like a space."""
    return "".join(
        each if each.isprintable() and visible(each) == each else each.encode("unicode_escape").decode()
        for each in line
    )


def _check_names(views: list[ToolView]) -> None:
    names: dict[str, str] = {}
    for view in views:
        if view.state != "gone" and names.setdefault(view.name, view.tool) != view.tool:
            raise InvalidInput(
                f"{names[view.name]!r} and {view.tool!r} would both be called {view.name!r}. "
                "Accept one of them, by name."
            )
