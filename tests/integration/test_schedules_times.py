"""When schedules fire, on the real servers: as clocks change, beside a run, after an outage, with no room left."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from holdfast.contracts import AGENT_WORKFLOW, ASK_WORKFLOW, Ask, Carry, Message, ThreadStart, ThreadState
from holdfast.errors import StackError, ThreadFull
from holdfast.ids import run_id_for
from holdfast.schedules import ScheduleDesk, ScheduleView
from holdfast.server import read_stack
from holdfast.testing import ModelServer
from holdfast.workflows import inbox
from tests import histories, standalone
from tests.conftest import MakeWorld
from tests.integration._schedules import AGENTS, Model, answered, clerks
from tests.kit import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(make_shared_world: MakeWorld) -> AsyncIterator[World]:
    """Return one world with a worker for all tests of this file."""
    async with clerks(make_shared_world) as world:
        yield world


CHANGES = {  # cron line, from, to, and the local times that a backfill asks about
    "into summer": ("0 7 * * *", "2026-03-28", "2026-03-31", ["28T07:00 +0100", "29T07:00 +0200", "30T07:00 +0200"]),
    "out of summer": ("0 7 * * *", "2025-10-25", "2025-10-28", ["25T07:00 +0200", "26T07:00 +0100", "27T07:00 +0100"]),
    "a time that is skipped": ("30 2 * * *", "2026-03-28", "2026-03-31", ["28T02:30 +0100", "30T02:30 +0200"]),
    "a time that comes twice": ("30 2 * * *", "2025-10-26", "2025-10-27", ["26T02:30 +0100"]),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_of_the_clock(world: World, desk: ScheduleDesk, name: str) -> None:
    """The hour is that of the schedule's zone on either side of the change, and so is the time in the message."""
    cron, start, end, wanted = CHANGES[name]
    called = name.replace(" ", "-")
    text = "{time:%dT%H:%M %z}"
    await desk.create(called, "clerk", text, cron=cron, time_zone="Europe/Berlin", thread=called, paused=True)
    assert len(await desk.backfill(called, start, end)) == len(wanted)
    await answered(desk, called, len(wanted))
    client = await world.client()
    told = [str((message.body or {}).get("content")) for message in await client.history(called)]
    assert told == [line for time in wanted for line in (time, f"heard {time}")]


async def test_a_week_may_end_with_sunday(desk: ScheduleDesk) -> None:
    """Ranges of days go on to Sunday, by name or as the seventh day."""
    days = ["2026-01-02", "2026-01-03", "2026-01-04"]
    for name, said in (("names", "fri-sun"), ("numbers", "5-7")):
        await desk.create(name, "clerk", "{date}", calendar={"hour": 7, "day_of_week": said}, paused=True)
        due = await desk.backfill(name, "2026-01-01", "2026-01-07", "skip")
        assert [f"{moment:%Y-%m-%d}" for moment in due] == days


async def test_what_is_skipped_does_not_take_place_later(world: World, desk: ScheduleDesk) -> None:
    """With `skip` nothing waits: what falls due beside a run under way is counted, and that is all."""
    await desk.create("picky", "clerk", "hold {time}", every="1s", overlap="skip")

    async def skipped() -> bool:
        return (await desk.get("picky")).skipped >= 2

    await until(skipped, "two were skipped")
    await desk.pause("picky", "enough")
    view = await desk.get("picky")
    assert (view.waiting, view.dropped, view.fired) == (0, 0, 1)
    world.models.let_go.set()
    view = await answered(desk, "picky", 1)
    assert (view.fired, [occurrence.state for occurrence in view.recent]) == (1, ["done"])


async def test_after_an_outage_what_is_not_too_old_takes_place() -> None:
    """Temporal frozen: each occurrence of that time is made good within `catch_up`, or else counted as missed."""
    async with (
        ModelServer(reply=Model().reply, bodies=False) as models,
        standalone.servers() as given,
        standalone.world(given, AGENTS, api_base=models.base_url) as world,
    ):
        await world.worker()
        desk = (await world.client()).schedules
        first = {}
        for name, catch_up in (("patient", "10m"), ("hasty", "10s")):
            made = await desk.create(name, "clerk", "{time}", every="2s", overlap="buffer_all", catch_up=catch_up)
            first[name] = made.next[0]
        await answered(desk, "hasty", 1)
        stack = read_stack(Path(given["folder"]) / "home")
        assert stack is not None
        temporal = psutil.Process(next(each.pid for each in stack.children if each.name == "temporal"))
        temporal.send_signal(signal.SIGSTOP)
        try:
            thaw = datetime.now(UTC) + timedelta(seconds=20)
            await until(lambda: datetime.now(UTC) > thaw, "the outage is over")
        finally:
            temporal.send_signal(signal.SIGCONT)

        async def settled(name: str) -> ScheduleView | None:
            view = await desk.get(name)
            quiet = view.waiting == 0 and all(occurrence.ended_at is not None for occurrence in view.recent)
            return view if quiet else None

        async def caught_up() -> bool:
            with suppress(StackError):  # the server finds itself
                recent = (await desk.get("patient")).recent
                return (await desk.get("hasty")).missed > 0 and recent[-1].scheduled_at > thaw
            return False

        await until(caught_up, "what fell due was looked at")
        for name, start in first.items():
            await desk.pause(name)
            view: ScheduleView = await until(lambda name=name: settled(name), "nothing waits any more")
            due = (view.recent[-1].scheduled_at - start) // timedelta(seconds=2) + 1
            assert (view.fired + view.missed, view.skipped, view.dropped) == (due, 0, 0)
            assert (view.missed == 0) == (name == "patient")
            query = "select count(*)::int as n from threads where thread like $1"
            assert await world.rows(query, f"{name}-%") == [{"n": view.fired}]


async def test_a_question_to_a_thread_without_room_waits_for_room(world: World) -> None:
    """A thousand wait on its thread: the next is not lost, as a program's message would be refused, but asked later."""
    world.models.let_go.clear()
    temporal = await histories.connect(world.settings)
    messages = [Message(message_id=f"m{n}", agent="clerk", text=f"hold {n}") for n in range(inbox.ROOM + 1)]
    full = await temporal.start_workflow(
        AGENT_WORKFLOW,
        ThreadStart(carry=Carry(writer="filled", started=datetime.now(UTC), inbox=messages)),
        id=f"{world.settings.tenant}:full",
        task_queue=world.settings.task_queue,
    )

    async def at_work() -> bool:
        state = await full.query("state", result_type=ThreadState)
        return state.current is not None and len(state.queued) == inbox.ROOM

    await until(at_work, "a thousand wait")
    with pytest.raises(ThreadFull, match="1000 messages are already waiting"):
        await (await world.client()).start("clerk", "and I?", thread="full")
    asked = await temporal.start_workflow(
        ASK_WORKFLOW,
        Ask(agent="clerk", text="and I?", thread="full"),
        id=f"{world.settings.tenant}-no-room",
        task_queue=world.settings.task_queue,
    )

    async def tried_again() -> bool:
        pending = (await asked.describe()).raw_description.pending_activities
        return any(each.attempt > 2 and "messages are already waiting" in each.last_failure.message for each in pending)

    await until(tried_again, "it is asked again")
    await full.terminate("the first of them ends")
    run_id = run_id_for(world.settings.tenant, "full", asked.id)
    await until(lambda: world.rows("select 1 from runs where run_id = $1", run_id), "there was room")
