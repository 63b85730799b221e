"""Creates, shows and changes schedules: `client.schedules`. Temporal keeps them; what came of them is in PostgreSQL."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.workflowservice.v1 import ListScheduleMatchingTimesRequest
from temporalio.client import Client as TemporalClient
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleBackfill,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from typing_extensions import Unpack

from holdfast.contracts import ASK_WORKFLOW, Ask, Recurring
from holdfast.errors import InvalidInput, ScheduleExists, UnknownSchedule
from holdfast.ids import check_part, schedule_id_for
from holdfast.link import Link
from holdfast.memory.database import Connection
from holdfast.schedules.line import insist
from holdfast.schedules.plan import Change, Overlap, asked_of, bound, limit, note_of, policy_of, shape
from holdfast.schedules.recent import occurrences
from holdfast.schedules.times import Calendar, Duration, at, shown, times
from holdfast.schedules.views import ScheduleView
from holdfast.template import check_template

__all__ = ["ScheduleDesk"]

T = TypeVar("T")

_TENANT = SearchAttributeKey.for_keyword("HoldfastTenant")
_AGENT = SearchAttributeKey.for_keyword("HoldfastAgent")
_LONGEST_NAME = 80  # its occurrences' threads and message ids have the time behind it
_AT_ONCE = 10  # schedules looked at side by side
_MOST_BACKFILLED = 1000
_THREADS_KEPT = 5


class ScheduleDesk:
    """The schedules of one tenant."""

    def __init__(self, link: Link, check_agent: Callable[[Connection, str, str], Awaitable[object]]) -> None:
        """Wrap a client's connections; `client.schedules` makes one."""
        self._link = link
        self._check_agent = check_agent

    # ------------------------------------------------------------------------------------ making one

    async def create(
        self,
        name: str,
        agent: str,
        text: str,
        *,
        cron: str | list[str] | None = None,
        every: Duration | list[Duration] | None = None,
        calendar: Calendar | list[Calendar] | None = None,
        offset: Duration | None = None,
        time_zone: str = "UTC",
        jitter: Duration | None = None,
        overlap: Overlap = "buffer_one",
        catch_up: Duration = "1d",
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        remaining: int | None = None,
        thread: str | None = None,
        pause_on_failure: bool = False,
        paused: bool = False,
        note: str | None = None,
    ) -> ScheduleView:
        """Ask an agent again and again.

        Args:
            name: how it is called; 1 to 80 of A-Z a-z 0-9 . _ -
            agent: who is asked.
            text: the message; `{time}`, `{date:%d.%m.%Y}` and `{schedule}` are filled in with the time it was
                scheduled for.
            cron: one or more cron lines, in the time zone.
            every: one or more intervals, counted from 1970.
            calendar: one or more calendars.
            offset: shifts the intervals.
            time_zone: IANA name.
            jitter: each time is put off by a random length up to this one.
            overlap: what an occurrence does while the run of an earlier one is under way.
            catch_up: an occurrence that fell due while no server was there still takes place within this time.
            start: not before; without an offset, in the time zone.
            end: not after.
            remaining: end after so many occurrences.
            thread: one continuing conversation; None: a thread for each occurrence.
            pause_on_failure: pause when a run ends without an answer.
            paused: begin paused.
            note: why it is paused, or any remark.

        Raises:
            InvalidInput: something does not fit; the message says what and what to write.
            UnknownAgent: no worker has loaded an agent of that name.
            ThreadOwned: the thread belongs to another agent.
            ScheduleExists: the name is taken.
            StackError: Temporal does not answer.

        """
        spec = times(cron, every, calendar, offset=offset)
        bound(spec, {"time_zone": time_zone, "jitter": jitter, "start": start, "end": end})
        policy = SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP)
        shape(policy, {"overlap": overlap, "catch_up": catch_up, "pause_on_failure": pause_on_failure})
        state = ScheduleState(paused=paused, note=note_of(note))
        limit(state, remaining)
        ask = self._ask(name, agent, text, thread, time_zone, policy)
        await self._link.read(lambda conn: self._check_agent(conn, agent, thread or ""))
        scheduled = Schedule(self._action(ask), spec, policy, state)
        temporal = await self._temporal()
        tries = 0

        async def make() -> None:
            nonlocal tries
            tries += 1
            try:
                await temporal.create_schedule(self._id(name), scheduled, search_attributes=self._attributes(agent))
            except ScheduleAlreadyRunningError:
                if tries == 1:  # else it is what the try before made, whose answer was lost
                    raise ScheduleExists(
                        f"there is a schedule {name!r} already: `holdfast schedule show {name}`. Change it, delete it, "
                        "or choose another name."
                    ) from None

        await self._insist(name, make)
        return await self.get(name)

    def _ask(self, name: str, agent: str, text: str, thread: str | None, time_zone: str, policy: SchedulePolicy) -> Ask:
        longest = self._link.settings.schedule_text_max
        if not isinstance(text, str) or len(text.encode("utf-8", "replace")) > longest:
            raise InvalidInput(
                f"the text of a schedule has at most {longest:,} bytes: put the rest into the agent's instructions, or "
                "a file that one of its tools can read"
            )
        if "\0" in text:
            raise InvalidInput("the text contains a NUL character")
        check_template(text)
        recurring = Recurring(
            schedule=name, tenant=self._link.tenant, time_zone=time_zone, fail=policy.pause_on_failure
        )
        return Ask(
            agent=agent,
            text=text,
            thread=check_part("thread", thread) if thread is not None else None,
            # It waits as long as the run takes, so that overlap is about runs; nobody waits where all may overlap.
            wait=policy.overlap != ScheduleOverlapPolicy.ALLOW_ALL,
            recurring=recurring,
        )

    def _action(self, ask: Ask) -> ScheduleActionStartWorkflow:
        settings = self._link.settings
        assert ask.recurring is not None
        return ScheduleActionStartWorkflow(
            ASK_WORKFLOW,
            ask,
            id=self._id(ask.recurring.schedule),
            task_queue=settings.task_queue,
            task_timeout=timedelta(seconds=settings.scaled(settings.task_timeout)),
            typed_search_attributes=self._attributes(ask.agent),
            static_summary=f"{ask.recurring.schedule} asks {ask.agent}"[:200],
        )

    def _attributes(self, agent: str) -> TypedSearchAttributes:
        return TypedSearchAttributes(
            [SearchAttributePair(_TENANT, self._link.tenant), SearchAttributePair(_AGENT, agent)]
        )

    # ------------------------------------------------------------------------------------ looking at them

    async def get(self, name: str) -> ScheduleView:
        """Return a schedule with its last occurrences, their runs, and its next times.

        Raises:
            UnknownSchedule: there is none of that name.
            StackError: Temporal or PostgreSQL does not answer.

        """
        handle = await self._handle(name)
        return await self._view(name, await self._insist(name, handle.describe))

    async def list(self) -> list[ScheduleView]:
        """Return the tenant's schedules by name. One that was made a moment ago may be missing still."""
        prefix = self._id("x")[:-1]
        temporal = await self._temporal()

        async def look_up() -> builtins.list[str]:
            listed = await temporal.list_schedules(f"HoldfastTenant = '{self._link.tenant}'")
            return [found.id.removeprefix(prefix) async for found in listed if found.id.startswith(prefix)]

        names = await self._insist("", look_up)
        places = asyncio.Semaphore(_AT_ONCE)

        async def look(name: str) -> ScheduleView | None:
            async with places:
                try:
                    return await self.get(name)
                except UnknownSchedule:  # deleted a moment ago
                    return None

        views = await asyncio.gather(*(look(name) for name in sorted(names)))
        return [view for view in views if view is not None]

    async def _view(self, name: str, described: ScheduleDescription) -> ScheduleView:
        schedule, info = described.schedule, described.info
        ask = await asked_of(schedule)
        spoken = ([ask.thread] if ask.thread is not None else []) + (ask.recurring.earlier if ask.recurring else [])
        seen = schedule.policy.overlap != ScheduleOverlapPolicy.ALLOW_ALL  # of which Temporal keeps no list
        recent = await self._link.read(lambda conn: occurrences(conn, self._link.tenant, name, spoken, seen, info))
        catch_up = schedule.policy.catchup_window
        return ScheduleView(
            name=name,
            agent=ask.agent,
            text=ask.text,
            thread=ask.thread,
            when=shown(schedule.spec),
            time_zone=schedule.spec.time_zone_name or "UTC",
            overlap=schedule.policy.overlap.name.lower(),
            catch_up=catch_up.total_seconds() if catch_up is not None else 365 * 86400.0,
            jitter=schedule.spec.jitter.total_seconds() if schedule.spec.jitter is not None else 0.0,
            start=schedule.spec.start_at,
            end=schedule.spec.end_at,
            remaining=schedule.state.remaining_actions if schedule.state.limited_actions else None,
            pause_on_failure=schedule.policy.pause_on_failure,
            paused=schedule.state.paused,
            note=schedule.state.note,
            fired=info.num_actions,
            skipped=info.num_actions_skipped_overlap,
            missed=info.num_actions_missed_catchup_window,
            dropped=described.raw_description.info.buffer_dropped,
            waiting=described.raw_description.info.buffer_size,
            recent=recent,
            next=[] if schedule.state.paused else list(info.next_action_times),
            created_at=info.created_at,
        )

    # ------------------------------------------------------------------------------------ changing one

    async def update(self, name: str, **changes: Unpack[Change]) -> ScheduleView:
        """Change a schedule; what is not named stays. New times (`cron`, `every`, `calendar`) replace all the old ones.

        Raises:
            As `create`, and UnknownSchedule.

        """
        unknown = set(changes) - set(Change.__annotations__)
        if unknown or not changes:
            known = ", ".join(Change.__annotations__)
            raise InvalidInput(f"say what to change of schedule {name!r}: one or more of {known}")
        handle = await self._handle(name)
        before = await asked_of((await self._insist(name, handle.describe)).schedule)
        agent, thread = changes.get("agent", before.agent), changes.get("thread", before.thread)
        if "agent" in changes or "thread" in changes:
            await self._link.read(lambda conn: self._check_agent(conn, agent, thread or ""))

        async def change(given: ScheduleUpdateInput) -> ScheduleUpdate:
            schedule = given.description.schedule
            return ScheduleUpdate(await self._changed(name, schedule, changes), self._attributes(agent))

        await self._insist(name, lambda: handle.update(change))
        return await self.get(name)

    async def _changed(self, name: str, schedule: Schedule, changes: Change) -> Schedule:
        asked = await asked_of(schedule)
        if any(key in changes for key in ("cron", "every", "calendar")):
            fresh = times(
                changes.get("cron"), changes.get("every"), changes.get("calendar"), offset=changes.get("offset")
            )
            old = schedule.spec
            schedule.spec = fresh
            fresh.start_at, fresh.end_at, fresh.jitter = old.start_at, old.end_at, old.jitter
            fresh.time_zone_name = old.time_zone_name
        elif "offset" in changes:
            raise InvalidInput("offset goes with every: give both")
        bound(schedule.spec, changes)
        shape(schedule.policy, changes)
        if "remaining" in changes:
            limit(schedule.state, changes["remaining"])
        ask = self._ask(
            name,
            changes.get("agent", asked.agent),
            changes.get("text", asked.text),
            changes.get("thread", asked.thread),
            schedule.spec.time_zone_name or "UTC",
            schedule.policy,
        )
        if asked.recurring is not None and ask.recurring is not None:
            left = [asked.thread] if asked.thread is not None and asked.thread != ask.thread else []
            ask.recurring.earlier = [*left, *asked.recurring.earlier][:_THREADS_KEPT]
        action = self._action(ask)
        if "agent" not in changes and isinstance(schedule.action, ScheduleActionStartWorkflow):
            action.task_queue = schedule.action.task_queue  # the agent is known there, and maybe not on our own
        schedule.action = action
        return schedule

    async def pause(self, name: str, note: str | None = None) -> None:
        """Let a schedule fire no more until it is resumed; the note says why."""
        handle = await self._handle(name)
        said = note_of(note) or "paused"
        await self._insist(name, lambda: handle.pause(note=said))

    async def resume(self, name: str, note: str | None = None) -> None:
        """Let a paused schedule go on. What fell due meanwhile does not take place: see `backfill`."""
        handle = await self._handle(name)
        said = note_of(note) or "resumed"
        await self._insist(name, lambda: handle.unpause(note=said))

    async def trigger(self, name: str, overlap: Overlap | None = None) -> None:
        """Let it fire now, also if it is paused. Two within one second are one."""
        handle = await self._handle(name)
        policy = None if overlap is None else policy_of(overlap)
        await self._insist(name, lambda: handle.trigger(overlap=policy), again=False)  # twice would be two

    async def backfill(
        self, name: str, start: datetime | str, end: datetime | str, overlap: Overlap = "buffer_all"
    ) -> builtins.list[datetime]:
        """Let take place what would have from *start* to *end*, both included; return those times.

        Of what took place already nothing is done again: an occurrence is one message, however often it is sent.

        Raises:
            InvalidInput: the times are wrong, lie ahead, or are 1,000 or more.
            UnknownSchedule: there is none of that name.

        """
        handle = await self._handle(name)
        policy = policy_of(overlap)
        time_zone = (await self._insist(name, handle.describe)).schedule.spec.time_zone_name or "UTC"
        first, last = at("start", start, time_zone), at("end", end, time_zone)
        if first is None or last is None or first > last:
            raise InvalidInput("a backfill goes from an earlier time to a later one")
        if last > datetime.now(UTC):
            raise InvalidInput(f"a backfill is for times gone by, and {last.isoformat()} is yet to come")
        span = ScheduleBackfill(first - timedelta(milliseconds=1), last, policy)  # Temporal leaves the beginning out
        due = await self._insist(name, lambda: self._due(self._id(name), span.start_at, span.end_at))
        if len(due) >= _MOST_BACKFILLED:  # Temporal tells no more
            raise InvalidInput(f"that would be {len(due)} occurrences or more, fewer may be at once: take less")
        if due:
            await self._insist(name, lambda: handle.backfill(span))
        return due

    async def _due(self, schedule_id: str, first: datetime, last: datetime) -> builtins.list[datetime]:
        temporal = await self._temporal()
        start, end = Timestamp(), Timestamp()
        start.FromDatetime(first)
        end.FromDatetime(last)
        found = await temporal.workflow_service.list_schedule_matching_times(
            ListScheduleMatchingTimesRequest(
                namespace=temporal.namespace, schedule_id=schedule_id, start_time=start, end_time=end
            )
        )
        return [moment.ToDatetime(tzinfo=UTC) for moment in found.start_time]

    async def delete(self, name: str) -> None:
        """Remove a schedule. Its runs stay, those under way go on."""
        handle = await self._handle(name)
        await self._insist(name, handle.delete)

    # ------------------------------------------------------------------------------------ within

    def _id(self, name: str) -> str:
        if len(name) > _LONGEST_NAME:
            raise InvalidInput(f"schedule {name[:90]!r} is not allowed: a name has at most {_LONGEST_NAME} characters")
        return schedule_id_for(self._link.tenant, name)

    async def _temporal(self) -> TemporalClient:
        return (await self._link.wire()).temporal

    async def _handle(self, name: str) -> ScheduleHandle:
        schedule_id = self._id(name)
        return (await self._temporal()).get_schedule_handle(schedule_id)

    async def _insist(self, name: str, work: Callable[[], Awaitable[T]], *, again: bool = True) -> T:
        return await insist(self._link, name, work, again=again)
