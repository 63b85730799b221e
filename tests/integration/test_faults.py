"""What goes wrong outside: a model server that refuses, stalls and cuts, tools that fail, workers told to go."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from holdfast.errors import RunEnded
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import World, until

AGENTS = '''
import asyncio, pathlib, time
from holdfast import Agent, ToolContext, ToolError, tool

HERE = pathlib.Path(__file__).parent

def note(name: str, ctx: ToolContext) -> int:
    path = HERE / name
    with path.open("a") as file:
        file.write(ctx.idempotency_key + "\\n")
    return path.read_text().count("\\n")

@tool(effect="once", timeout=30)
async def slow(ctx: ToolContext, n: int) -> str:
    """An effect that takes a second or two."""
    note("slow", ctx)
    await asyncio.sleep(1.5)
    return f"slow {n}"

@tool(effect="once")
async def refuses(ctx: ToolContext) -> str:
    """Always refused."""
    note("refuses", ctx)
    raise ToolError("the shop is closed")

@tool(effect="once")
async def breaks(ctx: ToolContext) -> str:
    """Breaks midway."""
    note("breaks", ctx)
    raise RuntimeError("lost the connection")

@tool(effect="once", single_request=True)
async def unreachable(ctx: ToolContext) -> str:
    """Nobody listens. Declared wrongly: the note is an effect before the connection."""
    note("unreachable", ctx)
    await asyncio.open_connection("127.0.0.1", 9)
    return "reached"

@tool(effect="once")
async def reports(ctx: ToolContext) -> str:
    """Takes effect, and then nobody listens to the report of it."""
    note("reports", ctx)
    await asyncio.open_connection("127.0.0.1", 9)
    return "reported"

async def filed(ctx: ToolContext) -> str | None:
    path = HERE / "files"
    return "filed" if path.exists() and ctx.idempotency_key in path.read_text() else None

@tool(effect="verifiable", lookup=filed, settle=0.1)
async def files(ctx: ToolContext) -> str:
    """Takes effect, and then nobody listens to the report of it; the effect can be looked up."""
    note("files", ctx)
    await asyncio.open_connection("127.0.0.1", 9)
    return "filed and reported"

@tool(effect="pure")
def flaky(ctx: ToolContext) -> str:
    """Works the second time."""
    if note("flaky", ctx) < 2:
        raise RuntimeError("not yet")
    return "worked"

@tool(effect="once", timeout=0.5)
def late(ctx: ToolContext) -> str:
    """A thread that cannot be stopped ends after its time."""
    note("late", ctx)
    while not (HERE / "late.go").exists():
        time.sleep(0.05)
    return "came late"

one = Agent(name="one", model="openai/test", tools=[slow, refuses, breaks, unreachable, reports, files, flaky, late])
'''

SCRIPT = """
conversations:
  - when: stumble
    replies:
      - fault: [{status: 429, retry_after: 4}, {status: 500}, {cut_after: 1}]
        say: "a long enough answer to be cut somewhere in its middle"
  - when: bad
    replies:
      - fault: {bad_json: true}
        call: {flaky: {}}
      - call: {nothing: {}}
      - call: {slow: {n: "many"}}
      - say: "{{last_tool}}"
  - when: tools
    replies:
      - call: [{refuses: {}}, {unreachable: {}}, {flaky: {}}]
      - say: "{{last_tool}}"
  - when: wrongly declared
    replies:
      - call: {unreachable: {}}
      - say: "{{last_tool}}"
  - when: reports
    replies:
      - call: {reports: {}}
      - say: "{{last_tool}}"
  - when: files
    replies:
      - call: {files: {}}
      - say: "{{last_tool}}"
  - when: breaks
    replies:
      - call: {breaks: {}}
      - say: "{{last_tool}}"
  - when: late
    replies:
      - call: {late: {}}
      - say: "{{last_tool}}"
  - when: roll
    replies:
      - repeat: 3
        call: [{slow: {n: "{{n}}1"}}, {slow: {n: "{{n}}2"}}]
      - say: rolled
  - when: refused
    replies:
      - fault: {status: 401, times: always}
        say: never
