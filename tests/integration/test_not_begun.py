"""Calls that could not begin: what proves that nothing was sent costs no try, and what proves nothing is in doubt."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.testing import ModelServer
from tests.conformance.proxy import FaultProxy
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

BLOCKED = '''
import asyncio, pathlib, time
from holdfast import Agent, ToolContext, tool

HERE = pathlib.Path(__file__).parent

def wait_for(name: str) -> None:
    while not (HERE / name).exists():
        time.sleep(0.02)

@tool(effect="pure", timeout=600)
async def blocks() -> str:
    """Block the tool loop."""
    (HERE / "blocked").touch()
    wait_for("go")
    return "blocked"

@tool(effect="once", timeout=TIMEOUT)
def posts(ctx: ToolContext):
    """Take effect, then return a coroutine."""
    with (HERE / "posted").open("a") as file:
        file.write("x")
    return confirmed()

async def confirmed() -> str:
    return "posted"

one = Agent(name="one", model="openai/test", tools=[blocks, posts])
'''

TURNS = '''
import asyncio, pathlib, time
from holdfast import Agent, ToolContext, tool

HERE = pathlib.Path(__file__).parent

def stall() -> None:
    with (HERE / "stalled").open("a") as file:
        file.write("x")
    time.sleep(0.6)

@tool(effect="pure", timeout=600)
async def blocks() -> str:
    """Block the tool loop whenever it has answered and something is to begin there."""
    loop = asyncio.get_running_loop()
    plain = loop.call_soon_threadsafe

    def late(callback, *args, **kwargs):
        if callback.__name__ == "launch" and not (HERE / "go").exists():
            plain(stall)
        return plain(callback, *args, **kwargs)

    loop.call_soon_threadsafe = late
    (HERE / "blocked").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.02)
    return "blocked"

async def found(ctx: ToolContext) -> str | None:
    return "found"

@tool(effect="verifiable", lookup=found, settle=0.1, timeout=0.3, attempts=1)
def posts() -> str:
    """Take effect, and lose the connection."""
    raise RuntimeError("lost the connection")

one = Agent(name="one", model="openai/test", tools=[blocks, posts])
'''

HELD = '''
import pathlib, time
from holdfast import Agent, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="pure", timeout=600)
def blocks() -> str:
    """Hold the only thread."""
    (HERE / "blocked").touch()
    while not (HERE / "go").exists():
        time.sleep(0.02)
    return "blocked"

@tool(effect="once", timeout=60)
def posts() -> str:
    """Post."""
    return "posted"

one = Agent(name="one", model="openai/test", tools=[blocks, posts])
'''

SCRIPT = """
conversations:
  - when: block
    replies: [{call: {blocks: {}}}, {say: "{{last_tool}}"}]
  - when: post
    replies: [{call: {posts: {}}}, {say: "{{last_tool}}"}]
"""

_SETTLED = "select state, sends, fence, error from effects where tool = 'posts' and state <> 'in_flight'"
_WAITS = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


async def _block(world: World) -> None:
    client = await world.client()
    await client.start("one", "block")
    await until((world.folder / "blocked").exists, "the other tool is under way")


@pytest.mark.parametrize("cut_off", [False, True], ids=["timed out", "cut off"])
async def test_a_function_that_ran_is_in_doubt_although_what_it_returned_never_began(
    make_world: MakeWorld, cut_off: bool
) -> None:
    """A plain function posts and returns a coroutine, which the blocked tool loop never runs: it is not made again."""
    async with ModelServer(SCRIPT) as models:
        agents = BLOCKED.replace("TIMEOUT", "60" if cut_off else "0.5")
        world = await make_world(agents, api_base=models.base_url)
        await world.worker()
        await _block(world)
        run = await (await world.client()).start("one", "post")
        await until((world.folder / "posted").exists, "it has taken effect")
        if cut_off:
            await run.stop("enough")
        (row,) = await until(lambda: world.rows(_SETTLED), "the call is settled")
        assert ((world.folder / "posted").read_text(), row["state"], row["fence"]) == ("x", "in_doubt", 1), row
        (world.folder / "go").touch()


async def test_a_look_up_that_never_began_did_not_fail(make_world: MakeWorld) -> None:
    """The tool loop answers and is blocked again before the look-up begins, more often than a look-up may fail."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(TURNS, api_base=models.base_url)
        await world.worker()
        await _block(world)
        run = await (await world.client()).start("one", "post")
        stalled = world.folder / "stalled"
        doubts = "select 1 from events where kind = 'in_doubt'"

        async def tried() -> bool:
            return stalled.exists() and (len(stalled.read_text()) >= 4 or bool(await world.rows(doubts)))

        await until(tried, "four look-ups could not begin")
        assert not await world.rows(doubts)
        (world.folder / "go").touch()
        assert (await run.result(timeout=PATIENCE)).output == "found"
        assert not await world.rows(doubts)


async def test_a_guard_whose_answer_is_lost_is_no_try(make_world: MakeWorld) -> None:
    """The connection breaks while the guard waits for the row, and it is committed all the same: nothing was sent."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(HELD, api_base=models.base_url, tool_threads=1, lease=10.0)
        proxy = FaultProxy(world.settings.database_url or "")
        await proxy.open()
        await world.worker(HOLDFAST_DATABASE_URL=proxy.url)
        await _block(world)
        run = await (await world.client()).start("one", "post")
        waiting = "select 1 from effects where tool = 'posts' and state = 'in_flight' and sent_at is null"
        await until(lambda: world.rows(waiting), "the call is claimed and waits for the thread")
        async with world.held("select 1 from effects where tool = 'posts' for update"):
            (world.folder / "go").touch()
            guard = f"{_WAITS} and query like '%first_sent_at = coalesce%'"
            await until(lambda: world.rows(guard), "the guard waits for the row")
            proxy.cut()
            await asyncio.sleep(0)  # the proxy drops its connections
        assert (await run.result(timeout=PATIENCE)).output == "posted"
        (row,) = await world.rows(_SETTLED)
        assert row["fence"] > 1, "the guard's answer was not lost"
        assert (row["state"], row["sends"]) == ("done", 1), row
        await proxy.shut()
