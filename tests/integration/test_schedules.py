"""Schedules on the real servers: they fire, lose nothing, show what came of it, and refuse what does not fit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from holdfast.errors import InvalidInput, ScheduleExists, ThreadOwned, UnknownAgent, UnknownSchedule
from holdfast.ids import schedule_id_for
from holdfast.schedules import ScheduleDesk, ScheduleView
from tests import histories
from tests.conftest import MakeWorld
from tests.integration._schedules import answered, clerks
from tests.kit import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(make_shared_world: MakeWorld) -> AsyncIterator[World]:
    """Return one world with a worker for all tests of this file."""
    async with clerks(make_shared_world) as world:
        yield world


async def texts(world: World, thread: str) -> list[str]:
    """Return what was said on a thread by whoever asked."""
    rows = await world.rows(
        "select m.body ->> 'content' as text from messages m join threads t on t.id = m.thread_id "
        "where t.thread = $1 and m.role = 'user' order by m.seq",
        thread,
    )
    return [row["text"] for row in rows]


async def test_an_interval_fires_with_a_thread_for_each(world: World, desk: ScheduleDesk) -> None:
    """Each occurrence is a run of its own, told the time it was scheduled for; the list shows outcome and cost."""
    made = await desk.create("often", "clerk", "It is {time:%H:%M:%S}", every="2s", time_zone="Asia/Tokyo", remaining=2)
    assert (made.when, made.time_zone, made.overlap, made.thread) == ("every 2s", "Asia/Tokyo", "buffer_one", None)
    view = await answered(desk, "often", 2)
    assert [occurrence.state for occurrence in view.recent] == ["done", "done"]
    assert view.remaining == 0
    assert view.next == []
    for occurrence in view.recent:
        tokyo = occurrence.scheduled_at + timedelta(hours=9)
        assert occurrence.thread is not None
        assert occurrence.thread == f"often-{occurrence.scheduled_at:%Y%m%dT%H%M%SZ}"
        assert await texts(world, occurrence.thread) == [f"It is {tokyo:%H:%M:%S}"]
        assert occurrence.tokens > 0
        run = await (await world.client()).get(occurrence.run_id or "")
        assert (await run.result(60)).output == f"heard It is {tokyo:%H:%M:%S}"
    temporal = await histories.connect(world.settings)
    described = await temporal.get_workflow_handle(view.recent[0].workflow_id).describe()
    attributes = {pair.key.name: pair.value for pair in described.typed_search_attributes}
    assert (attributes["HoldfastTenant"], attributes["HoldfastAgent"]) == (world.settings.tenant, "clerk")
    timeout = described.raw_description.execution_config.default_workflow_task_timeout
    assert timeout.ToTimedelta() == timedelta(seconds=world.settings.scaled(world.settings.task_timeout))
    listed: list[ScheduleView] = await until(desk.list, "the schedule is listed")
    assert [(view.name, len(view.recent)) for view in listed if view.name == "often"] == [("often", 2)]


async def test_a_schedule_that_fires_while_its_thread_is_busy_loses_nothing(world: World, desk: ScheduleDesk) -> None:
    """Behind a long run on its thread the occurrences wait, and are answered in their order."""
    model = world.models
    model.waiting.clear()
    model.let_go.clear()
    client = await world.client()
    busy = await client.start("clerk", "hold this thread", thread="desk")
    await model.waiting.wait()
    await desk.create("busy", "clerk", "at {time}", every="1s", thread="desk", overlap="buffer_all", remaining=4)

    async def all_due() -> bool:
        return (await desk.get("busy")).waiting >= 3 and len(await client.runs(thread="desk")) > 1

    await until(all_due, "all four fell due, and the first waits on the thread")
    assert not (await busy.status()).ended
    model.let_go.set()
    view = await answered(desk, "busy", 4)
    assert (view.skipped, view.missed) == (0, 0)
    wanted = [f"at {occurrence.scheduled_at.isoformat()}" for occurrence in view.recent]
    assert await texts(world, "desk") == ["hold this thread", *wanted]
    assert wanted == sorted(wanted)


async def test_with_one_buffered_the_rest_is_counted_as_skipped(world: World, desk: ScheduleDesk) -> None:
    """By default one occurrence waits for the one under way; what falls due besides is skipped and shown."""
    model = world.models
    model.waiting.clear()
    model.let_go.clear()
    await desk.create("slow", "clerk", "hold {time}", every="1s", remaining=4)

    async def skipped() -> bool:
        return (await desk.get("slow")).skipped >= 1

    await until(skipped, "one was skipped")
    model.let_go.set()
    view = await answered(desk, "slow", 2)
    assert view.skipped >= 1


async def test_all_may_overlap(world: World, desk: ScheduleDesk) -> None:
    """With `allow_all` nobody waits: each question is sent, its asker ends, the runs go on side by side."""
    model = world.models
    model.waiting.clear()
    model.let_go.clear()
    await desk.create("wide", "clerk", "hold {time}", every="1s", overlap="allow_all", remaining=3)
    client = await world.client()

    async def side_by_side() -> bool:
        return sum(run.state == "running" and run.thread.startswith("wide-") for run in await client.runs()) == 3

    await until(side_by_side, "three runs are under way")
    model.let_go.set()
    await answered(desk, "wide", 3)


async def test_paused_triggered_resumed_changed_and_deleted(world: World, desk: ScheduleDesk) -> None:
    """A person has it in hand, and what a person wrote is shown as it was written."""
    made = await desk.create(
        "report",
        "clerk",
        "Report for {date:%d.%m.%Y}",
        cron="30 6 * * mon-fri",
        time_zone="Europe/Berlin",
        jitter="10m",
        thread="reports",
        end="2101-01-01",
        paused=True,
        note="not yet",
    )
    assert (made.when, made.paused, made.note, made.jitter) == ("30 6 * * mon-fri", True, "not yet", 600)
    assert made.end == datetime(2100, 12, 31, 23, tzinfo=UTC)
    assert made.next == []
    with pytest.raises(ScheduleExists, match="already"):
        await desk.create("report", "clerk", "again", every="1h")
    await desk.trigger("report")
    view = await answered(desk, "report", 1)
    assert view.recent[0].thread == "reports"
    assert (await texts(world, "reports"))[0].startswith("Report for ")
    await desk.resume("report", "go")
    view = await desk.get("report")
    assert (view.paused, view.note, len(view.next)) == (False, "go", 10)
    assert all(moment.weekday() < 5 for moment in view.next)
    view = await desk.update("report", text="Short report", jitter=None, overlap="skip")
    assert (view.when, view.text, view.jitter, view.overlap) == ("30 6 * * mon-fri", "Short report", 0, "skip")
    assert (view.time_zone, view.end) == (made.time_zone, made.end)
    view = await desk.update("report", every=["2h"], calendar={"hour": 7, "day_of_week": "sat,sun"}, thread=None)
    assert (view.when, view.thread) == ("hour=7 day_of_week=sat,sun; every 2h", None)
    assert view.recent[0].state == "done"
    await desk.pause("report", "holidays")
    assert (await desk.get("report")).note == "holidays"
    await desk.delete("report")
    for word in (desk.get, desk.pause, desk.trigger, desk.delete):
        with pytest.raises(UnknownSchedule, match="'report'"):
            await word("report")


async def test_a_backfill_does_what_was_missed_and_nothing_twice(world: World, desk: ScheduleDesk) -> None:
    """Both ends count, each occurrence is told its own time, and a second backfill asks nothing again."""
    await desk.create("daily", "clerk", "for {date}", cron="0 7 * * *", thread="days", paused=True)
    first, last = datetime(2026, 1, 5, 7, tzinfo=UTC), datetime(2026, 1, 7, 7, tzinfo=UTC)
    due = await desk.backfill("daily", first, last)
    assert due == [first, first + timedelta(days=1), last]
    view = await answered(desk, "daily", 3)
    assert await texts(world, "days") == ["for 2026-01-05", "for 2026-01-06", "for 2026-01-07"]
    assert await desk.backfill("daily", "2026-01-05T07:00", last) == due

    async def six() -> bool:
        return (await desk.get("daily")).fired == 6

    await until(six, "the second backfill went through")
    assert len(await texts(world, "days")) == 3
    assert {occurrence.run_id for occurrence in (await desk.get("daily")).recent} == {
        occurrence.run_id for occurrence in view.recent
    }
    with pytest.raises(InvalidInput, match="yet to come"):
        await desk.backfill("daily", first, datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(InvalidInput, match="at once"):
        await desk.backfill("daily", "2020-01-01", "2025-01-01")


async def test_a_failure_pauses_if_it_shall(world: World, desk: ScheduleDesk) -> None:
    """A run that ends without an answer fails its asker, so Temporal pauses the schedule and says why."""
    await desk.create("fragile", "clerk", "fail", every="1h", pause_on_failure=True)
    await desk.trigger("fragile")

    async def paused() -> bool:
        return (await desk.get("fragile")).paused

    await until(paused, "the schedule is paused")
    view = await desk.get("fragile")
    assert view.recent[0].state == "failed"
    assert "refused the request" in (view.recent[0].error or "")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cron": "0 7 * *"}, "4 fields"),
    ({"cron": "61 7 * * *"}, "Temporal does not take"),
    ({"cron": "TZ=Europe/Berlin 0 7 * * *"}, "time_zone"),
    ({"cron": "@every 5m"}, "give it as every"),
    ({}, "say when"),
    ({"every": "soon"}, "length of time"),
    ({"every": "0.1s"}, "at least 1 s"),
    ({"calendar": {"hours": 7}}, "has no hours"),
    ({"calendar": {"hour": 25}}, "within 0 to 23"),
    ({"every": "1h", "time_zone": "Mars/Olympus"}, "no time zone"),
    ({"every": "1h", "time_zone": "../etc"}, "no time zone"),
    ({"every": "1h", "overlap": "never"}, "skip, buffer_one"),
    ({"every": "1h", "catch_up": "1s"}, "at least 10 s"),
    ({"every": "1h", "overlap": "allow_all", "pause_on_failure": True}, "does not go with allow_all"),
    ({"calendar": {"day_of_week": "sat-thu"}}, "within 0 to 7"),
    ({"every": "1h", "remaining": 0}, "at least 1"),
    ({"every": "1h", "start": "2030-01-02", "end": "2030-01-01"}, "ends before"),
    ({"every": "1h", "start": "soon"}, "is no time"),
    ({"every": "1h", "thread": "a b"}, "not allowed"),
    ({"every": "1h", "text": "{now}"}, "{now}"),
    ({"every": "1h", "text": "{time.year}"}, "{time.year}"),
    ({"every": "1h", "text": "{time:%Q}"}, "not known"),
    ({"every": "1h", "text": "{"}, "no template"),
    ({"every": "1h", "text": " "}, "empty"),
    ({"every": "1h", "text": "x" * 20_000}, "at most"),
    ({"every": "1h", "name": "a b"}, "not allowed"),
    ({"every": "1h", "name": "a" * 81}, "at most 80"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=lambda value: str(value)[:40])
async def test_what_does_not_fit_is_refused(desk: ScheduleDesk, given: dict[str, Any], said: str) -> None:
    """Nothing is created, and the message says what was wrong."""
    options: dict[str, Any] = {"name": "wrong", "agent": "clerk", "text": "hello", **given}
    with pytest.raises(InvalidInput) as refused:
        await desk.create(**options)
    assert said in str(refused.value)
    with pytest.raises(UnknownSchedule):
        await desk.get("wrong")


async def test_agents_and_threads_are_looked_at_first(world: World, desk: ScheduleDesk) -> None:
    """An unknown agent, and a thread of another one, are refused when the schedule is made, not when it fires."""
    with pytest.raises(UnknownAgent, match="clerk"):
        await desk.create("wrong", "clerc", "hello", every="1h")
    run = await (await world.client()).start("other", "mine", thread="owned")
    await run.result(60)
    with pytest.raises(ThreadOwned, match="other"):
        await desk.create("wrong", "clerk", "hello", every="1h", thread="owned")


async def test_schedules_of_other_tenants_are_not_seen(world: World, desk: ScheduleDesk) -> None:
    """A name belongs to its tenant: two may have the same."""
    from holdfast import Client

    other = world.settings.model_copy(update={"tenant": f"{world.settings.tenant}-b"})
    await desk.create("same", "clerk", "hello", every="1h", paused=True)
    async with await Client.connect(other) as client:
        await client.schedules.create("same", "clerk", "from b: {schedule}", every="1h", paused=True)
        await client.schedules.trigger("same")
        view = await answered(client.schedules, "same", 1)
        assert view.recent[0].state == "done"
        rows = await world.rows("select tenant from threads where thread = $1", view.recent[0].thread)
        assert rows == [{"tenant": other.tenant}]
        assert schedule_id_for(other.tenant, "same") in view.recent[0].workflow_id

        async def both() -> bool:
            mine, theirs = await desk.list(), await client.schedules.list()
            return "same" in [found.name for found in mine] and [found.name for found in theirs] == ["same"]

        await until(both, "each tenant lists its own")
        await client.schedules.delete("same")


async def test_what_falls_due_while_no_worker_is_there_waits_for_one(world: World, desk: ScheduleDesk) -> None:
    """Its only worker killed, a schedule fires on; an asker that a person ends is shown as lost, the next answers."""
    await desk.create("alone", "clerk", "at {time}", every="1h", overlap="buffer_all")
    world.processes[-1].kill()
    temporal = await histories.connect(world.settings)

    async def last_is(state: str, count: int) -> bool:
        found = (await desk.get("alone")).recent
        return len(found) == count and found[-1].state == state

    await desk.trigger("alone")
    await until(lambda: last_is("accepted", 1), "it was started")
    [first] = (await desk.get("alone")).recent
    await temporal.get_workflow_handle(first.workflow_id).terminate("test")
    await until(lambda: last_is("lost", 1), "the ended one is shown as lost")
    assert first.workflow_id in ((await desk.get("alone")).recent[0].error or "")
    await until(lambda: datetime.now(UTC) > first.scheduled_at + timedelta(seconds=1), "the next second has come")
    await desk.trigger("alone")
    await until(lambda: last_is("accepted", 2), "the second waits for a worker")
    await world.worker()
    view = await answered(desk, "alone", 1)
    assert view.recent[1].state == "done"
