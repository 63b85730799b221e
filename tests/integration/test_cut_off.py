"""Async calls that are cut off while something they started may still send: the lease is kept as long as that runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit import World, until

AGENTS = '''
import asyncio, pathlib, time
from concurrent.futures import ThreadPoolExecutor
from holdfast import Agent, ToolContext, tool

HERE = pathlib.Path(__file__).parent
OWN = ThreadPoolExecutor(4)

def note(name: str, ctx: ToolContext) -> None:
    with (HERE / name).open("a") as file:
        file.write(ctx.idempotency_key + "\\n")

async def later(name: str, ctx: ToolContext) -> None:
    while not (HERE / f"{name}.go").exists():
        await asyncio.sleep(0.02)
    note(name, ctx)

def later_in_a_thread(name: str, ctx: ToolContext) -> None:
    while not (HERE / f"{name}.go").exists():
        time.sleep(0.02)
    note(name, ctx)

async def swallows(name: str, ctx: ToolContext) -> str:
    note(f"{name}.begun", ctx)
    sending = asyncio.create_task(later(name, ctx), name="sending")
    while not sending.done():
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            pass
    return "sent"

async def shields(name: str, ctx: ToolContext) -> str:
    note(f"{name}.begun", ctx)
    await asyncio.shield(later(name, ctx))
    return "sent"

async def executes(name: str, ctx: ToolContext) -> str:
    note(f"{name}.begun", ctx)
    await asyncio.get_running_loop().run_in_executor(OWN, later_in_a_thread, name, ctx)
    return "sent"

def made(name: str, work, timeout: float):
    def sent(ctx: ToolContext) -> str | None:
        path = HERE / name
        return "found" if path.exists() and ctx.idempotency_key in path.read_text() else None

    async def send(ctx: ToolContext) -> str:
        """Take effect when the test says."""
        return await work(name, ctx)

    return tool(name=name, effect="verifiable", lookup=sent, settle=0.1, timeout=timeout)(send)

WAYS = {"swallows": swallows, "shields": shields, "executes": executes}
tools = [made(f"{way}_timed", work, 0.5) for way, work in WAYS.items()]
tools += [made(f"{way}_stopped", work, 60.0) for way, work in WAYS.items()]
one = Agent(name="one", model="openai/test", tools=tools)
'''

WAYS = ("swallows", "shields", "executes")
NAMES = [f"{way}_{cut}" for way in WAYS for cut in ("timed", "stopped")]
SCRIPT = "conversations:\n" + "".join(
    f'  - when: {name}\n    replies: [{{call: {{{name}: {{}}}}}}, {{say: "{{{{last_tool}}}}"}}]\n' for name in NAMES
)

_LONG_AFTER = "select 1 from effects where tool = $1 and clock_timestamp() > created_at + make_interval(secs => $2)"
_HELD = "select lease_until > clock_timestamp() as held, fence, state, error from effects where tool = $1"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


def count(world: World, name: str) -> int:
    """Return how many lines a tool has written."""
    path = world.folder / name
    return len(path.read_text().split()) if path.exists() else 0


async def row(world: World, tool: str) -> dict[str, Any]:
    """Return what the ledger has of a tool's only call."""
    return (await world.rows(_HELD, tool))[0]


async def held_while_it_runs(world: World, name: str) -> None:
    """Check that nobody took the call over, long after its attempt has given it up."""
    given_up = "select 1 from effects where tool = $1 and error like '%body is still running%'"
    await until(lambda: world.rows(given_up, name), "the row says that its body runs on", 20)
    await until(lambda: world.rows(_LONG_AFTER, name, world.settings.scaled(4 * world.settings.lease)), "much later")
    found = await row(world, name)
    assert (found["held"], found["fence"], count(world, f"{name}.begun")) == (True, 1, 1), found


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_timed_out_is_not_sent_again_while_it_may_send(world: World, way: str) -> None:
    """What it swallowed, shielded or left in an executor goes on: only after its end is the call looked up."""
    name = f"{way}_timed"
    run = await (await world.client()).start("one", name)
    await until(lambda: count(world, f"{name}.begun"), "the body has begun")
    await held_while_it_runs(world, name)
    (world.folder / f"{name}.go").touch()
    assert (await run.result(timeout=60)).output in ("sent", "found")
    assert (count(world, name), count(world, f"{name}.begun")) == (1, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_was_stopped_keeps_its_lease_while_it_may_send(world: World, way: str) -> None:
    """A stop ends the run, not what the call has started; its lease ends with that."""
    name = f"{way}_stopped"
    run = await (await world.client()).start("one", name)
    await until(lambda: count(world, f"{name}.begun"), "the body has begun")
    await run.stop("enough")
    await held_while_it_runs(world, name)
    (world.folder / f"{name}.go").touch()
    over = "select 1 from effects where tool = $1 and (state = 'done' or lease_until < clock_timestamp())"
    await until(lambda: world.rows(over, name), "the lease ends with the body")
    assert count(world, name) == 1
