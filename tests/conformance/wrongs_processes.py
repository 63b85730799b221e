"""Wrongs for `audit_processes`: what may not be so of the product's own processes."""

from __future__ import annotations

from datetime import timedelta

from tests.conformance.books import Books, Row
from tests.conformance.doctor import found_by

__all__: list[str] = []  # they are found in `doctor.CHANGES`


def _ends(books: Books, *, code: int, after: float = 1.0) -> None:
    """Have a process end so many seconds after a server was away."""
    at = books["ledger"][0]["at"]
    gone: Row = {"kind": "PostgreSQL gone", "at": at, "until": at, "pids": [], "threads": [], "note": ""}
    books["faults"].append(gone)
    row = {"at": at + timedelta(seconds=after), "pid": 1, "role": "agents", "serving": False}
    books["exits"].append({**row, "code": code, "word": "a last word"})


@found_by("exits_have_a_cause")
def a_worker_that_ended_for_no_reason(books: Books) -> None:
    _ends(books, code=1, after=3600.0)


@found_by("exits_have_a_cause")
def a_worker_that_crashed_while_a_server_was_away(books: Books) -> None:
    _ends(books, code=-11)


@found_by("exits_have_a_cause")
def a_worker_that_nobody_would_start_again(books: Books) -> None:
    _ends(books, code=3)


@found_by("nothing_is_unfinished")
def a_run_that_nobody_saw_end(books: Books) -> None:
    books["unfinished"].append({"thread": "fan-001"})
