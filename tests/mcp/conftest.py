"""Fixtures for tests of MCP servers in a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from holdfast import Agent, MCPServer
from holdfast.mcp.rack import Rack
from holdfast.memory.database import Pool
from tests.mcp.kit import OpenRack, home


@pytest.fixture
async def rack(pool: Pool, tmp_path: Path) -> AsyncIterator[OpenRack]:
    """Return a function that opens the servers of one agent, as a worker does."""
    async with AsyncExitStack() as stack:

        async def opened(*servers: MCPServer, **settings: Any) -> Rack:
            agent = Agent("a", "openai/test", tools=servers)
            made = Rack(home(tmp_path, **settings), pool, {"a": agent})
            stack.push_async_callback(made.close)
            await made.start()
            agent.equip((await made.tools() or {}).get("a", []))
            made.agent = agent  # type: ignore[attr-defined]
            return made

        yield opened
