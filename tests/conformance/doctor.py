"""Tools for changes to good books, each a wrong that one assertion of the auditor must report: for `wrongs_*`.

A change is a function that alters books in place, named for what it does, and says by which assertion it must be found.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from datetime import timedelta

from tests.conformance.books import Books, Row

__all__ = ["CHANGES", "SECOND", "Change", "body_of", "found_by", "one", "packed", "replies", "sent_once", "slot"]

Change = Callable[[Books], None]

CHANGES: dict[str, list[Change]] = {}  # by the name of the assertion

SECOND = timedelta(seconds=1)


def found_by(assertion: str) -> Callable[[Change], Change]:
    """Enter a change under the assertion that must report it."""

    def enter(change: Change) -> Change:
        CHANGES.setdefault(assertion, []).append(change)
        return change

    return enter


def one(rows: Iterable[Row], **like: object) -> Row:
    """Return the first row that has these values."""
    return next(row for row in rows if all(row[name] == value for name, value in like.items()))


def sent_once(books: Books, effect: str = "once") -> tuple[Row, Row]:
    """Return a ledger row of this class that is done, and its one arrival."""
    keys = {entry["key"]: entry for entry in books.arrivals if entry["kind"] == "effect"}
    row = next(row for row in books.guarded if row["class"] == effect and row["key"] in keys and row["state"] == "done")
    return row, keys[row["key"]]


def replies(books: Books) -> list[Row]:
    """Return the model's ledger rows."""
    return [row for row in books["effects"] if row["tool"] == "model"]


def body_of(message: Row, **changed: object) -> None:
    """Change fields of a message's body."""
    message["body"] = json.dumps({**json.loads(message["body"]), **changed})


def slot(books: Books, tool: str = "once_") -> Row:
    """Return the message with the result of a call of such a tool that is done, and that nobody had to allow."""
    found = next(
        slot
        for slot in books.slots
        if slot.tool.startswith(tool) and slot.tool != "once_approved" and str(slot.said).startswith(slot.tool)
    )
    return one(books["messages"], thread=found.thread, seq=found.seq)


def packed(value: Row) -> Row:
    """Return a payload as a history has it."""
    return {"payloads": [{"data": base64.b64encode(json.dumps(value).encode()).decode()}]}
