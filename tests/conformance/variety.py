"""How much of everything a drive really had: a drive in which nothing was hit proves nothing. `figures` has these."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from tests.conformance.audit_effects import concerns, frozen_double
from tests.conformance.audit_everyday import SUSPENDED, lost
from tests.conformance.audit_records import REJECTED
from tests.conformance.audit_spending import repeats
from tests.conformance.books import Books, Row, payload

__all__ = ["taken_over", "variety"]

_TEXT, _ARGUMENTS = 2048, 1024  # bytes; longer ones travel by reference
_ROLLED = "workflowExecutionContinuedAsNewEventAttributes"


def variety(books: Books) -> dict[str, int]:
    """Return by name how often it came about."""
    states = Counter(row["state"] for row in books["runs"])
    steered = [row for row in books["runs"] if row["mode"] == "steer"]
    words = Counter(word["word"] for word in books["words"] if word["taken"] or word["word"] == "signal")
    repeated, struck = repeats(books)
    return {
        "kills and freezes that hit a guarded call in flight": sum(_hit(books, fault) for fault in books["faults"]),
        "guarded calls taken over by another worker": sum(1 for _ in taken_over(books)),
        "workflows that rolled over with an approval pending": sum(_rolled_pending(row) for row in books.histories),
        "steering messages that joined a run": sum(row["state"] == "merged" for row in steered),
        "steering messages that came too late": sum(row["state"] != "merged" for row in steered),
        "messages refused: another agent's thread": states["refused"],
        "runs stopped by a person": sum(
            row["state"] == "stopped" and books.stopped(row["run"]) is not None for row in books["runs"]
        ),
        "approvals by update": words["approve"],
        "approvals by signal": words["signal"],
        "approvals with other arguments": words["edit"],
        "rejections": sum(str(slot.said).startswith(REJECTED) for slot in books.slots),
        "questions by AskWorkflow": sum(history["type"] == "AskWorkflow" for history in books.histories),
        "texts by reference": sum(len(sent["text"] or "") > _TEXT for sent in books["sent"]),
        "arguments by reference": sum(len(json.dumps(slot.args)) > _ARGUMENTS for slot in books.slots),
        "results stored whole and passed on in part": sum(slot.blob is not None for slot in books.slots),
        "calls refused by the remote": sum(slot.tool.endswith("_refused") for slot in books.slots),
        "runs over budget": states["over_budget"],
        "runs asked for by other runs": sum(run["parent"] is not None for run in books["runs"]),
        "of these below another one that was asked": sum(run["depth"] > 1 for run in books["runs"]),
        "of these that gave no answer": sum(
            run["parent"] is not None and run["state"] != "done" for run in books["runs"]
        ),
        "of these with a decision of a person": sum(
            books.runs.get(row["run"], {}).get("parent") is not None for row in books["approvals"] if row["decided_at"]
        ),
        "conversations handed over": sum(event["kind"] == "handed_off" for event in books["events"]),
        "questions by a schedule": sum(run["message_id"].startswith("schedule:") for run in books["runs"]),
        "times that a schedule skipped": sum(row["skipped"] for row in books["schedules"]),
        "times that a killed Temporal server dropped": lost(books),
        "calls of MCP servers": sum("__" in slot.tool for slot in books.slots),
        "calls refused because their MCP tool was suspended": sum(SUSPENDED in str(slot.said) for slot in books.slots),
        "model answers bought and not recorded": repeated,
        "faults that fell into a model call": struck,
        "verifiable calls doubled by a frozen process": sum(
            count > 1 and frozen_double(books, key) is not None for key, count in books.by_key.items()
        ),
    }


def _hit(books: Books, fault: Row) -> bool:
    """Whether a worker that it killed or froze had a guarded call in hand."""
    if not fault["pids"] or not ("kill" in fault["kind"] or "SIGSTOP" in fault["kind"]):
        return False
    return any(
        change["state"] == "in_flight"
        and _pid(change) in fault["pids"]
        and change["at"] <= fault["at"] < until
        and concerns(fault, change["tool"])
        for change, until in _spans(books)
    )


def _spans(books: Books) -> Iterator[tuple[Row, datetime]]:
    """Yield each change of a guarded call's row, and when the next one was."""
    last: dict[str, Row] = {}
    for entry in books["ledger"]:
        if entry["class"] == "pure":
            continue
        if entry["key"] in last:
            yield last[entry["key"]], entry["at"]
        last[entry["key"]] = entry


def taken_over(books: Books) -> Iterator[str]:
    """Yield the key of a call each time that another worker goes on with it."""
    last: dict[str, Row] = {}
    for entry in books["ledger"]:
        before, last[entry["key"]] = last.get(entry["key"]), entry
        if before is not None and before["state"] == entry["state"] == "in_flight" and _pid(before) != _pid(entry):
            yield entry["key"]


def _rolled_pending(history: Row) -> bool:
    rolled = history["events"][-1].get(_ROLLED)
    if rolled is None:
        return False
    run = (payload(rolled["input"]).get("carry") or {}).get("current") or {}
    return any(call.get("state") == "approval" for call in run.get("calls") or [])


def _pid(entry: Row) -> int:
    return int(entry["owner"].partition(".")[0])
