"""A result of ten megabytes: masking and recording it holds neither the worker's loop nor that of tools."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from holdfast import secrets
from holdfast.ids import storable
from holdfast.plugin import HoldfastPlugin
from holdfast.secrets import know, mask
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, until

AGENTS = '''
import asyncio, contextvars, time
from holdfast import Agent, ToolContext, ToolError, tool
from holdfast.plugins import At, Plugin, ToolResult

SIZE = 10 * 1024 * 1024
TEXT = ("a line of a log that nobody reads\\n" * (SIZE // 30))[:SIZE]
GAPS = [0.0]
WATCHING = []

async def watch() -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.005)
        GAPS.append(time.monotonic() - began - 0.005)

def large() -> str:
    if not WATCHING:  # in an empty context: it is no part of the call
        WATCHING.append(asyncio.create_task(watch(), context=contextvars.Context()))
    return TEXT

@tool(effect="pure", timeout=600)
async def reads() -> str:
    """Read a log."""
    return large()

@tool(effect="once", timeout=600)
async def sends() -> str:
    """Send a log."""
    return large()

@tool(effect="local_tx", timeout=600)
async def keeps(ctx: ToolContext) -> str:
    """Keep a log."""
    return large()

@tool(effect="pure", timeout=600)
async def fails() -> str:
    """Fail with a log."""
    raise ToolError(large())

class Adds(Plugin):
    """Changes each result."""

    async def after_tool(self, at: At, result: ToolResult) -> str:
        return result.text + " (seen)"

plugins = [Adds()]
one = Agent(name="one", model="openai/test", tools=[reads, sends, keeps, fails])
'''

TOOLS = ("reads", "sends", "keeps", "fails")
SCRIPT = "conversations:\n" + "".join(
    f"  - when: {name}\n    replies: [{{call: {{{name}: {{}}}}}}, {{say: done}}]\n" for name in TOOLS
)


@asynccontextmanager
async def _watched() -> AsyncIterator[list[float]]:
    """Give a list of how long this loop was held, each time a little."""
    gaps = [0.0]

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - began - 0.005)

    watching = asyncio.create_task(watch())
    try:
        yield gaps
    finally:
        watching.cancel()


@pytest.mark.parametrize("name", TOOLS)
async def test_a_result_of_ten_megabytes_holds_no_loop(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The longest time that either loop stands still is a part of what masking the result takes once."""
    monkeypatch.setattr(secrets, "_used", {})
    monkeypatch.setattr(secrets, "_known", secrets.Mask())
    for number in range(80):
        know(f"LARGE_{number}", f"sk-large-{number}-{number * 7919:020d}")
    text = "a line of a log that nobody reads\n" * (10 * 1024 * 1024 // 30)
    began = time.monotonic()
    await asyncio.to_thread(mask, storable(text))
    work = time.monotonic() - began
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, hook_timeout=600.0)
        plugin = HoldfastPlugin(world.settings)
        temporal = await Client.connect(world.settings.temporal_address or "", plugins=[plugin])
        async with Worker(temporal, task_queue=world.settings.task_queue), _watched() as gaps:
            await until(lambda: world.rows("select 1 from agents"), "the worker has said which agents there are")
            client = await world.client()
            run = await client.start("one", name)
            await run.result(timeout=PATIENCE)
            loaded = [each for each in sys.modules.values() if getattr(each, "__file__", "") == str(world.agents)]
            tools: list[float] = loaded[0].GAPS
            longest = max(*gaps, *tools)
        assert longest < work / 2, f"{longest:.3f} s of {work:.3f} s: {len(gaps)} and {len(tools)} looks"
        [row] = await world.rows("select (data::jsonb ->> 'bytes')::int as bytes from events where kind = 'tool_done'")
        assert row["bytes"] > 10 * 1024 * 1024
