"""Two fleets of workers, each with a task queue and an agents file of its own, share one database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio
from temporalio.client import Client as Temporal
from temporalio.client import ScheduleActionStartWorkflow, WorkflowExecution
from temporalio.worker import Replayer

from holdfast import Client
from holdfast.contracts import AGENT_WORKFLOW, Accepted, Message, ThreadStart
from holdfast.convert import data_converter
from holdfast.errors import UnknownAgent
from holdfast.ids import schedule_id_for, workflow_id_for
from holdfast.runtime import WORKFLOWS, workflow_runner
from holdfast.testing import ModelServer
from tests import histories
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
    while not (HERE / f"{name}.go").exists():
        await asyncio.sleep(0.05)
    return name

@tool(effect="once")
def where(ctx: object = None) -> str:
    """Say which fleet this is."""
    return "fleet FLEET"

shared = Agent(name="shared", model="openai/test", instructions="Fleet FLEET.", tools=[hold, where])
own = Agent(name="own-FLEET", model="openai/test", tools=[hold, where])
'''.replace("(ctx: object = None)", "()")

SCRIPT = """
conversations:
  - when: hold
    replies: [{call: {hold: {name: "{{user}}"}}}, {say: "went on: {{user}}"}]
  - replies: [{call: {where: {}}}, {say: "{{last_tool}}"}]
"""


@dataclass
class Fleets:
    """A world whose own workers are fleet A, and a client of each fleet."""

    world: World
    a: Client
    b: Client
    temporal: Temporal

    async def queue_of(self, thread: str) -> str:
        """Return the task queue of the thread's newest workflow."""
        found = await self.temporal.get_workflow_handle(f"{self.world.settings.tenant}:{thread}").describe()
        return found.task_queue


@pytest_asyncio.fixture
async def fleets(make_world: MakeWorld) -> AsyncIterator[Fleets]:
    """Return fleets A, which sweeps each second, and B, which never does: each look is A's."""
    async with ModelServer(SCRIPT) as models, AsyncExitStack() as stack:
        world = await make_world(AGENTS.replace("FLEET", "A"), api_base=models.base_url, sweep_every=1.0)
        file = world.folder / "b" / "agents.py"
        file.parent.mkdir()
        file.write_text(AGENTS.replace("FLEET", "B"), encoding="utf-8")
        settings = world.settings.model_copy(update={"task_queue": f"{world.settings.task_queue}-b", "agents": file})
        await world.worker()
        b = {"HOLDFAST_TASK_QUEUE": settings.task_queue, "HOLDFAST_AGENTS": str(file)}
        await world.worker(**b, HOLDFAST_SWEEP_EVERY="3600", HOLDFAST_LINGER="600")
        client = await stack.enter_async_context(await Client.connect(settings))
        yield Fleets(world, await world.client(), client, await histories.connect(world.settings))


async def test_a_sweeper_leaves_a_thread_on_its_own_queue(fleets: Fleets) -> None:
    """What waits behind a terminated run of fleet B is done by fleet B, although the sweeper of fleet A found it."""
    held = await fleets.b.start("own-B", "hold-b", thread="b")
    await until((fleets.world.folder / "b" / "hold-b.held").exists, "the call is under way")
    waits = await fleets.b.start("own-B", "where?", thread="b")

    async def queued() -> bool:
        return (await waits.status()).state == "queued"

    await until(queued, "the second message is stored")
    await fleets.temporal.get_workflow_handle(held.workflow_id).terminate()
    assert (await waits.result(timeout=PATIENCE)).output == "fleet B"
    assert await fleets.queue_of("b") == fleets.b.settings.task_queue


async def test_agents_of_one_name_are_each_fleets_own(fleets: Fleets) -> None:
    """A run gets the definition of the fleet that answers, whichever fleet has started last."""
    for client, fleet in ((fleets.a, "A"), (fleets.b, "B")):
        run = await client.start("shared", "where?")
        assert (await run.result(timeout=PATIENCE)).output == f"fleet {fleet}"
        definition = await run.definition()
        assert definition is not None
        assert definition.instructions == f"Fleet {fleet}."


