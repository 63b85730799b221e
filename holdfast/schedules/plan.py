"""What people may say of a schedule besides its times, checked and put into Temporal's form. Only the desk calls it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict

from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
)

from holdfast.contracts import Ask
from holdfast.convert import data_converter
from holdfast.errors import InvalidInput
from holdfast.schedules.times import Calendar, Duration, at, duration
from holdfast.template import zone

__all__ = ["Change", "Overlap", "asked_of", "bound", "limit", "note_of", "policy_of", "shape"]

Overlap = Literal["skip", "buffer_one", "buffer_all", "allow_all"]
"""What one does while the run of an earlier one is under way: not happen, wait (one, or all), start beside it."""

_POLICIES: dict[str, ScheduleOverlapPolicy] = {
    "skip": ScheduleOverlapPolicy.SKIP,
    "buffer_one": ScheduleOverlapPolicy.BUFFER_ONE,
    "buffer_all": ScheduleOverlapPolicy.BUFFER_ALL,
    "allow_all": ScheduleOverlapPolicy.ALLOW_ALL,
}
_LONGEST_NOTE = 500
_LEAST_CATCH_UP = 10.0  # seconds; Temporal's own


class Change(TypedDict, total=False):
    """What can be changed of a schedule; the meanings are those of `ScheduleDesk.create`."""

    agent: str
    text: str
    cron: str | list[str]
    every: Duration | list[Duration]
    calendar: Calendar | list[Calendar]
    offset: Duration | None
    time_zone: str
    jitter: Duration | None
    overlap: Overlap
    catch_up: Duration
    start: datetime | str | None
    end: datetime | str | None
    remaining: int | None
    thread: str | None
    pause_on_failure: bool


async def asked_of(schedule: Schedule) -> Ask:
    """Return the question of a schedule.

    Raises:
        InvalidInput: it asks none; somebody else made it.

    """
    action = schedule.action
    if not isinstance(action, ScheduleActionStartWorkflow):
        raise InvalidInput("this schedule was not made by Holdfast: it starts no AskWorkflow")
    if action.args and isinstance(action.args[0], Ask):
        return action.args[0]
    [ask] = await data_converter.decode(action.args, [Ask])
    assert isinstance(ask, Ask)
    return ask


def policy_of(overlap: Any) -> ScheduleOverlapPolicy:
    """Return the policy of that name, or raise InvalidInput."""
    if overlap not in _POLICIES:
        raise InvalidInput(f"overlap {overlap!r:.40} is not known: use one of {', '.join(_POLICIES)}")
    return _POLICIES[overlap]


def bound(spec: ScheduleSpec, given: Change) -> None:
    """Put time zone, jitter, start and end into *spec*, those that are given, or raise InvalidInput."""
    if "time_zone" in given:
        zone(given["time_zone"])
        spec.time_zone_name = given["time_zone"]
    local = spec.time_zone_name or "UTC"
    if "jitter" in given:
        jitter = given["jitter"]
        spec.jitter = None if jitter is None else duration("jitter", jitter, least=0)
    if "start" in given:
        spec.start_at = at("start", given["start"], local)
    if "end" in given:
        spec.end_at = at("end", given["end"], local)
    if spec.start_at is not None and spec.end_at is not None and spec.start_at >= spec.end_at:
        raise InvalidInput("it ends before it starts")


def shape(policy: SchedulePolicy, given: Change) -> None:
    """Put overlap, catch-up and what a failure does into *policy*, those that are given, or raise InvalidInput."""
    if "overlap" in given:
        policy.overlap = policy_of(given["overlap"])
    if "catch_up" in given:
        policy.catchup_window = duration("catch_up", given["catch_up"], least=_LEAST_CATCH_UP)
    if "pause_on_failure" in given:
        policy.pause_on_failure = bool(given["pause_on_failure"])
    if policy.pause_on_failure and policy.overlap == ScheduleOverlapPolicy.ALLOW_ALL:
        raise InvalidInput(
            "pause_on_failure does not go with allow_all, where nobody waits to hear how a run ends: use skip, "
            "buffer_one or buffer_all"
        )


def limit(state: ScheduleState, remaining: int | None) -> None:
    """Let it end after so many occurrences, or raise InvalidInput."""
    if remaining is not None and (isinstance(remaining, bool) or not isinstance(remaining, int) or remaining < 1):
        raise InvalidInput(f"remaining is {remaining!r:.40}: use a number of at least 1, or None for no end")
    state.limited_actions, state.remaining_actions = remaining is not None, remaining or 0


def note_of(note: str | None) -> str | None:
    """Return a note, or raise InvalidInput if it is too long."""
    if note is not None and len(note) > _LONGEST_NOTE:
        raise InvalidInput(f"the note has {len(note)} characters; give it in at most {_LONGEST_NOTE}")
    return note
