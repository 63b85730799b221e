"""How long a model that refuses is asked again: from its first refusal, by the time in which it was asked."""

from __future__ import annotations

import time
from typing import Any

import pytest

from holdfast.errors import RunEnded
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio, pathlib
from holdfast import Agent, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="pure", timeout=600)
async def hold() -> str:
    """Keep a slot until a file is there."""
    (HERE / "held").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.02)
    return "let go"

agent = Agent("agent", "openai/test", "Help.", tools=[hold])
'''

SCRIPT = """
conversations:
  - {when: hold, replies: [{call: {hold: {}}}, {say: held}]}
  - {when: slots, replies: [{fault: {status: 503}, say: in the end}]}
  - {when: outage, replies: [{fault: [{status: 503, retry_after: 2}, {status: 503}], say: in the end}]}
  - {when: gone, replies: [{fault: {status: 503, times: always}, say: never}]}
  - {when: later, replies: [{fault: {status: 429, retry_after: 3600, times: always}, say: never}]}
"""


async def passed(world: World, began: float) -> None:
    """Wait until the patience of this world is over, and a second more."""
    patience = world.settings.scaled(world.settings.model_patience)
    await until(lambda: time.monotonic() - began > patience + 1, "the patience is over", PATIENCE + 2 * patience)


def requests(models: ModelServer, said: str) -> list[dict[str, Any]]:
    """Return what the model server was asked for this message."""
    return [entry for entry in models.journal if entry["body"]["messages"][-1]["content"] == said]


async def test_waiting_for_a_slot_is_no_refusal(make_world: MakeWorld) -> None:
    """After longer than the patience without a slot of its worker, a model step is tried again when it is refused."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, model_patience=5.0, max_concurrent_steps=1)
        await world.worker()
        client = await world.client()
        holds = await client.start("agent", "hold", thread="a")
        await until((world.folder / "held").exists, "the slot is taken")
        began = time.monotonic()
        run = await client.start("agent", "slots", thread="b")
        await passed(world, began)
        assert requests(models, "slots") == []
        (world.folder / "go").touch()
        assert (await run.result(timeout=PATIENCE)).output == "in the end"
        assert len(requests(models, "slots")) == 2
        assert (await holds.result(timeout=PATIENCE)).output == "held"


async def test_time_without_a_worker_does_not_count(make_world: MakeWorld) -> None:
    """The worker is killed between two refusals and comes back when the patience would be over: the model is asked."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, model_patience=5.0)
        worker = await world.worker()
        client = await world.client()
        run = await client.start("agent", "outage")
        await until(run.trouble, "the model has refused once")
        began = time.monotonic()
        worker.kill()
        await passed(world, began)
        await world.worker()
        assert (await run.result(timeout=PATIENCE)).output == "in the end"
        assert len(requests(models, "outage")) == 3


async def test_a_model_that_goes_on_refusing_ends_the_run(make_world: MakeWorld) -> None:
    """After the patience, not before; a `Retry-After` of an hour is cut to what is left of it, and the run says so."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, model_patience=4.0)
        await world.worker()
        client = await world.client()
        patience = world.settings.scaled(world.settings.model_patience)
        began = time.monotonic()
        gone, later = await client.start("agent", "gone"), await client.start("agent", "later")
        [told] = await until(later.trouble, "the model has refused")
        assert "asks to wait 3600 s" in told
        assert f"called once more in {patience:.0f} s" in told
        for run, what in ((gone, "answered 503"), (later, "The provider asked to wait 3600 s more")):
            with pytest.raises(RunEnded, match=r"the model did not answer for \d+ s") as ended:
                await run.result(timeout=PATIENCE + patience)
            assert what in str(ended.value)
        assert time.monotonic() - began >= patience
        assert len(requests(models, "later")) in (2, 3)  # a timer may fire a millisecond early
        assert await world.rows("select 1 from model_refusals") == []
