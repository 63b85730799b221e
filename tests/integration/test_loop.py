"""The loop end to end, on the real servers: a question, its tools, its answer, and what is left in the stores."""

from __future__ import annotations

import pytest

from holdfast.activities.requests import rebuild_request
from holdfast.memory.database import connect
from tests.kit import World

AGENTS = '''
from holdfast import Agent, Budget, ToolContext, tool

@tool(effect="pure")
async def order_status(order_id: str) -> dict:
    """Look up one order."""
    return {"order": order_id, "status": "delivered damaged"}

@tool(effect="once", approval="always")
def refund(ctx: ToolContext, order_id: str, amount: float) -> str:
    """Pay money back."""
    return f"refunded {amount} for {order_id}"

support = Agent(name="support", model="openai/test", instructions="Help.", tools=[order_status, refund])
'''

SCRIPT = """
conversations:
  - when: refund
    replies:
      - call: {order_status: {order_id: "17"}}
      - call: {refund: {order_id: "17", amount: 40}}
      - say: "Refunded: {{last_tool}}"
  - replies:
      - call: {order_status: {order_id: "17"}}
      - say: "It says {{last_tool}}"
"""


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def test_a_question_is_answered_by_way_of_a_tool(world: World) -> None:
    """A message runs through a model call, a tool call and a second model call to its answer."""
    client = await world.client()
    run = await client.start("support", "Where is order 17?", thread="c1")
    answer = await run.result(timeout=60)
    assert "delivered damaged" in answer.output
    events = [event async for event in run.events()]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.kind for event in events] == ["accepted", "started", "replied", "tool_done", "replied", "ended"]


async def test_the_request_of_each_model_call_is_rebuilt_as_it_was_sent(world: World) -> None:
    """From ranges of seq, definition and parameters comes the very request that the model server got."""
    client = await world.client()
    run = await client.start("support", "Where is order 17, exactly?", thread="rebuild")
    await run.result(timeout=60)
    steps = [event.data["step"] async for event in run.events() if event.kind == "replied"]
    sent = [entry["body"] for entry in world.models.journal if "exactly?" in str(entry["body"])]
    assert len(steps) == len(sent) == 2
    conn = await connect(world.settings.database_url or "")
    for step, body in zip(steps, sent, strict=True):
        rebuilt = await rebuild_request(conn, world.settings, run.run_id, step)
        assert rebuilt is not None
        request, same = rebuilt
        assert same
        said = [{key: value for key, value in message.items() if value is not None} for message in request.messages]
        assert (said, request.tools) == (body["messages"], body["tools"]), "but for nulls, which LiteLLM leaves out"
    await conn.close()


async def test_an_approved_call_is_made_once_and_a_rejected_one_never(world: World) -> None:
    """A call that asks for approval waits; approved it runs once, rejected the model reads the reason."""
    client = await world.client()
    run = await client.start("support", "refund order 17", thread="c3")
    async for event in run.events():
        if event.kind == "approval_requested":
            await run.approve(actor="ann")
    answer = await run.result(timeout=60)
    assert answer.output == "Refunded: refunded 40.0 for 17"
    other = await client.start("support", "refund order 17 too", thread="c2")
    async for event in other.events():
        if event.kind == "approval_requested":
            await other.reject(reason="not today")
    assert "not today" in (await other.result(timeout=60)).output
    effects = await world.rows("select tool, state from effects where class = 'once'")
    assert effects == [{"tool": "refund", "state": "done"}]
