"""The connections of workers to PostgreSQL: none outlives its process, and a server with too few is told of in time."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from holdfast.memory.connections import held_at_most, shortage
from holdfast.memory.database import Pool, connect
from holdfast.runtime import worker_name
from holdfast.server import Check, doctor
from holdfast.settings import Settings, load_settings
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


async def test_the_url_may_say_how_often_postgresql_looks(pool: Pool, servers: dict[str, str]) -> None:
    """Some servers take no interval but 0; ours is left away where the URL has one."""
    for given, want in (("", "1s"), ("?client_connection_check_interval=0", "0"), ("?application_name=x", "1s")):
        conn = await connect(servers["database_url"] + given)
        assert await conn.fetchval("show client_connection_check_interval") == want
        assert await conn.fetchval("show search_path") == "holdfast"
        await conn.close()
    assert await pool.fetchval("show client_connection_check_interval") == "1s"


def of_postgres(settings: Settings) -> Check:
    """Return what doctor says of the server."""
    return next(check for check in doctor(settings) if check.name == "postgres")


async def test_a_server_with_too_few_connections_is_told_of(make_world: MakeWorld) -> None:
    """A worker says so when it starts, doctor at any time: with each limit, what may be wanted, and what to do."""
    world = await make_world(AGENTS)
    assert held_at_most(world.settings, "agents") == 21
    assert held_at_most(world.settings, "memory") == 11
    url = urlsplit(world.settings.database_url or "")
    await world.rows(f"alter database {url.path[1:]} connection limit 20")
    worker = await world.worker()
    said = worker.log.read_text()
    assert "PostgreSQL may run out of connections" in said
    assert "allows 20 connections (the connection limit of the database), and up to 21 may be needed" in said
    check = await asyncio.to_thread(of_postgres, world.settings)
    assert check.ok
    assert "1 agent workers may use 21 each" in check.detail
    assert "HOLDFAST_DATABASE_POOL (10)" in check.hint
    await world.rows(f"alter database {url.path[1:]} connection limit 60")
    check = await asyncio.to_thread(of_postgres, world.settings)
    assert (check.ok, check.hint) == (True, "")
    await world.rows(f"alter database {url.path[1:]} connection limit -1")
    conn = await connect(world.settings.database_url or "")
    found = await shortage(conn, world.settings.model_copy(update={"database_pool": 200}), "agents", "agents-0")
    await conn.close()
    assert found is not None
    assert "allows 197 connections (max_connections of the server, less what it reserves)" in found.why
    assert "2 agent workers may use 401 each" in found.why


async def test_replicas_with_the_same_process_id_count_each_other(make_world: MakeWorld) -> None:
    """In containers every worker is process 1: each finds the others, and leaves out itself alone."""
    world = await make_world(AGENTS)
    url = world.settings.database_url or ""
    await world.rows(f"alter database {urlsplit(url).path[1:]} connection limit 60")
    names = [worker_name("agents") for _ in range(3)]  # all of this process
    leases = [await connect(url, name=f"holdfast-{name}-leases") for name in names]
    found = await shortage(leases[0], world.settings, "agents", names[0])
    for conn in leases:
        assert await conn.fetchval("show application_name") in {f"holdfast-{name}-leases" for name in names}
        await conn.close()
    assert found is not None
    assert "3 agent workers may use 21 each" in found.why


def test_a_server_that_does_not_answer_is_missing() -> None:
    """Doctor asks it, and says what to check."""
    check = of_postgres(load_settings(database_url="postgresql://127.0.0.1:1/x"))
    assert not check.ok
    assert "PostgreSQL at 127.0.0.1:1/x cannot be used" in check.detail
