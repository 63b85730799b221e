"""Wrongs for `audit_everyday`: what may not be so of schedules and of MCP servers."""

from __future__ import annotations

from tests.conformance.audit_everyday import SUSPENDED
from tests.conformance.books import Books, Row
from tests.conformance.doctor import found_by

__all__: list[str] = []  # they are found in `doctor.CHANGES`


def occurrences(books: Books, overlap: str = "buffer_all") -> tuple[Row, list[Row]]:
    """Return a schedule with this policy, and its runs."""
    schedule = next(row for row in books["schedules"] if row["overlap"] == overlap)
    begin = f":{schedule['name']}-"
    return schedule, [run for run in books["runs"] if begin in run["message_id"]]


@found_by("occurrences_are_accounted_for")
def a_time_of_a_schedule_lost(books: Books) -> None:
    schedule, runs = occurrences(books)
    runs[0]["message_id"] = "of somebody else"
    schedule["fired"] -= 1


@found_by("occurrences_are_accounted_for")
def a_time_of_a_schedule_that_left_no_run(books: Books) -> None:
    occurrences(books)[1][0]["message_id"] = "of somebody else"


@found_by("occurrences_are_accounted_for")
def a_time_of_a_schedule_asked_twice(books: Books) -> None:
    schedule, runs = occurrences(books, "skip")
    books["runs"].append({**runs[0], "run": "another", "thread": "another"})
    schedule["fired"] += 1


@found_by("occurrences_are_accounted_for")
def a_time_that_a_schedule_does_not_have(books: Books) -> None:
    run = occurrences(books)[1][0]
    run["message_id"] = f"{run['message_id'][:-20]}1999-01-01T00:00:00Z"


@found_by("occurrences_are_accounted_for")
def a_time_skipped_against_the_policy(books: Books) -> None:
    schedule, runs = occurrences(books)
    runs[0]["message_id"] = "of somebody else"
    schedule["fired"], schedule["skipped"] = schedule["fired"] - 1, schedule["skipped"] + 1


@found_by("occurrences_are_accounted_for")
def a_skipped_time_that_nobody_counts(books: Books) -> None:
    occurrences(books, "skip")[0]["skipped"] -= 1


@found_by("occurrences_are_accounted_for")
def an_occurrence_on_another_thread(books: Books) -> None:
    occurrences(books, "skip")[1][0]["thread"] = "elsewhere"


@found_by("suspended_tools_are_not_called")
def a_call_refused_and_made(books: Books) -> None:
    slot = next(slot for slot in books.slots if SUSPENDED in str(slot.said))
    run, tool, n = slot.call
    entry = next(entry for entry in books.arrivals if entry["kind"] == "effect")
    books.arrivals.append({**entry, "tool": tool, "key": f"{tool}:{run}:{n}", "args": {"run": run, "n": n}})


@found_by("suspended_tools_are_not_called")
def a_call_made_while_suspended(books: Books) -> None:
    window = books["suspended"][0]
    entry = next(entry for entry in books.arrivals if entry["kind"] == "effect")
    books.arrivals.append({**entry, "tool": window["tool"], "time": window["until"].timestamp() - 0.1})


@found_by("no_process_is_left")
def a_server_left_by_its_worker(books: Books) -> None:
    books["leftovers"].append({"process": "server 4711"})
