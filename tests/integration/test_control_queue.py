"""Short work does not wait behind long calls: admissions, decisions and ends have a queue and slots of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio
from pathlib import Path

from holdfast import Agent, tool

HERE = Path(__file__).parent

@tool(effect="pure", timeout=600)
async def hold(name: str) -> str:
    """Wait until told to go on."""
    (HERE / f"{name}.held").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.05)
    return name

@tool(effect="once", approval="always")
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"

one = Agent(name="one", model="openai/test", tools=[hold, pay])
'''

SCRIPT = """
conversations:
  - when: hold
    replies: [{call: {hold: {name: "{{user}}"}}}, {say: went on}]
  - when: pay
    replies: [{call: {pay: {amount: 5}}}, {say: "{{last_tool}}"}]
  - replies: [{say: heard}]
"""


@pytest_asyncio.fixture
async def held(make_world: MakeWorld) -> AsyncIterator[World]:
    """Return a world whose one worker has two slots for long calls, and an approval that was asked for before both."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, max_concurrent_steps=2)
        await world.worker()
        client = await world.client()
        paying = await client.start("one", "pay", thread="pay")
        await until(paying.approvals, "an approval is pending")
        for name in ("hold-a", "hold-b"):
            await client.start("one", name, thread=name)
        for name in ("hold-a", "hold-b"):
            await until((world.folder / f"{name}.held").exists, "both slots are taken")
        yield world


async def test_a_message_is_admitted_and_its_run_begins(held: World) -> None:
    """With each slot taken by a long call, a message is stored and its run is under way."""
    client = await held.client()
    run = await client.start("one", "hello")

    async def running() -> bool:
        return (await run.status()).state == "running"

    await until(running, "the run has begun", patience=PATIENCE / 3)
    (held.folder / "go").touch()
    assert (await run.result(timeout=PATIENCE)).output == "heard"


async def test_a_person_is_heard(held: World) -> None:
    """A decision is recorded and a stop ends its run while each slot is taken."""
    client = await held.client()
    paying = next(run for run in await client.runs() if run.thread == "pay")
    waiting = await client.get(paying.run_id)
    await waiting.approve()
    await waiting.stop("enough")
    with pytest.raises(Exception, match="enough"):
        await waiting.result(timeout=PATIENCE / 3)
    audited = await held.rows("select action, accepted from audit where accepted order by action")
    assert [row["action"] for row in audited] == ["approve", "stop"]
