"""What must hold of effects and of the ledger's rows, (1) (2) (3) (6); `assertions` lists it, the auditor calls it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.books import LEASE, SCALE, Books, Row, class_of

__all__ = [
    "at_most_one_effect",
    "completed_has_its_effect",
    "concerns",
    "doubts_have_a_cause",
    "fences_never_fall",
    "frozen_double",
    "given_up_has_none",
    "orphaned",
    "rows_change_lawfully",
]

WAKES = 5.0 * SCALE  # seconds after a process woke in which it sends what it was about to send

# The ledger's states, and what may follow each without and with a claim. None: the row is new.
_LAWFUL = {
    None: {"in_flight"},
    "in_flight": {"in_flight", "done", "failed", "in_doubt"},
    "failed": {"in_flight"},
    "in_doubt": {"done", "failed", "retry_ok", "abandoned"},  # done, failed: late proof by the owner
    "retry_ok": {"in_flight"},
    "done": set(),
    "abandoned": set(),
}


def frozen_double(books: Books, key: str) -> Row | None:
    """Return the fault by which docs/howto/effects.md allows this repeat, if it does: each such fault allows one.

    Of a `verifiable` call: a sender of it was frozen with the call in hand, for longer than lease + settle, and its
    request arrived when it woke.
    """
    row = next((row for row in books.guarded if row["key"] == key), None)
    if row is None or row["class"] != "verifiable":
        return None
    arrived = [entry for entry in books.arrivals if entry["key"] == key]
    found = [
        fault
        for fault in books["faults"]
        if "SIGSTOP" in fault["kind"]
        and (fault["until"] - fault["at"]).total_seconds() > LEASE + row["settles"]
        and any(
            int(entry["pid"] or 0) in fault["pids"] and 0 <= entry["time"] - fault["until"].timestamp() <= WAKES
            for entry in arrived
        )
    ]
    return found[0] if found and books.by_key[key] <= 1 + len(found) else None


def orphaned(books: Books, entry: Row) -> bool:
    """Whether a call is in doubt because its run was ended: nobody is left to try or to look it up again.

    A Terminate does so, and a person's stop. The bound of the suite is `once` alone, so these are counted apart.
    """
    threads, stop = books.threads_above(entry["run"]), books.stopped(entry["run"])
    return str(entry["error"]).startswith("its run ended") and (
        (stop is not None and stop["at"] <= entry["at"])
        or any(
            "Terminate" in fault["kind"] and threads & set(fault["threads"]) and fault["at"] <= entry["at"]
            for fault in books["faults"]
        )
    )


def concerns(fault: Row, tool: str) -> bool:
    """Whether a fault can harm calls of this tool: that of an MCP server harms no others."""
    return "MCP" not in fault["kind"] or "__" in tool


def at_most_one_effect(books: Books) -> Iterator[str]:
    """No effect twice."""
    excused = set[str]()
    for key, count in books.by_key.items():
        fault = frozen_double(books, key) if count > 1 else None
        if fault is not None:
            excused.add(key)
            books.excuse("`verifiable` call that took effect twice", key, str(fault["kind"]))
    calls = {
        slot.call
        for row in books.guarded
        if row["key"] in excused
        for slot in books.by_step[row["run"], row["step_no"], row["tool"]]
    }
    pure = {entry["key"] for entry in books.arrivals if class_of(entry["tool"]) == "pure"}
    for key, count in books.by_key.items():
        if count > 1 and key not in pure | excused:
            yield f"key {key} took effect {count} times"
    for call, count in books.by_call.items():
        run, tool, n = call
        if count > 1 and class_of(tool) != "pure" and call not in calls:
            yield f"{tool} of {run} round {n} took effect {count} times"


def completed_has_its_effect(books: Books) -> Iterator[str]:
    """What is done took effect once, and nothing took effect that is not in the ledger."""
    for row in books.guarded:
        if row["state"] == "done" and books.by_key[row["key"]] == 0:
            yield f"{books.about(row)} is done and never took effect: lost"
    known = {row["key"] for row in books["effects"]}
    for entry in books.arrivals:
        if entry["key"] not in known and class_of(entry["tool"]) != "pure":
            yield f"{entry['tool']} of {entry['args']['run']} took effect under a key that no ledger row has"
    for note in books["notes"]:
        if note["key"] not in known:
            yield f"local_note of {note['run']} took effect under a key that no ledger row has"
    for call in books.by_call.keys() - books.asked.keys():
        yield f"{call} took effect and nobody asked for it"


def given_up_has_none(books: Books) -> Iterator[str]:
    """What failed took none; nothing is left open without a reason."""
    ended = {row["run"] for row in books["runs"] if row["ended_at"] is not None}
    for row in books.guarded:
        count, state = books.by_key[row["key"]], row["state"]
        if state in ("failed", "retry_ok") and count:
            yield f"{books.about(row)} ended as {state} and took effect {count} times"
        if state == "in_flight" or (state in ("retry_ok", "failed") and not row["result"] and row["run"] not in ended):
            yield f"{books.about(row)} is left {state}"
        if state in ("failed", "in_doubt", "abandoned") and not row["error"]:
            yield f"{books.about(row)} is {state} without a reason"
        if state == "in_doubt":
            yield f"{books.about(row)} is left in doubt: {row['error']}"


def doubts_have_a_cause(books: Books) -> Iterator[str]:
    """In doubt only what was sent and not completed when a fault or a stop hit its worker or its run."""
    done: set[str] = set()
    for entry in books["ledger"]:
        if entry["state"] in ("done", "failed", "abandoned"):
            done.add(entry["key"])
        if entry["state"] == "in_flight":  # taken up again: after a try that was proved not to have been sent
            done.discard(entry["key"])
        if entry["state"] != "in_doubt":
            continue
        about = books.about(entry)
        if entry["class"] != "once" and not orphaned(books, entry):
            yield f"{about} was in doubt though it is {entry['class']}: {entry['error']}"
        cause = None if entry["sent_at"] is None else _struck(books, entry)
        if entry["sent_at"] is None or entry["key"] in done:
            yield f"{about} was in doubt though it was never sent, or had ended"
        elif cause is not None:
            books.excuse(f"`{entry['class']}` call in doubt", entry["key"], cause)
        else:
            yield f"{about} was in doubt though nothing hit its worker or its run meanwhile: {entry['error']}"


def _struck(books: Books, entry: Row) -> str | None:
    """Return what hit the worker or the run of a call that was sent and not completed."""
    pid, threads, stop = _pid(entry), books.threads_above(entry["run"]), books.stopped(entry["run"])
    found = [
        fault
        for fault in books["faults"]
        if (pid in fault["pids"] or threads & set(fault["threads"]))
        and concerns(fault, entry["tool"])
        and any(at <= entry["at"] and until >= entry["sent_at"] for at, until in books.blows(fault, entry["run"]))
    ]
    stopped = stop is not None and stop["at"] <= entry["at"]
    if stopped and (entry["class"] != "once" or not found):
        return "a person's stop"
    kinds = [str(fault["kind"]) for fault in sorted(found, key=lambda fault: fault["at"], reverse=True)]
    # Of other classes a fault of the worker alone brings no call in doubt: their run was ended.
    return min(kinds, key=lambda kind: entry["class"] != "once" and "Terminate" not in kind, default=None)


def fences_never_fall(books: Books) -> Iterator[str]:
    """A fence never falls, and rises by one with each claim."""
    last: dict[str, Row] = {}
    for entry in books["ledger"]:
        before, last[entry["key"]] = last.get(entry["key"]), entry
        if entry["class"] == "pure":
            continue
        about = f"the fence of {books.about(entry)}"
        if before is None:
            if entry["fence"] != 1:
                yield f"{about} begins at {entry['fence']}"
        elif entry["fence"] < before["fence"]:
            yield f"{about} fell from {before['fence']} to {entry['fence']}"
        elif (entry["fence"] == before["fence"] + 1) != (entry["owner"] != before["owner"]):
            yield f"{about} went from {before['fence']} to {entry['fence']}, from {before['owner']} to {entry['owner']}"
    for row in books.guarded:
        noted = last.get(row["key"])
        if noted is None or (noted["fence"], noted["state"]) != (row["fence"], row["state"]):
            yield f"{books.about(row)} is not as it was last seen to change"


def rows_change_lawfully(books: Books) -> Iterator[str]:
    """A row goes from state to state as `_LAWFUL` has them, and what has ended stays so."""
    last: dict[str, Row] = {}
    refused: set[str] = set()  # calls in doubt whose owner proved at last that nothing took effect: that is final
    for entry in books["ledger"]:
        before, last[entry["key"]] = last.get(entry["key"]), entry
        if entry["class"] == "pure":
            continue
        state = None if before is None else before["state"]
        if (state, entry["state"]) == ("in_doubt", "failed"):
            refused.add(entry["key"])
        elif entry["key"] in refused:
            yield f"{books.about(entry)} was tried again after late proof that it had failed"
        if entry["state"] not in _LAWFUL[state]:
            yield f"{books.about(entry)} went from {state} to {entry['state']}"
        elif state in ("failed", "retry_ok") and before is not None and entry["fence"] == before["fence"]:
            yield f"{books.about(entry)} was taken up again after {state} without a claim"


def _pid(entry: Row) -> int:
    return int(entry["owner"].partition(".")[0])
