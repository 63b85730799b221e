"""The page about MCP servers works as it stands: its first agent, its commands, with the server from the registry."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from holdfast.testing import ModelServer
from holdfast.tools.registry import load_agents
from scripts.reference.shapes import SHAPES
from tests.conftest import MakeWorld
from tests.docs.promised import fits
from tests.pages import Page, lines
from tests.terminal import Terminal

LAUNCHED = '["uvx", "mcp-server-time"]'  # fetches the package first; the tests have it installed

SCRIPT = """
conversations:
  - replies:
      - call: {clock__get_current_time: {timezone: Europe/Rome}}
      - say: "{{last_tool}}"
"""


async def test_the_page_runs(make_world: MakeWorld, tmp_path: Path) -> None:
    """The agent calls the tool of its server, each command does what the page says of it; the other agent loads."""
    with Page("docs/howto/mcp.md") as page:
        source = page.take("planner = Agent(")
        program = str(Path(sys.executable).with_name("mcp-server-time"))
        assert LAUNCHED in source
        async with ModelServer(SCRIPT) as models:
            world = await make_world(source.replace(LAUNCHED, json.dumps([program])), api_base=models.base_url)
            await world.worker()
            client = await world.client()
            answer = await (await client.start("planner", "What time is it in Rome?")).result(timeout=120)
            assert "Europe/Rome" in answer.output
            terminal = Terminal(world, client)
            for line in lines(page.take("holdfast mcp list")):
                done = await terminal(*shlex.split(line)[1:])
                assert done.code == 0, done.err
            listed = json.loads((await terminal("mcp", "list", "--json")).out)
            fits("mcp list", 0, listed)
            assert "list of {" + ", ".join(listed["tools"][0]) + "}" == SHAPES["mcp list"][0].fields["tools"]
            fits("mcp accept", 0, json.loads((await terminal("mcp", "accept", "clock", "--json")).out))
            [server] = await client.mcp.servers()
            tools = {tool.name: tool for tool in await client.mcp.tools("clock")}
            assert server.said["name"] == "mcp-time"
            assert tools["clock__convert_time"].agents == {"planner": ("pure", "never")}
            assert await client.mcp.accept(list(tools.values())) == []
        (tmp_path / "agents.py").write_text(page.take("clerk = Agent("), encoding="utf-8")
        clerk = load_agents(tmp_path / "agents.py")["clerk"]
        assert [source.name for source in clerk.sources] == ["files", "payments"]
