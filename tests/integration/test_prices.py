"""What runs cost, on the real servers: by the agent's own price, in every place that shows it."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.common import SearchAttributeKey

from holdfast.errors import RunEnded
from holdfast.runtime import connect_temporal
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE
from tests.terminal import Terminal

AGENTS = """
from holdfast import Agent, Budget, Price, tool

@tool(effect="pure")
async def look(n: int) -> str:
    "Look."
    return f"seen {n}"

dear = Agent("dear", "openai/test", "Help.", price=Price(input=1000, output=2000))
cheap = Agent("cheap", "openai/test", "Help.", price=Price(input=1, output=2))
bare = Agent("bare", "openai/test", "Help.")
asks = Agent("asks", "openai/test", "Help.", tools=[bare], price=Price(input=1000, output=2000))
bound = Agent("bound", "openai/test", "Help.", tools=[look], price=Price(input=1000, output=2000), budget=Budget(usd=5))
"""
COST = SearchAttributeKey.for_float("HoldfastCostUsd")
SCRIPT = """
conversations:
  - when: ask below
    replies:
      - call: {bare: {message: hello}}
        usage: [1000, 500]
      - say: asked
        usage: [1000, 500]
  - when: go on
    replies:
      - {call: {look: {n: 1}}, usage: [1000, 500]}
      - {call: {look: {n: 2}}, usage: [1000, 500]}
      - {call: {look: {n: 3}}, usage: [1000, 500]}
      - {call: {look: {n: 4}}, usage: [1000, 500]}
  - replies: [{say: hello, usage: [1000, 500]}]
"""


async def test_each_agent_has_its_own_price_and_an_unknown_one_is_told(make_world: MakeWorld) -> None:
    """Three agents of one model in one worker, in any order: the bill never depends on who was answered before."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        for number, name in enumerate(["dear", "bare", "cheap", "dear", "bare", "cheap"]):
            answer = await (await client.start(name, "hello", thread=f"t{number}")).result(timeout=PATIENCE)
            known = {"dear": 2.0, "cheap": 0.002, "bare": 0.0}[name]
            assert answer.cost_usd == pytest.approx(known), name
            assert answer.unpriced == int(name == "bare"), name
        run = await client.start("asks", "ask below", thread="below")
        answer = await run.result(timeout=PATIENCE)
        assert answer.cost_usd == pytest.approx(4.0)
        assert (answer.unpriced, answer.unpriced_below) == (0, 1)
        terminal = Terminal(world, client)
        shown = (await terminal("runs")).out
        assert shown.count("$?") == 3
        assert shown.count("$2.00") == 2
        below = (await terminal("show", run.run_id)).out
        assert "$?, 1,500 tokens by the agents it asked" in below
        told = await terminal("run", "bare", "hello")
        assert "$?" in told.err
        temporal = await connect_temporal(world.settings, identity="test")
        found = [
            (
                await temporal.get_workflow_handle(f"{world.settings.tenant}:t{number}").describe()
            ).typed_search_attributes
            for number in (0, 1)
        ]
        assert [each.get(COST) for each in found] == [pytest.approx(2.0), None]


async def test_a_budget_in_dollars_binds_by_the_agents_price(make_world: MakeWorld) -> None:
    """Two dollars a round: the third round is the last."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        with pytest.raises(RunEnded, match=r"over budget: 6\.0000 of 5\.0000 USD"):
            await (await client.start("bound", "go on")).result(timeout=PATIENCE)


async def test_a_worker_does_not_start_with_a_budget_that_could_never_bind(make_world: MakeWorld) -> None:
    """It exits as for any wrong configuration, and says which line to add."""
    source = AGENTS.replace("price=Price(input=1000, output=2000), budget", "budget")
    world = await make_world(source, api_base="http://127.0.0.1:9/v1")
    process = world.start()
    assert await asyncio.to_thread(process.popen.wait) == 3
    assert "price=Price(input=0.25, output=2.00)" in process.log.read_text()


BOUND = """
from holdfast import Agent, Budget, Price
from holdfast.tools import agent_tool

price = Price(input=1, output=2)
below = agent_tool("elsewhere", description="Knows.")
asks = Agent("asks", "openai/test", "Help.", tools=[below], price=price, budget=Budget(usd=5))
sends = Agent("sends", "openai/test", "Help.", handoffs=["elsewhere"], price=price, budget=Budget(usd=5))
free = Agent("free", "openai/test", "Help.", tools=[below], price=price)
"""
ELSEWHERE = """
from holdfast import Agent

elsewhere = Agent("elsewhere", "openai/test", "Help.")
"""
REACHING = """
conversations:
  - {when: ask it, replies: [{call: {elsewhere: {message: hello}}}, {say: "told: {{last_tool}}"}]}
  - {when: send it, replies: [{call: {hand_off_to_elsewhere: {}}}, {say: "told: {{last_tool}}"}]}
  - {replies: [{say: answered elsewhere}]}
"""


async def test_a_budget_that_could_not_bind_for_an_agent_of_another_worker(make_world: MakeWorld) -> None:
    """Neither worker can know when it loads its file: the call and the hand-off are refused, with the line to add."""
    async with ModelServer(REACHING) as models:
        world = await make_world(BOUND, api_base=models.base_url)
        other = world.folder / "elsewhere.py"
        other.write_text(ELSEWHERE)
        await world.worker()
        await world.worker(HOLDFAST_AGENTS=str(other))
        client = await world.client()
        for name, text, how in (("asks", "ask it", "asks"), ("sends", "send it", "hands over to")):
            run = await client.start(name, text, thread=name)
            output = (await run.result(timeout=PATIENCE)).output
            assert f"agent '{name}' has a budget of 5.0 USD, which {how} agent 'elsewhere'" in output
            assert 'Agent("elsewhere", …, price=Price(' in output
            assert "answered elsewhere" not in output
        asked = await (await client.start("free", "ask it", thread="free")).result(timeout=PATIENCE)
        assert (asked.output, asked.unpriced_below) == ("told: answered elsewhere", 1)
