"""What is counted of a drive and not judged: faults, calls, what became of each. The auditor and the report use it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tests.conformance.assertions import INTERRUPTED, REJECTED, concerns, frozen_double, orphaned
from tests.conformance.audit_spending import bought_again
from tests.conformance.books import GUARDED, Books, Call, Row, Slot, class_of
from tests.conformance.variety import taken_over, variety

__all__ = ["FATES", "FROZEN", "OPEN", "Figures", "count", "quantile"]

# What can become of a call that a model asked for. Each call has exactly one fate; the last two may not be.
ONCE, FROZEN, REFUSED, REJECTION, INTERRUPTION, ABANDONED, OPEN, TWICE, LOST = FATES = (
    "took effect once",
    "took effect twice: sent by a process frozen beyond lease + settle",
    "no effect: refused, or proved not sent",
    "no effect: rejected by a person",
    "no effect: its run was ended before it was sent",
    "no effect: given up by a person",
    "left in doubt, waits for a person",
    "took effect twice",
    "lost",
)
TAKEN_OVER = ("keyed", "local_tx")  # at once; the other classes wait first
WAITING = ("once", "verifiable")


@dataclass(frozen=True)
class Figures:
    """Numbers of one drive, ready for JSON. Dictionaries are by what their names say; spans are in seconds."""

    faults: dict[str, int]
    runs: dict[str, int]  # by state
    executions: int  # of workflows
    rolled_over: int  # executions that continued as new
    replayed: int  # histories that were replayed and gave the same commands
    replay_hangs: int  # replays that the SDK's replayer did not end in time; each history has two tries
    asked: dict[str, int]  # guarded calls, by class
    fates: dict[str, dict[str, int]]  # of guarded calls, by class
    effects: int
    twice: int  # calls; those doubled by a frozen process are apart, in fates
    lost: int  # calls
    unasked: int  # effects that belong to no call
    doubt_bound: dict[str, int]  # calls sent and not completed when a fault hit their worker or workflow, by class
    in_doubt: dict[str, dict[str, int]]  # calls that ever were, by class, and whether their effect had taken place
    orphaned: int  # of these: not `once`, and their run had been ended
    keyed_repeats: int  # that the remote deduped
    pure_asked: int
    pure_sent: int
    model_calls: int  # answered
    model_repeats: int
    model_again: int  # of these repeats: bought after they had been recorded, excused or not
    audited: int  # decisions and words of a person
    resolved: dict[str, int]  # how calls came out of doubt
    exposed: dict[str, int]  # calls in flight when a fault hit their worker or run, by class: what could go wrong
    taken_over: int  # times that another worker went on with a call
    exits: dict[str, int]  # processes that ended by themselves, starting and serving
    starved_s: float  # in which the machine had no time
    progress_s: dict[str, list[float]]  # from each kill -9 to the next change of each call its worker had in hand
    variety: dict[str, int]  # how much of everything there was, by name


def count(books: Books) -> Figures:
    """Return the figures."""
    asked: Counter[str] = Counter(dict.fromkeys(GUARDED, 0))
    for (_, tool, _), times in books.asked.items():
        if class_of(tool) in GUARDED:
            asked[class_of(tool)] += times
    fates = _fates(books)
    doubts = {entry["key"]: entry for entry in books["ledger"] if entry["state"] == "in_doubt"}
    model = [call for call in books["model_calls"] if not call["fault"]]
    pure = sum(times for (_, tool, _), times in books.by_call.items() if class_of(tool) == "pure")
    return Figures(
        faults=dict(Counter(row["kind"] for row in books["faults"])),
        runs=dict(Counter(row["state"] for row in books["runs"])),
        executions=len(books.histories),
        rolled_over=sum(
            "workflowExecutionContinuedAsNewEventAttributes" in history["events"][-1] for history in books.histories
        ),
        replayed=sum(row["error"] is None for row in books["replays"]),
        replay_hangs=sum(row["hangs"] for row in books["replays"]),
        asked=dict(asked),
        fates=fates,
        effects=sum(books.by_key.values()) - pure,
        twice=sum(each[TWICE] for each in fates.values()) + _doubled_keys(books),
        lost=sum(each[LOST] for each in fates.values()),
        unasked=sum(
            times for call, times in books.by_call.items() if not books.asked[call] and class_of(call[1]) != "pure"
        ),
        doubt_bound=_doubt_bound(books),
        in_doubt=_in_doubt(books, list(doubts.values())),
        orphaned=sum(entry["class"] != "once" and orphaned(books, entry) for entry in doubts.values()),
        keyed_repeats=sum(entry["kind"] != "effect" for entry in books.arrivals),
        pure_asked=sum(times for (_, tool, _), times in books.asked.items() if class_of(tool) == "pure"),
        pure_sent=pure,
        model_calls=len(model),
        model_repeats=len(model) - len({(call["run"], call["round"]) for call in model}),
        model_again=bought_again(books),
        audited=len(books["audit"]),
        resolved=_resolved(books),
        exposed=_exposed(books),
        taken_over=sum(1 for _ in taken_over(books)),
        exits=dict(Counter("serving" if row["serving"] else "starting" for row in books["exits"])),
        starved_s=round(sum((row["until"] - row["at"]).total_seconds() for row in books["starved"]), 1),
        progress_s={", ".join(classes): _progress(books, classes) for classes in (TAKEN_OVER, WAITING)},
        variety=variety(books),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least *share* of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-round(share * 1000) * len(ordered) // 1000) - 1)]


# ---------------------------------------------------------------------------------------- what became of each call


def _fates(books: Books) -> dict[str, dict[str, int]]:
    fates: dict[str, dict[str, int]] = {name: dict.fromkeys(FATES, 0) for name in GUARDED}
    slots: dict[Call, list[Slot]] = defaultdict(list)
    for slot in books.slots:
        slots[slot.call].append(slot)
    rows: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in books.guarded:
        rows[row["run"], row["step_no"], row["tool"]].append(row)
    for call in books.asked:
        if class_of(call[1]) in fates:
            found = [row for slot in slots[call] for row in rows[slot.run, slot.step_no, slot.tool]]
            fates[class_of(call[1])][_fate(books, call, slots[call], found)] += 1
    return fates


def _fate(books: Books, call: Call, slots: Sequence[Slot], rows: Sequence[Row]) -> str:
    times = books.by_call[call] or sum(books.by_key[row["key"]] for row in rows)  # a person may have edited the call
    if times == 1:
        return ONCE
    if times > 1:
        return FROZEN if any(frozen_double(books, row["key"]) is not None for row in rows) else TWICE
    states = {row["state"] for row in rows}
    for state, fate in (("done", LOST), ("in_doubt", OPEN), ("abandoned", ABANDONED), ("failed", REFUSED)):
        if state in states:
            return fate
    said = "".join(slot.said or "" for slot in slots)
    if said.startswith(REJECTED):
        return REJECTION
    if said.startswith(INTERRUPTED):
        return INTERRUPTION
    return LOST  # nobody answered it, or somebody did without a ledger row


def _doubled_keys(books: Books) -> int:
    """Return how many keys took effect for several calls: none of these calls did so twice."""
    calls: dict[str, set[Call]] = defaultdict(set)
    for entry in books.arrivals:
        if entry["kind"] == "effect" and class_of(entry["tool"]) != "pure":
            calls[entry["key"]].add((entry["args"]["run"], entry["tool"], entry["args"]["n"]))
    for note in books["notes"]:
        calls[note["key"]].add((note["run"], "local_note", note["n"]))
    return sum(len(found) > 1 for found in calls.values())


# ---------------------------------------------------------------------------------------- in doubt


def _in_doubt(books: Books, doubts: list[Row]) -> dict[str, dict[str, int]]:
    arrived = {entry["key"] for entry in books.arrivals}
    found = {name: {"took place": 0, "never seen outside": 0} for name in GUARDED}
    for entry in doubts:
        found[entry["class"]]["took place" if entry["key"] in arrived else "never seen outside"] += 1
    return found


def _resolved(books: Books) -> dict[str, int]:
    """Return how calls came out of doubt: by a person's word, or by a late answer of their own."""
    found: Counter[str] = Counter()
    carried = {(row["run"], row["step_no"]) for row in books["audit"] if row["action"] == "resolve" and row["accepted"]}
    for changes in _changes(books).values():
        for change, after in pairwise(changes):
            if change["state"] == "in_doubt" and after["state"] != "in_doubt":
                by = "a person" if (change["run"], change["step_no"]) in carried else "proof that came late"
                found[f"{_SAID.get(after['state'], after['state'])}, by {by}"] += 1
    return dict(found)


