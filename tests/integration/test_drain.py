"""A worker that is told to end does so at its limit, whatever its tools do; the ledger knows what became of a call."""

from __future__ import annotations

import signal
import time

import pytest

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import pathlib, time
from holdfast import Agent, MCPServer, ToolContext, tool
from holdfast.plugins import Plugin

HERE = pathlib.Path(__file__).parent

def note(name: str, ctx: ToolContext) -> None:
    with (HERE / name).open("a") as file:
        file.write(ctx.idempotency_key + "\\n")

@tool(effect="once", timeout=600)
async def blocks(ctx: ToolContext) -> str:
    """Hold the tool loop for good."""
    note("blocks", ctx)
    while True:
        time.sleep(0.05)

async def found(ctx: ToolContext) -> str | None:
    path = HERE / "halts.sent"
    return "found" if path.exists() else None

@tool(effect="verifiable", lookup=found, settle=0.1, timeout=600)
async def halts(ctx: ToolContext) -> str:
    """Hold the tool loop for good, the first time."""
    note("halts", ctx)
    while not (HERE / "halts.sent").exists():
        time.sleep(0.05)
    return "sent"

class Opened(Plugin):
    name = "opened"

    async def stop(self) -> None:
        (HERE / "stopped").touch()

plugins = [Opened()]
one = Agent(name="one", model="openai/test", tools=[blocks, halts, MCPServer("gone", command=["false"])])
'''

SCRIPT = """
conversations:
  - when: blocks
    replies: [{call: {blocks: {}}}, {say: "{{last_tool}}"}]
  - when: halts
    replies: [{call: {halts: {}}}, {say: "{{last_tool}}"}]
"""

GRACE = 2.0


async def drained(world: World, tool: str, ask: str) -> None:
    """Have a worker begin a tool that blocks the tool loop, tell it to end, and see it end at its limit."""
    worker = await world.worker()
    client = await world.client()
    await client.start("one", ask)
    await until((world.folder / tool).exists, "the tool holds the tool loop")
    told = time.monotonic()
    worker.signal(signal.SIGTERM)
    await until(lambda: worker.popen.poll() is not None, "the worker has ended")
    assert time.monotonic() - told >= GRACE, "its call had its time"
    assert worker.popen.returncode == 0


@pytest.mark.parametrize(("tool", "state"), [("blocks", "in_doubt"), ("halts", "done")])
async def test_a_blocked_tool_loop_keeps_no_worker_from_ending(make_world: MakeWorld, tool: str, state: str) -> None:
    """Its calls end in doubt, or the next worker takes them over, as their class says."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, shutdown_grace=GRACE)
        await drained(world, tool, tool)
        (world.folder / "halts.sent").touch()  # what the ended worker sent has landed
        await world.worker()
        settled = "select 1 from effects where tool = $1 and state = $2"
        await until(lambda: world.rows(settled, tool, state), f"the call is {state}", PATIENCE)
        assert len((world.folder / tool).read_text().split()) == 1, "it was sent once"
