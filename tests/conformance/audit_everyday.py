"""What must hold of schedules and of MCP servers, (15) (16); `assertions` lists it, the auditor calls it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tests.conformance.books import Books, Row

__all__ = [
    "SUSPENDED",
    "dropped",
    "lost",
    "no_process_is_left",
    "occurrences_are_accounted_for",
    "suspended_tools_are_not_called",
]

SUSPENDED = "is suspended and was not called"

_STAMP, _APPENDED = "%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H:%M:%SZ"  # in names; what Temporal puts behind a workflow's id
_BLOWS = ("Temporal server", "supervisor", "PostgreSQL and Temporal")  # faults that end the Temporal server
_BEFORE, _AFTER = timedelta(seconds=2), timedelta(seconds=5)  # so long a start may be under way, or tried in vain
_MAY_SKIP = ("skip", "buffer_one")


def occurrences_are_accounted_for(books: Books) -> Iterator[str]:
    """Each time of a schedule is one run, in its place and with its time; or was skipped, as its policy says."""
    for schedule in books["schedules"]:
        name, due = schedule["name"], _due(schedule)
        runs = list(_occurrences(books, name))
        for moment, count in Counter(moment for moment, _ in runs).items():
            if moment not in due:
                yield f"{name} asked at {moment}, which is none of its times"
            if count > 1:
                yield f"{name} asked {count} times at {moment}"
        for moment, run in runs:
            if books.names[run["run"]] != f"{name}.{moment:{_STAMP}}":
                yield f"what {name} asked at {moment} reads {books.names[run['run']]}"
            if run["thread"] != (schedule["thread"] or f"{name}-{moment:{_STAMP}}"):
                yield f"what {name} asked at {moment} is on {run['thread']}"
        unsure = len(dropped(books, schedule))
        if abs(schedule["fired"] - len(runs)) > unsure:
            yield f"{name} counts {schedule['fired']} that it asked, and there are {len(runs)} runs"
        lacks = len(due) - len(runs) - schedule["skipped"]
        if 0 < lacks <= unsure:
            books.excuse("time of a schedule that nobody asked at", f"{name}, {lacks}", "a kill of the Temporal server")
        if not 0 <= lacks <= unsure or schedule["missed"]:
            counts = f"{len(runs)} were asked, {schedule['skipped']} skipped, {schedule['missed']} missed"
            yield f"of {len(due)} times of {name} {counts}"
        if schedule["skipped"] and schedule["overlap"] not in _MAY_SKIP:
            yield f"{name} skipped {schedule['skipped']}, and its policy is {schedule['overlap']}"


def dropped(books: Books, schedule: Row) -> list[datetime]:
    """Return the times that a Temporal server which was killed just then may have dropped.

    Its scheduler tries a start again only after certain errors; after others, as when it is shutting down, it goes on
    without a word. Who is killed between a start and its record does not count it.
    """
    blows = [fault for fault in books["faults"] if any(word in fault["kind"] for word in _BLOWS)]
    return [
        moment
        for moment in sorted(_due(schedule))
        if any(fault["at"] - _BEFORE <= moment <= fault["until"] + _AFTER for fault in blows)
    ]


def lost(books: Books) -> int:
    """Return how many times of schedules neither were asked nor skipped."""
    return sum(
        max(0, len(_due(schedule)) - schedule["skipped"] - len(list(_occurrences(books, schedule["name"]))))
        for schedule in books["schedules"]
    )


def _due(schedule: Row) -> set[datetime]:
    every, first, last = (schedule["every"], *(schedule[end].timestamp() for end in ("start_at", "end_at")))
    return {datetime.fromtimestamp(n * every, UTC) for n in range(int(-(-first // every)), int(last // every) + 1)}


def _occurrences(books: Books, name: str) -> Iterator[tuple[datetime, Row]]:
    for run in books["runs"]:
        begin = f"schedule:{run['tenant']}:{name}-"
        if run["message_id"].startswith(begin):
            yield datetime.strptime(run["message_id"].removeprefix(begin), _APPENDED).replace(tzinfo=UTC), run


def suspended_tools_are_not_called(books: Books) -> Iterator[str]:
    """No call of a tool that its server describes otherwise than was accepted reaches the server's outside."""
    for slot in books.slots:
        if SUSPENDED in str(slot.said) and books.by_call[slot.call]:
            yield f"{slot.tool} of {slot.call[0]} round {slot.call[2]} was refused as suspended and took effect"
    for window in books["suspended"]:
        for entry in books.arrivals:
            if entry["tool"] == window["tool"] and _within(entry, window):
                yield f"{entry['tool']} of {entry['args']['run']} took effect while it was suspended"


def _within(entry: Row, window: Row) -> bool:
    return bool(window["at"].timestamp() <= entry["time"] < window["until"].timestamp())


def no_process_is_left(books: Books) -> Iterator[str]:
    """What a worker has started ends with it, also with one that is killed."""
    for row in books["leftovers"]:
        yield f"{row['process']} was left by its worker"
