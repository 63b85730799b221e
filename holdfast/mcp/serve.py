"""Gives a worker's agents the tools of their MCP servers. The runtime calls it, on its own loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import structlog

from holdfast.mcp.server import MCPServer
from holdfast.memory.database import Pool
from holdfast.settings import Settings
from holdfast.tools.runner import ToolRunner

if TYPE_CHECKING:
    from holdfast.agent import Agent
    from holdfast.mcp.rack import Rack

__all__ = ["Equipment", "open_servers"]

log = structlog.get_logger(__name__)


class Equipment:
    """The open servers of a worker, and the agents that have tools of them."""

    def __init__(self, rack: Rack, runner: ToolRunner, agents: Mapping[str, Agent]) -> None:
        self._rack = rack
        self._runner = runner
        self._agents = agents

    async def equip(self) -> bool:
        """Give each agent the tools that are pinned now; False if they are as they were.

        Raises:
            ConfigurationError: two tools would have one name.

        """
        tools = await self._runner.call(self._rack.tools)
        if tools is None:
            return False
        for name, made in tools.items():
            self._agents[name].equip(made)
        return True


@contextlib.asynccontextmanager
async def open_servers(
    settings: Settings, agents: Mapping[str, Agent], runner: ToolRunner, pool: Pool
) -> AsyncIterator[Equipment | None]:
    """Connect to the servers that agents declare and equip the agents; None where there are no servers.

    A server that cannot be reached keeps nobody from starting: its pinned tools stand in. *pool* is the tool loop's.

    Raises:
        ConfigurationError: two declarations or two tools have one name.

    """
    if not any(isinstance(source, MCPServer) for agent in agents.values() for source in agent.sources):
        yield None
        return
    made = (await asyncio.to_thread(import_module, "holdfast.mcp.rack")).Rack  # half a CPU-second: no loop may wait
    rack: Rack = await runner.call(_make, made, settings, pool, agents)
    equipment = Equipment(rack, runner, agents)
    try:
        await runner.call(rack.start)
        await equipment.equip()
        yield equipment
    finally:
        await runner.let_go(rack.close)


async def _make(kind: type[Rack], settings: Settings, pool: Pool, agents: Mapping[str, Agent]) -> Rack:
    return kind(settings, pool, agents)
