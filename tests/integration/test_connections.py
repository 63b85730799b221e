"""The connections of workers to PostgreSQL: none outlives its process, and a server with too few is told of in time."""

from __future__ import annotations

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = """
from holdfast import Agent, ToolContext, tool

@tool(effect="local_tx", timeout=600)
async def nap(ctx: ToolContext) -> str:
    \"\"\"A statement that takes long.\"\"\"
    await ctx.connection.execute("select pg_sleep(600)")
    return "awake"

sleeper = Agent("sleeper", "openai/test", tools=[nap])
"""

SCRIPT = """
conversations:
  - when: {user: nap}
    replies:
      - call: {nap: {}}
  - replies:
      - say: "here"
"""

MANY = 4
GONE = 15.0  # seconds; PostgreSQL looks for its client every second
SESSIONS = """
select wait_event_type as waits from pg_stat_activity
where datname = current_database() and application_name like 'holdfast-agents-%'
"""


async def sessions(world: World, waits: str | None = None) -> int:
    """Count the sessions of workers, or those that wait for this."""
    return sum(waits is None or row["waits"] == waits for row in await world.rows(SESSIONS))


async def gone(world: World) -> None:
    """Wait until workers have no session left."""

    async def none() -> bool:
        return await sessions(world) == 0

    await until(none, "the sessions of the killed worker have ended", world.settings.scaled(GONE))


async def test_no_session_of_a_killed_worker_waits_for_a_lock(make_world: MakeWorld) -> None:
    """It would keep its connection for as long as the lock is held, and might commit when it gets it."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        worker = await world.worker()
        client = await world.client()

        async def waiting() -> bool:
            return await sessions(world, "Lock") >= MANY

        async with world.held("lock table holdfast.effects in access exclusive mode"):
            runs = [await client.start("sleeper", "hello", thread=f"t{number}") for number in range(MANY)]
            await until(waiting, "the first step of each run waits for the lock")
            worker.kill()
            await gone(world)
        await world.worker()
        assert [(await run.result(timeout=PATIENCE)).output for run in runs] == ["here"] * MANY


async def test_no_session_of_a_killed_worker_stays_in_a_long_statement(make_world: MakeWorld) -> None:
    """A tool's statement of ten minutes ends with its worker, and gives its locks back."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        worker = await world.worker()
        await (await world.client()).start("sleeper", "nap", thread="nap")

        async def asleep() -> bool:
            return await sessions(world, "Timeout") == 1

        await until(asleep, "the statement is under way")
        worker.kill()
        await gone(world)
