"""The page about MCP servers works as it stands: its first agent, its commands, with the server from the registry."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.mcp.test_stack import holdfast
from tests.unit.test_docs import blocks, commands

PAGE = "docs/howto/mcp.md"
LAUNCHED = '["uvx", "mcp-server-time"]'  # fetches the package first; the tests have it installed

SCRIPT = """
conversations:
  - replies:
      - call: {clock__get_current_time: {timezone: Europe/Rome}}
      - say: "{{last_tool}}"
"""


async def test_the_page_runs(make_world: MakeWorld) -> None:
    """The agent calls the tool of its server, and each command does what the page says of it."""
    source = next(block.text for block in blocks("python") if block.page == PAGE)
    program = str(Path(sys.executable).with_name("mcp-server-time"))
    assert LAUNCHED in source
    async with ModelServer(SCRIPT) as models:
        world = await make_world(source.replace(LAUNCHED, json.dumps([program])), api_base=models.base_url)
        await world.worker()
        client = await world.client()
        answer = await (await client.start("planner", "What time is it in Rome?")).result(timeout=120)
        assert "Europe/Rome" in answer.output
        lines = [line for block, line in commands() if block.page == PAGE]
        assert len(lines) == 4
        for line in lines:
            await holdfast(world, *shlex.split(line)[1:])
        [server] = await client.mcp.servers()
        tools = {tool.name: tool for tool in await client.mcp.tools("clock")}
        assert server.said["name"] == "mcp-time"
        assert tools["clock__convert_time"].agents == {"planner": ("pure", "never")}
        assert await client.mcp.accept(list(tools.values())) == []
