"""PostgreSQL changes hands while a worker alone knows how a `once` call ended, or has a reply that is paid."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from holdfast.handles import RunHandle
from holdfast.testing import ModelServer
from tests.kit import PATIENCE, World, until
from tests.standby import Server, both, pair, rotate_password

AGENTS = """
import asyncio
from pathlib import Path

from holdfast import Agent, tool

HERE = Path(__file__).parent


@tool
async def post(letter: str) -> str:
    "Post a letter."
    with (HERE / "posted").open("a") as posted:
        posted.write(letter + "\\n")
    while not (HERE / "stamped").exists():
        await asyncio.sleep(0.05)
    return f"posted {letter}"


one = Agent(name="one", model="openai/test", tools=[post])
"""

SCRIPT = """
conversations:
  - replies:
      - call: {post: {letter: "a"}}
        latency: 2.0
      - {say: done}
"""


@dataclass
class Place:
    """A world on a primary and a standby of its own, and the user's model server."""

    world: World
    models: ModelServer
    primary: Server
    standby: Server
    passfile: Path

    @property
    def known(self) -> int:
        """How often a worker has said that it keeps to itself what it could not write down."""
        return sum(process.log.read_text().count("what a step came to waits") for process in self.world.processes)

    async def administer(self, *statements: str) -> None:
        """Run statements as the superuser of the primary, in the world's database."""
        name = urlsplit(self.world.settings.database_url or "").path
        conn = await asyncpg.connect(self.primary.url.rpartition("/")[0] + name)
        for statement in statements:
            await conn.execute(statement)
        await conn.close()


Heal = Callable[[], Awaitable[None]]
Strike = Callable[[Place], Awaitable[Heal]]


async def failover(place: Place) -> Heal:
    """The primary is gone without a word, and the standby takes over."""
    await place.primary.stop(crash=True)
    return place.standby.promote


async def read_only(place: Place) -> Heal:
    """The primary takes no writes any more, though all of its sessions live, and the standby takes over."""
    await place.administer("alter system set default_transaction_read_only = on", "select pg_reload_conf()")
    return place.standby.promote


async def rotation(place: Place) -> Heal:
    """The password is another one, and the worker has it only later."""
    await rotate_password(place.primary.url, "app", "second")

    async def tell() -> None:
        place.passfile.write_text("*:*:*:app:second\n")

    return tell


async def locked(place: Place) -> Heal:
    """Somebody holds a lock on the tables for longer than this role may wait."""
    conn = await asyncpg.connect(
        place.primary.url.rpartition("/")[0] + urlsplit(place.world.settings.database_url or "").path
    )
    await conn.execute("set search_path to holdfast")
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute("lock table threads in access exclusive mode")

    async def let_go() -> None:
        await transaction.rollback()
        await conn.close()

    return let_go


@asynccontextmanager
async def place_on(servers: dict[str, str], folder: Path, environment: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """Give a place whose workers log in as a role of their own, with a password from a file."""
    async with pair() as (primary, standby), ModelServer(SCRIPT) as models:
        conn = await asyncpg.connect(primary.url)
        await conn.execute("create role app login createdb password 'first'")
        await conn.execute("alter role app set lock_timeout = '200ms'")
        await conn.close()
        passfile = folder / "passfile"
        passfile.touch(mode=0o600)
        passfile.write_text("*:*:*:app:first\n")
        environment.setenv("PGPASSFILE", str(passfile))  # read anew for each connection, as by all clients
        hosts = urlsplit(both(primary.url, standby)).netloc.rpartition("@")[2]
        (folder / "home").mkdir()
        world = await World.create(
            {**servers, **dict.fromkeys(("database_url", "owner_url"), f"postgresql://app@{hosts}/postgres")},
            folder / "home",
            AGENTS,
            api_base=models.base_url,
        )
        try:
            yield Place(world, models, primary, standby, passfile)
        finally:
            await world.close()


async def settled(place: Place, run: RunHandle) -> None:
    """Assert that the run came to its end as if nothing had been."""
    assert (await run.result(timeout=PATIENCE)).output == "done"
    world = place.world
    assert len(place.models.journal) == 2, "no reply was bought twice"
    assert (world.folder / "posted").read_text() == "a\n"
    assert not await world.rows("select 1 from events where kind = 'in_doubt'")
    assert not await world.rows("select 1 from late_outcomes")
    (row,) = await world.rows("select rounds, tokens_in + tokens_out as tokens from runs")
    steps = await world.rows("select (result->>'tokens')::int as tokens from effects where tool = 'model'")
    assert row["rounds"] == 2
    assert row["tokens"] == sum(step["tokens"] for step in steps) > 0, "what was bought is counted"


MODEL_CALL, ONCE_CALL = "a model call", "a once call"


def struck_amid(place: Place, moment: str) -> bool:
    """Whether that is under way: the model is asked and has not answered, or the letter is posted and not stamped."""
    return bool(place.models.journal) if moment == MODEL_CALL else (place.world.folder / "posted").exists()


@pytest.mark.parametrize("moment", [MODEL_CALL, ONCE_CALL])
@pytest.mark.parametrize("strike", [failover, read_only, rotation, locked], ids=lambda strike: strike.__name__)
async def test_what_a_worker_alone_knows_outlives_a_switchover(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strike: Strike, moment: str
) -> None:
    """Struck while the model speaks: no reply is bought twice. Struck amid a `once` call: nothing is in doubt."""
    async with place_on(servers, tmp_path, monkeypatch) as place:
        stamp = place.world.folder / "stamped"
        await place.world.worker()
        client = await place.world.client()
        run = await client.start("one", "post it")
        await until(lambda: struck_amid(place, moment), f"{moment} is under way")
        heal = await strike(place)
        if moment == ONCE_CALL:
            stamp.touch()
        await until(lambda: place.known, "the worker keeps what it alone knows")
        await heal()
        stamp.touch()
        await settled(place, run)
        await client.close()