_SAID = {"done": "it took place", "retry_ok": "it did not", "abandoned": "given up"}


def _exposed(books: Books) -> dict[str, int]:
    """Return how many calls were in flight, sent or not, when a fault hit their worker or took their run away.

    Only of these can a fault make two, or none; a call that nothing hit is no evidence.
    """
    hit: dict[str, set[str]] = {name: set() for name in GUARDED}
    for key, changes in _changes(books).items():
        for change, after in zip(changes, [*changes[1:], None], strict=True):
            if change["state"] != "in_flight":
                continue
            threads = books.threads_above(change["run"])
            for fault in books["faults"]:
                meant = threads & set(fault["threads"]) or _pid(change) in fault["pids"]
                struck = any(
                    (after is None or at <= after["at"]) and until >= change["at"]
                    for at, until in books.blows(fault, change["run"])
                )
                if meant and struck and concerns(fault, change["tool"]):
                    hit[change["class"]].add(key)
    return {name: len(keys) for name, keys in hit.items()}


def _doubt_bound(books: Books) -> dict[str, int]:
    """Return how many calls were sent and not completed when a fault hit them: no more may ever be in doubt.

    A fault hits a `once` call through its worker or its run. Others come in doubt by the end of their run alone, which
    leaves nobody to look them up or send them again: by a Terminate, or a person's stop.
    """
    hit: dict[str, set[str]] = {name: set() for name in GUARDED}
    for key, changes in _changes(books).items():
        for change, after in zip(changes, [*changes[1:], None], strict=True):
            if change["state"] != "in_flight" or change["sent_at"] is None or change["class"] == "local_tx":
                continue
            over = None if after is None else after["at"]
            if any(at <= (over or at) and until >= change["sent_at"] for at, until in _blows(books, change)):
                hit[change["class"]].add(key)
    return {name: len(keys) for name, keys in hit.items()}