"""


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def test_a_model_that_stumbles_is_asked_again_and_a_refusal_ends_the_run(world: World) -> None:
    """429 with Retry-After, 500 and a cut stream are tried again; a refusal is not, and says what to do."""
    client = await world.client()
    run = await client.start("one", "stumble")
    refused = await client.start("one", "refused")
    assert "a long enough answer" in (await run.result(timeout=60)).output
    assert await world.rows(
        "select count(*) as n from messages where role = 'assistant' and run_id = $1", run.run_id
    ) == [{"n": 1}]
    with pytest.raises(RunEnded) as ended:
        await refused.result(timeout=60)
    assert ended.value.state == "failed"
    tries = _requests(world, "stumble")
    faults = [set(entry["answer"].get("fault", {})) for entry in tries]
    assert faults == [{"status", "retry_after"}, {"status"}, {"cut_after"}, set()], "each of these is tried again, once"
    pauses = [after["at"] - before["at"] for before, after in pairwise(tries)]
    assert pauses[0] >= 4, "the server asked for 4 s by Retry-After"
    assert pauses[1] < pauses[0], "without it the pause is our own: under a second"
    assert len(_requests(world, "refused")) == 1, "a refusal is final"


def _requests(world: World, said: str) -> list[dict[str, Any]]:
    """Return what the model server was asked for this message."""
    return [entry for entry in world.models.journal if entry["body"]["messages"][-1]["content"] == said]


async def test_bad_calls_go_back_to_the_model_and_failing_tools_are_told_apart(world: World) -> None:
    """A malformed call never runs; refused, not sent, flaky and broken tools each end as their class demands."""
    client = await world.client()
    bad = await client.start("one", "bad")
    tools = await client.start("one", "tools")
    breaks = await client.start("one", "breaks")
    late = await client.start("one", "late")
    await bad.result(timeout=60)
    results = [str(message.body) for message in await bad.messages() if message.role == "tool"]
    assert len(results) == 3
    assert "cannot be used" in results[0]
    assert "there is no tool 'nothing'" in results[1]
    assert "cannot be used" in results[2]
    assert not (world.folder / "slow").exists()

    await tools.result(timeout=60)
    results = [str(message.body) for message in await tools.messages() if message.role == "tool"]
    assert "the shop is closed" in results[0]
    assert "could not be sent, 3 tries" in results[1]
    assert "worked" in results[2]
    assert (world.folder / "refuses").read_text().count("\n") == 1
    states = await world.rows("select tool, state from effects where tool in ('refuses', 'unreachable') order by 1")
    assert states == [{"tool": "refuses", "state": "failed"}, {"tool": "unreachable", "state": "failed"}]

    doubt = (await until(lambda: in_doubt(world, "breaks"), "a broken `once` call is in doubt"))[0]
    await breaks.resolve(doubt["step_no"], done="it went through")
    assert (await breaks.result(timeout=60)).output == "it went through"
    assert (world.folder / "breaks").read_text().count("\n") == 1

    await until(lambda: in_doubt(world, "late"), "a `once` call over its time is in doubt")
    (world.folder / "late.go").touch()
    assert (await late.result(timeout=60)).output == "came late", "its own late end is proof"


async def test_a_refused_connection_after_an_effect_does_not_repeat_the_effect(world: World) -> None:
    """Undeclared, `once` is in doubt and `verifiable` is looked up; a wrong `single_request` is tried again."""
    client = await world.client()
    reports = await client.start("one", "reports")
    files = await client.start("one", "files")
    doubt = (await until(lambda: in_doubt(world, "reports"), "the call is in doubt"))[0]
    await reports.resolve(doubt["step_no"], done="it was made")
    assert (await reports.result(timeout=60)).output == "it was made"
    assert (world.folder / "reports").read_text().count("\n") == 1
    assert (await files.result(timeout=60)).output == "filed"
    assert (world.folder / "files").read_text().count("\n") == 1
    wrong = await client.start("one", "wrongly declared")
    assert "could not be sent, 3 tries" in (await wrong.result(timeout=60)).output
    keys = (world.folder / "unreachable").read_text().split()
    assert keys.count(keys[-1]) == 3, "the declaration is believed: see docs/howto/effects.md"


async def in_doubt(world: World, tool: str) -> list[dict[str, object]]:
    """Return the rows of a tool that are in doubt."""
    return await world.rows("select step_no from effects where state = 'in_doubt' and tool = $1", tool)


async def test_a_rolling_restart_under_load_leaves_nothing_in_doubt(make_shared_world: MakeWorld) -> None:
    """Workers told to stop finish their calls, claim nothing more, and no effect is repeated or lost."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        workers = [world.start(), world.start()]
        await asyncio.gather(*(worker.ready() for worker in workers))
        client = await world.client()
        runs = [await client.start("one", f"roll {n}") for n in range(4)]
        for worker in workers:
            await until((world.folder / "slow").exists, "calls are under way")
            replacement = world.start()
            await replacement.ready()
            assert await worker.end() == 0
        for run in runs:
            assert (await run.result(timeout=120)).output == "rolled"
        states = await world.rows("select state, count(*) as n from effects where class = 'once' group by 1")
        assert states == [{"state": "done", "n": 24}]
        keys = (world.folder / "slow").read_text().split()
        assert len(keys) == len(set(keys)) == 24
        assert await world.rows("select * from events where kind = 'in_doubt'") == []


async def test_a_sent_call_whose_tool_is_gone_is_in_doubt_not_denied(make_shared_world: MakeWorld) -> None:
    """Its worker killed and its code removed, a call that was sent is put before a person; unsent it is an error."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        worker = await world.worker()
        client = await world.client()
        run = await client.start("one", "late")
        await until((world.folder / "late").exists, "the call is sent")
        worker.kill()
        world.agents.write_text(AGENTS.replace("flaky, late]", "flaky]"), encoding="utf-8")
        await world.worker()
        row = (await until(lambda: in_doubt(world, "late"), "the call is in doubt"))[0]
        await run.resolve(int(str(row["step_no"])), not_done=True)
        assert "no longer there" in (await run.result(timeout=60)).output
