"""Tools that overrun their time: a thread cannot be stopped, so its call is nobody else's as long as it lives."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from holdfast.errors import DecisionRefused
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import World, until

AGENTS = '''
import asyncio, pathlib, time
from holdfast import Agent, ToolContext, ToolError, tool

HERE = pathlib.Path(__file__).parent

def note(name: str, ctx: ToolContext) -> None:
    with (HERE / name).open("a") as file:
        file.write(ctx.idempotency_key + "\\n")

def overrun(name: str, ctx: ToolContext) -> None:
    note(f"{name}.begun", ctx)
    while not (HERE / f"{name}.go").exists():
        time.sleep(0.05)
    note(name, ctx)

@tool(effect="once", timeout=0.5)
def posts(ctx: ToolContext) -> str:
    """Take effect long after the time-out."""
    overrun("posts", ctx)
    return "posted"

@tool(effect="once", timeout=0.5)
def declines(ctx: ToolContext) -> str:
    """Say long after the time-out that there is no effect."""
    note("declines.begun", ctx)
    while not (HERE / "declines.go").exists():
        time.sleep(0.05)
    raise ToolError("the box is full")

@tool(effect="once", timeout=0.5)
def breaks(ctx: ToolContext) -> str:
    """Fail long after the time-out; nobody knows what came of it."""
    note("breaks.begun", ctx)
    while not (HERE / "breaks.go").exists():
        time.sleep(0.05)
    raise RuntimeError("lost the connection")

def shipped(ctx: ToolContext) -> str | None:
    path = HERE / "ships"
    return "found" if path.exists() and ctx.idempotency_key in path.read_text() else None

@tool(effect="verifiable", lookup=shipped, settle=0.1, timeout=0.5)
def ships(ctx: ToolContext) -> str:
    """Take effect long after the time-out; it can be looked up."""
    overrun("ships", ctx)
    return "shipped"

one = Agent(name="one", model="openai/test", tools=[posts, declines, breaks, ships])
'''

SCRIPT = """
conversations:
  - when: posts
    replies: [{call: {posts: {}}}, {say: "{{last_tool}}"}]
  - when: declines
    replies: [{call: {declines: {}}}, {say: "{{last_tool}}"}]
  - when: breaks
    replies: [{call: {breaks: {}}}, {say: "{{last_tool}}"}]
  - when: ships
    replies: [{call: {ships: {}}}, {say: "{{last_tool}}"}]
"""

_PAST = "select 1 from effects where tool = $1 and clock_timestamp() > deadline + make_interval(secs => $2)"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


def count(world: World, name: str) -> int:
    """Return how many lines a tool has written."""
    path = world.folder / name
    return len(path.read_text().split()) if path.exists() else 0


async def row(world: World, tool: str) -> dict[str, Any]:
    """Return what the ledger has of a tool's only call."""
    found = await world.rows("select *, class as effect from effects where tool = $1", tool)
    return dict(found[0]) if found else {}


async def past(world: World, tool: str) -> None:
    """Wait until the call's deadline is several leases ago."""
    longer = world.settings.scaled(3 * world.settings.lease)
    await until(lambda: world.rows(_PAST, tool, longer), "the deadline is long past")


async def test_a_body_that_overruns_is_not_repeated_while_it_runs(world: World) -> None:
    """`once` is in doubt and `not done` refused, `verifiable` is not taken over; the body's own late end is proof."""
    client = await world.client()
    posts = await client.start("one", "posts")
    declines = await client.start("one", "declines")
    ships = await client.start("one", "ships")
    for tool in ("posts", "declines", "ships"):
        await until(lambda tool=tool: count(world, f"{tool}.begun"), "the body has begun")
        await past(world, tool)
    step = (await row(world, "posts"))["step_no"]
    with pytest.raises(DecisionRefused, match=r"body is still running in .* since .*to end it, stop that worker"):
        await posts.resolve(step, not_done=True)
    shown = await ships.step((await row(world, "ships"))["step_no"])
    assert shown.state == "running"
    assert "body is still running in" in (shown.error or "")
    assert "body is still running in" in "".join(await ships.trouble())
    for tool in ("posts", "declines", "ships"):
        found = await row(world, tool)
        assert (found["fence"], found["sends"], count(world, f"{tool}.begun")) == (1, 1, 1), found
        assert "body is still running in" in found["error"], found
        (world.folder / f"{tool}.go").touch()
    assert (await posts.result(timeout=60)).output == "posted"
    assert "the box is full" in (await declines.result(timeout=60)).output
    assert (await ships.result(timeout=60)).output == "shipped"
    assert [count(world, tool) for tool in ("posts", "ships")] == [1, 1]
    ends = [(await row(world, tool))["state"] for tool in ("posts", "declines", "ships")]
    assert ends == ["done", "failed", "done"]


async def test_a_body_that_ends_late_without_proof_leaves_the_call_to_a_person(world: World) -> None:
    """Its end is told, and `not done` is taken from then on."""
    client = await world.client()
    run = await client.start("one", "breaks")
    await until(lambda: count(world, "breaks.begun"), "the body has begun")
    await past(world, "breaks")
    step = (await row(world, "breaks"))["step_no"]
    with pytest.raises(DecisionRefused, match="body is still running in"):
        await run.resolve(step, not_done=True)
    (world.folder / "breaks.go").touch()
    over = "select 1 from effects where tool = 'breaks' and error like '%lost the connection%'"
    await until(lambda: world.rows(over), "the row says how the body ended")
    assert (await row(world, "breaks"))["state"] == "in_doubt"
    await run.resolve(step, not_done=True)
    again = "select 1 from effects where tool = 'breaks' and state = 'in_doubt' and fence = 2"
    await until(lambda: world.rows(again), "it was tried again, and is in doubt again")
    await run.resolve(step, done="it was there")
    assert (await run.result(timeout=60)).output == "it was there"
    assert count(world, "breaks.begun") == 2


async def test_a_worker_that_is_told_to_end_sees_such_a_body_out(make_shared_world: MakeWorld) -> None:
    """Within its drain limit it waits for the thread and records how it ended; killed, its lease runs out."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        worker = await world.worker()
        client = await world.client()
        run = await client.start("one", "posts")
        await until(lambda: count(world, "posts.begun"), "the body has begun")
        await past(world, "posts")
        worker.signal(signal.SIGTERM)
        await until(lambda: "takes no more work" in worker.log.read_text(), "the worker drains")
        (world.folder / "posts.go").touch()
        assert await worker.end() == 0
        assert ((await row(world, "posts"))["state"], count(world, "posts")) == ("done", 1)
        killed = await world.worker()
        assert (await run.result(timeout=60)).output == "posted"

        run = await client.start("one", "ships")
        await until(lambda: count(world, "ships.begun"), "the body has begun")
        await past(world, "ships")
        killed.kill()
        (world.folder / "ships.go").touch()
        await world.worker()
        assert (await run.result(timeout=60)).output == "shipped"
        assert (count(world, "ships.begun"), count(world, "ships")) == (2, 1)