def _blows(books: Books, change: Row) -> Iterator[tuple[datetime, datetime]]:
    """Yield from when to when something struck the worker or the run of a call."""
    threads, stop = books.threads_above(change["run"]), books.stopped(change["run"])
    if stop is not None:
        yield stop["at"], datetime.max.replace(tzinfo=stop["at"].tzinfo)  # nobody tries its calls again
    for fault in books["faults"]:
        if change["class"] != "once" and "Terminate" not in fault["kind"]:
            continue
        if (threads & set(fault["threads"]) or _pid(change) in fault["pids"]) and concerns(fault, change["tool"]):
            yield from books.blows(fault, change["run"])


def _changes(books: Books) -> dict[str, list[Row]]:
    changes: dict[str, list[Row]] = defaultdict(list)
    for entry in books["ledger"]:
        if entry["class"] in GUARDED:
            changes[entry["key"]].append(entry)
    return changes


def _pid(entry: Row) -> int:
    return int(entry["owner"].partition(".")[0])


# ---------------------------------------------------------------------------------------- after a kill


def _progress(books: Books, classes: Sequence[str]) -> list[float]:
    spans: list[float] = []
    kills: list[tuple[datetime, list[int]]] = [
        (fault["at"], fault["pids"])
        for fault in books["faults"]
        if fault["at"] == fault["until"] and fault["pids"] and "MCP" not in fault["kind"]
    ]
    for changes in _changes(books).values():
        for change, after in pairwise(changes):
            if change["class"] not in classes or change["state"] != "in_flight":
                continue
            for at, pids in kills:
                if change["at"] <= at < after["at"] and _pid(change) in pids:
                    spans.append(round((after["at"] - at).total_seconds(), 3))
    return spans
