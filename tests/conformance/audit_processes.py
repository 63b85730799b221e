"""What must hold of the product's own processes, (17) (18); `assertions` lists it, the auditor calls it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from tests.conformance.books import SCALE, Books, Row

__all__ = ["exits_have_a_cause", "nothing_is_unfinished"]

# Faults that take a server away, by words of their names: a process that starts meanwhile ends, and is started again.
_SERVERS = ("PostgreSQL", "pg_ctl", "Temporal", "supervisor")
_NOTICED = timedelta(seconds=20 * SCALE)  # after a server came back: a start waits for each of two for up to 10 s
_GIVES_UP = 3  # the exit code by which a process says that its configuration is wrong: a supervisor starts no other


def exits_have_a_cause(books: Books) -> Iterator[str]:
    """No process ends by itself, unless a server that it needs was away; none by a signal or for its configuration."""
    for row in books["exits"]:
        about = f"{row['role']} process {row['pid']}, {'serving' if row['serving'] else 'starting'}, code {row['code']}"
        cause = _cause(books, row)
        if row["code"] < 0 or row["code"] == _GIVES_UP:
            yield f"{about}: {row['word']}"
        elif cause is None:
            yield f"{about} at {row['at']}, and every server was there: {row['word']}"
        else:
            books.excuse(f"process ended by itself, {'serving' if row['serving'] else 'starting'}", about, cause)


def _cause(books: Books, row: Row) -> str | None:
    for fault in books["faults"]:
        hits = not fault["threads"] and any(word in fault["kind"] for word in _SERVERS)
        if hits and fault["at"] <= row["at"] <= fault["until"] + _NOTICED:
            return str(fault["kind"])
    return None


def nothing_is_unfinished(books: Books) -> Iterator[str]:
    """Each run that a client waited for came to its end while the client was patient."""
    for row in books["unfinished"]:
        yield f"the run on {row['thread']} had not ended when patience had"
