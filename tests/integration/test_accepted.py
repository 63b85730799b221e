"""A message that was accepted, and whose workflow was ended before anybody wrote it down, is not lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast.contracts import Ask, AskResult
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = """
from holdfast import Agent
one = Agent(name="one", model="openai/test")
"""
SCRIPT = "conversations: [{replies: [{say: 'I read: {{user}}'}]}]"


@asynccontextmanager
async def lost(world: World, thread: str) -> AsyncIterator[None]:
    """Have the block's message accepted and not stored: its worker is killed, then its workflow terminated."""
    temporal = await histories.connect(world.settings)
    handle = temporal.get_workflow_handle(f"{world.settings.tenant}:{thread}")
    async with world.held("lock table threads in share mode"):  # threads can be read, and none can be made
        yield

        async def being_stored() -> bool:
            try:
                pending = (await handle.describe()).raw_description.pending_activities
            except Exception:
                return False
            return any(activity.activity_type.name == "admit" for activity in pending)

        await until(being_stored, "it was accepted")
        world.processes[-1].kill()
        await handle.terminate()
    assert not await world.rows(
        "select run_id from runs where thread_id in (select id from threads where thread = $1)", thread
    )
    await world.worker()


async def test_who_waits_sends_it_again(make_world: MakeWorld) -> None:
    """`result` has the answer of the run whose id the sender was given; `events` has its events."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        async with lost(world, "a"):
            waiting = await client.start("one", "first", thread="a")
        assert (await waiting.result(timeout=2 * PATIENCE)).output == "I read: first"
        async with lost(world, "b"):
            followed = await client.start("one", "second", thread="b")
        assert [event.kind async for event in followed.events()][-1] == "ended"
        assert len(models.journal) == 2


async def test_a_schedules_question_is_asked_again(make_world: MakeWorld) -> None:
    """AskWorkflow ends with the answer, so that what is scheduled after it is not skipped for ever."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        await world.worker()
        temporal = await histories.connect(world.settings)
        async with lost(world, "c"):
            asking = await temporal.start_workflow(
                "AskWorkflow",
                Ask(agent="one", text="third", thread="c"),
                id=f"ask-{world.settings.tenant}",
                task_queue=world.settings.task_queue,
                result_type=AskResult,
            )
        answer = await asking.result()
        assert answer.answer == "I read: third"
        assert len(models.journal) == 1
