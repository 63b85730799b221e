"""Conversations that a schedule keeps up: made, fired while its thread is busy, read to the last time, deleted."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError, RunEnded, ScheduleExists, UnknownSchedule
from holdfast.schedules.plan import Overlap
from holdfast.schedules.views import ScheduleView
from tests.conformance import sends
from tests.conformance.stage import Stage, now
from tests.kit import until

if TYPE_CHECKING:
    from tests.conformance.subject import Thread

__all__ = ["Recurs", "recur"]

_LEAD = 2.5  # seconds from making a schedule to its start, at most, so that none of its times is lost to a late answer
_NO_MORE = timedelta(seconds=15)  # without any change, after which nothing more will come: the auditor says what lacks
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Recurs:
    """How a schedule asks."""

    times: int
    every: int = 2  # seconds, no less; runs take longer, so it fires while one is under way
    overlap: Overlap = "buffer_all"
    continuing: bool = False  # on one thread, on which a person asks, too; else one for each occurrence


async def recur(stage: Stage, thread: Thread, chance: random.Random, patience: float) -> list[str]:
    """Have one such conversation; return the threads of what has not ended within patience."""
    recurs = thread.kind.recurs
    assert recurs is not None
    # Between two of its times: what is a part of a second is Temporal's own business.
    start = datetime.fromtimestamp(int((now().timestamp() + _LEAD) // recurs.every * recurs.every) + 1, UTC)
    end = start + timedelta(seconds=recurs.every * recurs.times)
    made = await _make(stage, thread, recurs, start, end)
    own: list[Any] = []
    if recurs.continuing:  # a person's own message, so that the thread is busy
        await asyncio.sleep(chance.uniform(0.0, _LEAD + recurs.every))
        (message,) = thread.messages
        own = await sends.by_client(stage, message)
        await _sent(stage, thread, message.name, message.name, own[0].run_id, thread.name)
    seen: dict[str, str] = {}
    counted: tuple[int, ...] = ()
    changed = now()

    async def over() -> bool:
        nonlocal counted, changed
        for row in await stage.rows(_RUNS, f"schedule:{stage.world.settings.tenant}:{thread.name}-%"):
            if row["run_id"] not in seen:
                seen[row["run_id"]] = row["thread"]
                await _sent(stage, thread, row["name"], row["message_id"], row["run_id"], row["thread"])
        if now() < end + timedelta(seconds=1):
            return False
        with suppress(HoldfastError):
            view = await stage.client.schedules.get(thread.name)
            counts = (len(seen), view.fired, view.skipped, view.missed, view.waiting)
            if counts != counted:
                counted, changed = counts, now()
            known = view.fired + view.skipped + view.missed >= _due(start, end, recurs) and len(seen) >= view.fired
            return not view.waiting and (known or now() > changed + _NO_MORE)
        return False

    with suppress(AssertionError):  # the auditor says what is missing
        await until(over, f"{thread.name} has fired to its end", patience=patience)
    unfinished = []
    for run_id, where in {**seen, **{run.run_id: thread.name for run in own}}.items():
        try:
            await (await sends.again(partial(stage.client.get, run_id))).result(timeout=patience)
        except RunEnded:  # the auditor reads how it ended
            pass
        except TimeoutError:
            unfinished.append(where)
    view = await sends.again(lambda: stage.client.schedules.get(thread.name))
    await stage.note(
        "insert into evidence.schedules (name, thread, every, overlap, start_at, end_at, fired, skipped, missed) "
        "values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        (
            *(thread.name, made.thread, recurs.every, recurs.overlap, start, end),
            *(view.fired, view.skipped, view.missed),
        ),
    )
    with suppress(UnknownSchedule):  # deleted by the try before, whose answer was lost
        await sends.again(lambda: stage.client.schedules.delete(thread.name))
    return unfinished


_RUNS = """
select r.run_id::text, r.message_id, t.thread, split_part(m.body->>'content', ' ', 1) as name
from holdfast.runs r join holdfast.threads t on t.id = r.thread_id join holdfast.messages m on m.id = r.message
where r.message_id like $1 order by r.created_at
"""


async def _make(stage: Stage, thread: Thread, recurs: Recurs, start: datetime, end: datetime) -> ScheduleView:
    schedules = stage.client.schedules

    async def make() -> ScheduleView:
        try:
            return await schedules.create(
                thread.name,
                thread.kind.agent,
                f"{thread.name}.{{time:{_STAMP}}}",
                every=timedelta(seconds=recurs.every),
                overlap=recurs.overlap,
                start=start,
                end=end,
                thread=thread.name if recurs.continuing else None,
            )
        except ScheduleExists:  # made by the try before, whose answer was lost
            return await schedules.get(thread.name)

    made: ScheduleView = await sends.again(make)
    return made


async def _sent(stage: Stage, thread: Thread, name: str, message_id: str, run_id: str, where: str) -> None:
    kind = thread.kind
    await stage.note(
        "insert into evidence.sent (name, message_id, thread, kind, run_id, expected, remembers) "
        "values ($1, $2, $3, $4, $5, $6, $7)",
        (name, message_id, where, kind.name, run_id, kind.ends[0], kind.remembers),
    )
    await stage.note("insert into evidence.asked values ($1, $2, $3)", *kind.asked(name))


def _due(start: datetime, end: datetime, recurs: Recurs) -> int:
    """Return how many times there are from start to end, both included."""
    first, last = (moment.astimezone(UTC).timestamp() for moment in (start, end))
    return int(last // recurs.every) - int(-(-first // recurs.every)) + 1