async def test_a_message_from_elsewhere_leaves_a_thread_with_its_work(fleets: Fleets) -> None:
    """A client of queue A that writes to a thread with runs of fleet B under way starts its workflow for fleet B."""
    held = await fleets.b.start("shared", "hold-c", thread="c")
    await until((fleets.world.folder / "b" / "hold-c.held").exists, "the call is under way")
    fleets.world.processes[0].kill()  # no sweeper looks
    await fleets.temporal.get_workflow_handle(held.workflow_id).terminate()
    await fleets.a.start("shared", "where?", thread="c")
    assert await fleets.queue_of("c") == fleets.b.settings.task_queue


async def test_a_client_hears_which_queue_has_the_agent(fleets: Fleets) -> None:
    """An agent of the other fleet is refused at once, with the setting to change, not begun by the wrong workers."""
    with pytest.raises(UnknownAgent, match=f"HOLDFAST_TASK_QUEUE={fleets.b.settings.task_queue}"):
        await fleets.a.start("own-B", "where?")
    assert sorted(await fleets.b.agents()) == ["own-B", "shared"]


async def test_a_client_hears_that_the_thread_still_has_runs_elsewhere(fleets: Fleets) -> None:
    """It already uses the queue that has the agent; what it has to wait for is the run of the other fleet."""
    held = await fleets.b.start("shared", "hold-d", thread="d")
    await until((fleets.world.folder / "b" / "hold-d.held").exists, "the call is under way")
    with pytest.raises(UnknownAgent, match="still has open runs on the task queue") as refused:
        await fleets.a.start("own-A", "where?", thread="d")
    assert fleets.b.settings.task_queue in str(refused.value)
    assert "set HOLDFAST_TASK_QUEUE" not in str(refused.value)
    (fleets.world.folder / "b" / "hold-d.go").touch()
    await held.result(timeout=PATIENCE)


async def test_an_idle_workflow_elsewhere_makes_way(fleets: Fleets) -> None:
    """A message to queue A is answered there, though the workflow of the message before still lingers on queue B."""
    await (await fleets.b.start("shared", "where?", thread="e")).result(timeout=PATIENCE)
    run = await fleets.a.start("shared", "where?", thread="e")
    assert (await run.result(timeout=PATIENCE)).output == "fleet A"
    assert await fleets.queue_of("e") == fleets.a.settings.task_queue
    replayer = Replayer(workflows=WORKFLOWS, data_converter=data_converter, workflow_runner=workflow_runner())

    async def listed() -> list[WorkflowExecution]:
        found = [each async for each in fleets.temporal.list_workflows(f"WorkflowId = '{run.workflow_id}'")]
        return found if len(found) == 2 else []

    for each in await until(listed, "both executions are listed"):
        history = await fleets.temporal.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
        await replayer.replay_workflow(history)  # on a task queue of its own, which must not matter


async def test_an_agent_of_one_fleet_is_not_refused_by_the_other(fleets: Fleets) -> None:
    """On a thread that nobody owns yet, an idle workflow of B leaves the message to A, which has the agent."""
    workflow_id = workflow_id_for(fleets.b.settings.tenant, "f")
    idle = await fleets.temporal.start_workflow(
        AGENT_WORKFLOW, ThreadStart(), id=workflow_id, task_queue=fleets.b.settings.task_queue
    )
    await idle.execute_update("message", Message(message_id="m", agent="nobody", text="who?"), result_type=Accepted)

    async def admitted() -> bool:  # only then does the workflow know its queue
        events = (await idle.fetch_history()).events
        return any(event.HasField("activity_task_completed_event_attributes") for event in events)

    await until(admitted, "the workflow is idle")
    run = await fleets.a.start("own-A", "where?", thread="f")
    assert (await run.result(timeout=PATIENCE)).output == "fleet A"


async def test_an_edit_from_elsewhere_leaves_a_schedule_with_its_fleet(fleets: Fleets) -> None:
    """A client of queue A that changes the text of a schedule of fleet B does not take it over."""
    await fleets.b.schedules.create("daily", "own-B", "where?", every="1h")
    await fleets.a.schedules.update("daily", text="where now?")
    found = await fleets.temporal.get_schedule_handle(schedule_id_for(fleets.world.settings.tenant, "daily")).describe()
    action = found.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert action.task_queue == fleets.b.settings.task_queue
