"""The MCP servers of one worker: connects them, pins what they list, makes their tools, carries calls to them.

The runtime opens one per worker. All but `equip` runs on the tool loop, where the sessions and their pool live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from holdfast.advice import GO_ON
from holdfast.errors import ConfigurationError, ToolError, ToolNotStarted
from holdfast.mcp.line import Line
from holdfast.mcp.link import Link
from holdfast.mcp.server import MCPServer, tool_name
from holdfast.mcp.tool import MCPTool
from holdfast.memory import pins
from holdfast.memory.database import Pool
from holdfast.memory.pins import Change, Offer, Pin
from holdfast.settings import Settings
from holdfast.tools.context import ToolContext

if TYPE_CHECKING:
    from holdfast.agent import Agent

__all__ = ["Rack", "servers_of"]

log = structlog.get_logger(__name__)

_CONNECTING = 0.8  # part of a call's time that may go by before it is sent
_ADVICE = {
    "first": "pinned as it is: what it says from now on must stay so",
    "new": "not offered to agents until accepted",
    "changed": "suspended until accepted",
    "restored": "says again what was accepted; no longer suspended",
    "gone": "no longer offered to agents",
}


def servers_of(agents: Iterable[Agent]) -> list[MCPServer]:
    """Return all servers that agents declare."""
    return [source for agent in agents for source in agent.sources if isinstance(source, MCPServer)]


class Rack:
    """The servers that a worker's agents declare, by name."""

    def __init__(self, settings: Settings, pool: Pool, agents: Mapping[str, Agent]) -> None:
        """Connect to nothing yet. *pool* belongs to the tool loop.

        Raises:
            ConfigurationError: two declarations of one name reach different servers.

        """
        self._settings = settings
        self._pool = pool
        self._agents = agents
        self._lines: dict[str, Line] = {}
        self._revisions: dict[str, int] = {}
        self._warned: set[tuple[str, str]] = set()
        self._declared = servers_of(agents.values())
        for server in self._declared:
            line = self._lines.get(server.name)
            if line is not None and line.endpoint != server.endpoint:
                raise ConfigurationError(
                    f"two MCP servers are called {server.name!r} and are reached in different ways. Give one another "
                    "name, or declare it once and name it in both agents."
                )
            if line is None:
                longest = max(each.timeout for each in self._declared if each.name == server.name)
                self._lines[server.name] = Line(server.endpoint, settings, longest_call=longest, sighted=self._sighted)

    async def start(self) -> None:
        """Connect to all servers at once, and wait until each has answered or failed to.

        One that was seen before is waited for a little only: should it hang, its pinned tools stand in.
        """
        for line in self._lines.values():
            line.start()
        async with self._pool.acquire() as conn:
            known = await pins.revisions(conn, self._lines)
        patience = self._settings.scaled(self._settings.mcp_start_wait)
        await asyncio.gather(*(line.tried(patience if name in known else None) for name, line in self._lines.items()))

    async def close(self) -> None:
        """End all sessions, and the servers that are our children."""
        await asyncio.gather(*(line.close() for line in self._lines.values()))

    # ------------------------------------------------------------------------------------ tools

    async def tools(self) -> dict[str, list[MCPTool]] | None:
        """Return the tools of each agent, as pinned now; None if nothing has changed since the last time."""
        async with self._pool.acquire() as conn:
            revisions = await pins.revisions(conn, self._lines)
            if revisions == self._revisions:
                return None
            known = await pins.listing(conn, self._lines)
        by_server: dict[str, list[Pin]] = {}
        for pin in known:
            by_server.setdefault(pin.server, []).append(pin)
        made = {
            agent.name: [
                tool
                for source in agent.sources
                if isinstance(source, MCPServer)
                for tool in self._tools_of(source, by_server.get(source.name, []))
            ]
            for agent in self._agents.values()
            if agent.sources
        }
        self._revisions = revisions
        return made

    def _tools_of(self, server: MCPServer, known: list[Pin]) -> list[MCPTool]:
        listed = {pin.tool for pin in known}
        for name in sorted(server.named - listed) if listed else ():
            if (server.name, name) not in self._warned:
                self._warned.add((server.name, name))
                log.error("an MCP server has no such tool: is it misspelt?", server=server.name, tool=name)
        given = [pin.pinned for pin in known if pin.pinned is not None and pin.present and server.offers(pin.tool)]
        names: dict[str, str] = {}
        for offer in given:
            name = tool_name(server.name, offer.tool)
            if name in names:
                raise ConfigurationError(
                    f"MCP server {server.name!r}: its tools {names[name]!r} and {offer.tool!r} would both be called "
                    f"{name!r}, and a model could not tell them apart. Choose one with only=[…]."
                )
            names[name] = offer.tool
        return [MCPTool(server, offer, self._call) for offer in given]

    # ------------------------------------------------------------------------------------ calls

    async def _call(self, server: MCPServer, tool: str, args: dict[str, Any], ctx: ToolContext) -> Any:
        """Carry out one call. All that fails before it is handed over proves that nothing was sent."""
        line = self._lines[server.name]
        try:
            async with asyncio.timeout(ctx.remaining * _CONNECTING):
                while True:
                    link = await line.link(server.endpoint.connect_timeout)
                    await self._check(link, tool)
                    if not link.over.is_set():  # another call found out meanwhile that its server was restarted
                        break
        except (ToolError, ToolNotStarted):
            raise
        except Exception as exc:
            raise ToolNotStarted(
                f"{server.name} was not called: {type(exc).__name__}: {exc}. Nothing was sent."
            ) from exc
        return await link.call(tool, args)

    async def _check(self, link: Link, tool: str) -> None:
        """Refuse a tool that is not, on this very session, what was pinned."""
        server = link.endpoint.name
        offer = link.offers.get(tool)
        if offer is None:
            raise ToolError(f"the MCP server {server!r} no longer has the tool {tool!r}. {GO_ON}")
        async with self._pool.acquire() as conn:
            accepted = await pins.pinned_hash(conn, server, tool)
        if accepted != offer.hash:
            raise ToolError(
                f"{tool_name(server, tool)} is suspended and was not called: its server now describes it otherwise "
                f"than a person accepted. {GO_ON} A person must look at `holdfast mcp diff {server} {tool}` "
                f"and, if that is right, say `holdfast mcp accept {server} {tool}`."
            )

    # ------------------------------------------------------------------------------------ pins

    async def _sighted(self, link: Link) -> None:
        """Write down what a new session's server lists, and say what is different."""
        server = link.endpoint.name
        offers: list[Offer] = list(link.offers.values())
        async with self._pool.acquire() as conn, conn.transaction():
            changes = await pins.see(conn, server, link.said, offers)
        self._say(server, changes)

    def _say(self, server: str, changes: list[Change]) -> None:
        first = [change.tool for change in changes if change.kind == "first"]
        if first:
            log.info("an MCP server is seen for the first time", server=server, tools=first, now=_ADVICE["first"])
        for change in changes:
            if change.kind != "first":
                tell = log.info if change.kind == "restored" else log.warning
                look = f"holdfast mcp diff {server} {change.tool}" if change.kind in ("new", "changed") else None
                tell(
                    "a tool of an MCP server is not as before",
                    server=server,
                    tool=change.tool,
                    what=change.kind,
                    now=_ADVICE[change.kind],
                    **({"look": look} if look else {}),
                )
