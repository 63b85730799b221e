"""Whoever blocks an event loop costs other runs time at most: their required plugins are asked, and none is failed."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import RunHandle
from tests.kit import PATIENCE, World, until

AGENTS = '''
import pathlib, time
from holdfast import Agent, Event, Plugin, tool
from holdfast.plugins import At, ModelCall, Reply, ToolCall, ToolResult

HERE = pathlib.Path(__file__).parent

def stand(name: str) -> None:
    """Block the event loop while a file is there."""
    while (HERE / name).exists():
        (HERE / f"in-{name}").touch()
        time.sleep(0.02)

@tool(effect="pure", timeout=600)
async def freeze() -> str:
    """Block the loop of the tools."""
    stand("tool")
    return "thawed"

@tool(effect="once")
def look() -> str:
    """Look."""
    return "seen"

class Guard(Plugin):
    """Must see everything."""

    async def message(self, at: At, text: str) -> None: ...
    async def before_model(self, at: At, call: ModelCall) -> None: ...
    async def after_model(self, at: At, reply: Reply) -> None: ...
    async def before_tool(self, at: At, call: ToolCall) -> None: ...
    async def after_tool(self, at: At, result: ToolResult) -> str:
        return f"{result.text} [guarded]"
    async def answer(self, at: At, text: str) -> str:
        return f"{text} [guarded]"
    async def event(self, event: Event) -> None:
        stand("guard")

class Listener(Plugin):
    """Blocks its loop on whatever happens."""

    async def event(self, event: Event) -> None:
        stand("listener")

plugins = [Listener(), Guard()]
agent = Agent("agent", "openai/test", "Help.", tools=[freeze, look])
'''


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """Call the tool that the message names, then say what it said."""
    said = request["messages"]
    results = [message["content"] for message in said if message["role"] == "tool"]
    return {"say": results[0]} if results else {"call": [{said[-1]["content"].split()[0]: {}}]}


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, reply, hook_timeout=0.5)]


async def unharmed(run: RunHandle) -> None:
    """See a run through, guarded, and no plugin failed."""
    assert (await run.result(timeout=PATIENCE)).output == "seen [guarded] [guarded]"
    assert [event.data for event in await run.recorded() if event.data.get("did") == "failed"] == []


async def test_a_tool_that_blocks_its_loop_fails_no_other_run(world: World) -> None:
    """While it blocks the loop of the tools, for many hook time-outs, another run of that worker comes to its end."""
    client = await world.client()
    (world.folder / "tool").touch()
    frozen = await client.start("agent", "freeze", thread="frozen")
    await until((world.folder / "in-tool").exists, "the tool blocks its loop")
    await unharmed(await client.start("agent", "look", thread="beside-tool"))
    (world.folder / "tool").unlink()
    assert "thawed" in (await frozen.result(timeout=PATIENCE)).output


async def test_a_plugin_that_blocks_its_loop_fails_no_other_plugin(world: World) -> None:
    """A listener that blocks for many hook time-outs keeps the guard from nothing."""
    client = await world.client()
    (world.folder / "listener").touch()
    await unharmed(await client.start("agent", "look", thread="beside-listener"))
    await until((world.folder / "in-listener").exists, "the listener blocks its loop")
    await unharmed(await client.start("agent", "look", thread="beside-listener-2"))
    (world.folder / "listener").unlink()


async def test_a_guard_that_could_not_be_asked_is_waited_for(world: World) -> None:
    """Its loop is blocked beyond all its tries: the run has not failed and goes on, guarded, when the loop is free."""
    client = await world.client()
    (world.folder / "guard").touch()
    await client.start("agent", "look", thread="blocks-the-guard")
    await until((world.folder / "in-guard").exists, "the guard's loop is blocked")
    run = await client.start("agent", "look", thread="waits")
    log = world.processes[-1].log

    def waits() -> bool:
        return log.read_text().count("a plugin could not start, so the step waits") > 3

    await until(waits, "it was tried more often than a plugin that fails")
    (world.folder / "guard").unlink()
    await unharmed(run)
