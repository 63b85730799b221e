"""A worker with more calls than threads or connections: it takes time, no tries and no doubts."""

from __future__ import annotations

import asyncio
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from holdfast.activities.leases import Leases
from holdfast.memory import ledger
from holdfast.memory.database import connect
from holdfast.memory.ledger import Step
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

SLOW = """
import time
from pathlib import Path

from holdfast import Agent, tool

HERE = Path(__file__).parent


@tool(timeout=3.0)
def post(letter: str) -> str:
    "Post a letter."
    with (HERE / "posted").open("a") as posted:
        posted.write(letter + "\\n")
    while not (HERE / letter).exists():
        time.sleep(0.02)
    return f"posted {letter}"


one = Agent(name="one", model="openai/test", tools=[post])
"""

TWO = """
conversations:
  - replies:
      - call: [{post: {letter: a}}, {post: {letter: b}}]
      - {say: done}
"""

WRITERS = """
from holdfast import Agent, ToolContext, tool


@tool(effect="local_tx")
async def look(ctx: ToolContext, n: int) -> str:
    "Look into what is stored, amid a transaction."
    await ctx.connection.execute("select pg_sleep(0.3)")
    return str(await ctx.stored.runs(ctx.run_id[:8]))


one = Agent(name="one", model="openai/test", tools=[look])
"""

MANY = """
conversations:
  - replies:
      - call: [{look: {n: 1}}, {look: {n: 2}}, {look: {n: 3}}, {look: {n: 4}}, {look: {n: 5}}, {look: {n: 6}}]
      - {say: done}
"""

FAILING = """
from pathlib import Path

from holdfast import Agent, ToolContext, tool

HERE = Path(__file__).parent


@tool(effect="EFFECT", attempts=3)
async def flaky(ctx: ToolContext) -> str:
    "Fail twice."
    tries = HERE / "tries"
    with tries.open("a") as file:
        file.write("x")
    if len(tries.read_text()) < 3:
        raise RuntimeError("not yet")
    return "at last"


one = Agent(name="one", model="openai/test", tools=[flaky])
"""

ONE = """
conversations:
  - replies:
      - call: {flaky: {}}
      - {say: done}
"""


async def test_a_call_that_waits_for_a_thread_is_not_in_doubt(make_world: MakeWorld) -> None:
    """Its clock begins with its thread: one call holds the only one for most of its time, the other goes then."""
    async with ModelServer(TWO) as models:
        world = await make_world(SLOW, api_base=models.base_url, tool_threads=1)
        await world.worker()
        client = await world.client()
        run = await client.start("one", "post them")
        await until(lambda: (world.folder / "posted").exists(), "the first letter is in the post")
        first = (world.folder / "posted").read_text().strip()
        waiting = "select 1 from effects where tool = 'post' and state = 'in_flight' and sent_at is null"
        await until(lambda: world.rows(waiting), "the second call waits, and the row says that nothing was sent")
        (world.folder / first).touch()
        (world.folder / ("b" if first == "a" else "a")).touch()
        assert (await run.result(timeout=PATIENCE)).output == "done"
        assert not await world.rows("select 1 from events where kind = 'in_doubt'")


async def test_a_call_stopped_while_it_waits_for_a_thread_was_not_sent(make_world: MakeWorld) -> None:
    """A stop that comes before the call has a thread is proof: it failed, and only the call that runs is in doubt."""
    async with ModelServer(TWO) as models:
        world = await make_world(SLOW, api_base=models.base_url, tool_threads=1)
        await world.worker()
        client = await world.client()
        run = await client.start("one", "post them")
        await until(lambda: (world.folder / "posted").exists(), "the first letter is in the post")
        await until(
            lambda: world.rows("select 1 from effects where tool = 'post' offset 1"), "the second call is claimed"
        )
        await run.stop("enough")
        states = "select state from effects where tool = 'post' order by state"
        await until(lambda: _none_in_flight(world, states), "both are settled")
        assert [row["state"] for row in await world.rows(states)] == ["failed", "in_doubt"]


HELD = """
import time
from pathlib import Path

from holdfast import Agent, ToolContext, tool

HERE = Path(__file__).parent


@tool(effect="pure", timeout=600.0)
def holds() -> str:
    "Hold the only thread."
    (HERE / "held").touch()
    while not (HERE / "go").exists():
        time.sleep(0.02)
    return "held"


@tool(effect="pure", timeout=0.5, attempts=1)
def quick(ctx: ToolContext) -> str:
    "Say how much time there is left."
    return f"{ctx.remaining > 0.3}"


def posted(ctx: ToolContext) -> str | None:
    return "posted"


@tool(effect="verifiable", lookup=posted, settle=0.1, timeout=0.5, attempts=1)
async def posts() -> str:
    "Take effect, and lose the connection."
    raise RuntimeError("lost the connection")


one = Agent(name="one", model="openai/test", tools=[holds, quick, posts])
"""

HOLDING = """
conversations:
  - when: hold it
    replies: [{call: {holds: {}}}, {say: "{{last_tool}}"}]
  - when: be quick
    replies: [{call: {quick: {}}}, {say: "{{last_tool}}"}]
  - when: post it
    replies: [{call: {posts: {}}}, {say: "{{last_tool}}"}]
"""


