"""What comes in while a thread's workflow has just rolled over and no worker is there to hear it."""

from __future__ import annotations

import asyncio

from temporalio.worker import Replayer

from holdfast.convert import data_converter
from holdfast.runtime import WORKFLOWS, workflow_runner
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import until

AGENTS = '''
from holdfast import Agent, tool

@tool(effect="pure")
def look(page: str) -> str:
    """Look."""
    return page

@tool(effect="once", approval="always")
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"

one = Agent(name="one", model="openai/test", tools=[look, pay])
'''

SCRIPT = """
conversations:
  - replies:
      - repeat: 2
        call: {look: {page: "p{{n}}"}}
      - call: [{pay: {amount: 5}}, {look: {page: a}}, {look: {page: b}}, {look: {page: c}}, {look: {page: d}}]
      - call: {look: {page: last}}
      - say: "you said {{user}}"
"""


async def test_a_decision_after_a_roll_over_meets_a_new_worker_and_the_history_replays(make_world: MakeWorld) -> None:
    """The worker that rolled over is killed while it waits for a person; what the next one does can be done again."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, roll_after_events=50)
        first = await world.worker()
        client = await world.client()
        run = await client.start("one", "hello", thread="rolls")
        await until(run.approvals, "the approval is pending")
        temporal = await histories.connect(world.settings)
        handle = temporal.get_workflow_handle(run.workflow_id)

        async def length() -> int:
            found = await handle.describe()
            return found.history_length if found.run_id != found.raw_info.first_run_id else 0

        async def idle() -> bool:
            return await length() == 5

        async def told() -> bool:
            return await length() > 5

        await until(idle, "the workflow has rolled over and waits: its first task asked for a timer only")
        first.kill()
        decided = asyncio.create_task(run.approve(actor="me"))
        await until(told, "the decision waits for a worker")
        await world.worker()
        await decided
        assert (await run.result(timeout=60)).output == "you said hello"
        replayer = Replayer(workflows=WORKFLOWS, data_converter=data_converter, workflow_runner=workflow_runner())
        async for each in temporal.list_workflows(f"WorkflowId = '{run.workflow_id}'"):
            history = await temporal.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
            await replayer.replay_workflow(history)
