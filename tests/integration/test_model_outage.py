"""A model's reply that comes while the database is away: it is paid, so it is kept and recorded when that is back."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from holdfast.testing import ModelServer
from tests.conformance.proxy import FaultProxy
from tests.conftest import MakeWorld
from tests.kit import until

AGENTS = """
from holdfast import Agent

one = Agent(name="one", model="openai/test")
"""

SCRIPT = """
conversations:
  - replies: [{say: "you said {{user}}", latency: 1.5}]
"""


async def test_a_reply_outlives_an_outage_of_the_database(make_world: MakeWorld) -> None:
    """PostgreSQL goes while the model speaks, for longer than the heartbeat time-out: nothing is bought again."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        proxy = FaultProxy(world.settings.database_url or "")
        await proxy.open()
        await world.worker(HOLDFAST_DATABASE_URL=proxy.url)
        client = await world.client()
        run = await client.start("one", "hello")
        await until(lambda: models.journal, "the model is asked")
        await proxy.shut()
        await asyncio.sleep(1.5 + 2 * world.settings.scaled(world.settings.lease))  # the outage itself
        assert await world.rows("select 1 from messages where role = 'assistant'") == [], "recorded before the outage"
        await proxy.open()
        assert (await run.result(timeout=60)).output == "you said hello"
        assert len(models.journal) == 1
        await proxy.shut()


@pytest.mark.parametrize("word", ["lose", "mute"], ids=["before it arrives", "before its answer does"])
async def test_a_commit_that_is_cut_off_is_done_once(make_world: MakeWorld, word: Literal["lose", "mute"]) -> None:
    """The connection breaks in the very commit of the reply: it is bought once, recorded once and paid once."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        proxy = FaultProxy(world.settings.database_url or "")
        await proxy.open()
        await world.worker(HOLDFAST_DATABASE_URL=proxy.url)
        client = await world.client()
        run = await client.start("one", "hello")
        await until(lambda: models.journal, "the model is asked")

        cut: list[int] = []  # the client's port of each connection that was cut

        async def break_off(port: int, said: bytes) -> Literal["lose", "mute"] | None:
            if b"you said hello" not in said:
                return None
            cut.append(port)
            return word

        proxy.at_commit = break_off
        result = await run.result(timeout=60)
        assert len(cut) == 1, "the commit of the reply was not cut"
        assert not proxy.connected(cut[0]), "its connection is still open"
        assert result.output == "you said hello"
        assert len(models.journal) == 1
        assert (await world.rows("select rounds from runs"))[0]["rounds"] == 1
        assert not await world.rows("select 1 from late_outcomes")
        await proxy.shut()