@pytest.mark.parametrize(("ask", "answer"), [("be quick", "True"), ("post it", "posted")])
async def test_waiting_for_a_thread_is_no_try_and_takes_none_of_the_tools_time(
    make_world: MakeWorld, ask: str, answer: str
) -> None:
    """Of `pure` tools and of look-ups as of those with an effect: four times no thread was free, then one is."""
    async with ModelServer(HOLDING) as models:
        world = await make_world(HELD, api_base=models.base_url, tool_threads=1)
        await world.worker()
        client = await world.client()
        holding = await client.start("one", "hold it")
        await until(lambda: (world.folder / "held").exists(), "the only thread is taken")
        run = await client.start("one", ask)
        doubts = "select 1 from events where kind = 'in_doubt'"

        async def waited() -> bool:
            if (await run.status()).ended or await world.rows(doubts):
                return True
            return any(re.search(r"attempt ([5-9]|\d\d)", line) for line in await run.trouble())

        await until(waited, "five attempts found no thread")
        assert not await world.rows(doubts)
        (world.folder / "go").touch()
        assert (await run.result(timeout=PATIENCE)).output == answer
        assert (await holding.result(timeout=PATIENCE)).output == "held"


async def _none_in_flight(world: World, query: str) -> bool:
    rows = await world.rows(query)
    return len(rows) == 2 and all(row["state"] != "in_flight" for row in rows)


async def test_tools_that_read_what_is_stored_amid_their_transaction_do_not_wait_for_each_other(
    make_world: MakeWorld,
) -> None:
    """Six at once, on two connections: each holds one and asks for a second, which is of another pool."""
    async with ModelServer(MANY) as models:
        world = await make_world(WRITERS, api_base=models.base_url, database_pool=4)
        await world.worker()
        client = await world.client()
        run = await client.start("one", "look")
        assert (await run.result(timeout=PATIENCE)).output == "done"
        rows = await world.rows("select state, sends from effects where tool = 'look'")
        assert [row["state"] for row in rows] == ["done"] * 6
        assert all(row["sends"] == 0 for row in rows), "none had to be tried again"


@pytest.mark.parametrize("effect", ["pure", "local_tx"])
async def test_an_outage_takes_no_try_of_a_tool(make_world: MakeWorld, effect: str) -> None:
    """Between its first try and its second, Temporal counts attempts that never came to the tool: it has its three."""
    async with ModelServer(ONE) as models:
        world = await make_world(FAILING.replace("EFFECT", effect), api_base=models.base_url)
        await world.worker()
        client = await world.client()
        run = await client.start("one", "try")
        await until(lambda: (world.folder / "tries").exists(), "the tool has failed once")
        await world.rows("alter table effects rename to effects_away")

        async def attempted() -> bool:
            return any(re.search(r"attempt ([4-9]|\d\d)", line) for line in await run.trouble())

        await until(attempted, "four attempts were made")
        await world.rows("alter table effects_away rename to effects")
        assert (await run.result(timeout=PATIENCE)).output == "done"
        assert (world.folder / "tries").read_text() == "xxx"
        (row,) = await world.rows("select state, sends from effects where tool = 'flaky'")
        assert row["state"] == "done"


async def test_leases_are_renewed_while_the_workers_loop_stands_still(make_world: MakeWorld) -> None:
    """Held up by what a thousand queued runs brought, a worker keeps its calls; hung, only those whose body runs."""
    world = await make_world(WRITERS, lease=1.0, beat=0.2)
    lease = world.settings.scaled(world.settings.lease)
    conn = await connect(world.settings.database_url or "")
    step = Step("lease", "00000000-0000-0000-0000-000000000000", "s", 1, "t", "once", "a")
    runs = replace(step, key="body")
    claim = await ledger.claim(conn, step, "one", lease)
    await ledger.claim(conn, runs, "one", lease)
    query = "select extract(epoch from lease_until - clock_timestamp())::float8 from effects where key = $1"

    async def read(key: str) -> float:
        other = await connect(world.settings.database_url or "")
        try:
            seconds: float = await other.fetchval(query, key)
        finally:
            await other.close()
        return seconds

    def left(key: str) -> float:  # on a loop of its own: this one stands still meanwhile
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, read(key)).result()

    held = Leases()
    body: Future[None] = Future()
    held.hold_body(runs.key, claim.fence, body)
    serving = asyncio.create_task(held.serve(world.settings, "test-leases"))
    with held.hold(step.key, claim.fence):
        served = "select 1 from pg_stat_activity where application_name = 'test-leases'"
        await until(lambda: conn.fetchval(served), "the leases have a connection")
        time.sleep(2.5 * lease)  # noqa: ASYNC251  # what the test is about
        assert left(step.key) > 0
        time.sleep(8 * lease)  # noqa: ASYNC251
        assert left(step.key) < 0
        assert left(runs.key) > 0, "a thread that runs may still take effect"
        body.set_result(None)
        time.sleep(8 * lease)  # noqa: ASYNC251
        assert left(runs.key) < 0, "it has ended, and its worker does not say how"
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await conn.close()
