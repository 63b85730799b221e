"""What must hold of agents that ask one another, and of hand-offs, (13) (14); `assertions` lists it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from tests.conformance.audit_records import INTERRUPTED
from tests.conformance.audit_runs import OPEN, answer, ended
from tests.conformance.books import SCALE, Books, Row, Slot

__all__ = [
    "children_are_accounted_for",
    "hand_offs_are_whole",
    "nobody_works_for_who_has_ended",
    "records_name_children",
    "trees_keep_their_budget",
]

# Seconds from the last look at whether a model may be called to the call: with nothing against it, milliseconds.
_A_MOMENT = timedelta(seconds=2 * SCALE)
_HELD_UP = timedelta(seconds=30)  # at most, between that look and the call
_HANDED = "The conversation is handed over"


def children_are_accounted_for(books: Books) -> Iterator[str]:
    """Another agent that is asked has one run, bound to the step that asks, and who asks reads how it ended."""
    expected = {row["name"]: row for row in books["offspring"]}
    times = Counter(books.names[run["run"]] for run in _children(books))
    keys = {(row["run"], row["step_no"]): row for row in books["effects"]}
    for run in _children(books):
        name = books.names[run["run"]]
        if name not in expected or books.names.get(run["parent"]) != name.rpartition("/")[0]:
            yield f"{name} was asked by nobody"
            continue
        if times[name] > 1:
            yield f"{name} was asked {times[name]} times"
        if run["agent"] != expected[name]["agent"]:
            yield f"{name} was asked of {run['agent']} instead of {expected[name]['agent']}"
        step = keys.get((run["parent"], run["parent_step"]))
        if step is not None and step["key"] != run["message_id"]:
            yield f"{name} is not named for the step that asks for it"
        if run["scope"] != run["message_id"] and run["state"] != "refused":
            yield f"{name} has the scope {run['scope']}, which is not the step that asks for it"
        if run["state"] not in expected[name]["expected"].split("|"):
            because = _excused(books, run)
            if because is None:
                yield f"{name} is {run['state']} instead of {expected[name]['expected']}: {run['error']}"
                continue
            books.excuse(f"run that is stopped instead of {expected[name]['expected']}", run["run"], because)
        if run["state"] not in OPEN:
            yield from ended(books, run)
    for row in books["effects"]:
        run = books.runs.get(row["run"], {})
        if run.get("parent") and row["scope"] != f"{run['tenant']}:{run['thread']}@{run['scope']}":
            yield f"{books.about(row)} has the scope {row['scope']}, which is not that of its thread"
    for slot in _questions(books):
        child, said = books.named.get(slot.call[1]), str(slot.said)
        if child is None:
            fits = "it had not begun" in said
        elif child["state"] == "done":
            fits = said == answer(books, child)
        else:
            fits = said.startswith("error: ") and f"its run is {child['state']}" in said
        if not fits:
            yield f"who asked for {slot.call[1]} reads {said[:80]!r}, its run is {child and child['state']}"


def _children(books: Books) -> list[Row]:
    return [run for run in books["runs"] if run["parent"] is not None]


def _questions(books: Books) -> list[Slot]:
    """Return the calls of other agents that were answered."""
    return [slot for slot in books.slots if "message" in slot.args and not str(slot.said).startswith(INTERRUPTED)]


def _excused(books: Books, run: Row) -> str | None:
    """Return why a run may have been stopped, if it was."""
    if run["state"] != "stopped":
        return None
    if books.ended_in_temporal(run["run"]):
        return "Terminate through Temporal"
    return "a person's stop" if books.stopped(run["run"]) is not None else None


def records_name_children(books: Books) -> Iterator[str]:
    """The record of a run says once of each that it asked that it began, and how it ended."""
    begun: Counter[tuple[str, int, str, str]] = Counter()
    over: Counter[tuple[str, int, str]] = Counter()
    for event in books["events"]:
        if event["kind"] in ("child_started", "child_ended"):
            data = json.loads(event["data"])
            if event["kind"] == "child_started":
                begun[event["run"], data["step"], data["run_id"], data["thread"]] += 1
            else:
                over[event["run"], data["step"], data["state"]] += 1
    for run in _children(books):
        count = begun.pop((run["parent"], run["parent_step"], run["run"], run["thread"]), 0)
        if count != int(run["state"] != "refused"):
            yield f"the record of who asked for {books.names[run['run']]} says {count} times that it began"
    for where in begun:
        yield f"the record of {books.names.get(where[0])} says that {where[2]} began, which it did not ask for"
    for slot in _questions(books):
        child = books.named.get(slot.call[1])
        states = {state: count for (run, step, state), count in over.items() if (run, step) == (slot.run, slot.step_no)}
        if sum(states.values()) != 1 or (child is not None and set(states) != {child["state"]}):
            yield f"the record of who asked for {slot.call[1]} says of its end: {states or 'nothing'}"


def nobody_works_for_who_has_ended(books: Books) -> Iterator[str]:
    """When a run has ended, all that it asked ends too: no model is called for it any more."""
    called: dict[str, list[datetime]] = {}
    for call in books["model_calls"]:
        if not call["fault"]:
            called.setdefault(call["run"], []).append(call["at"])
    for run in _children(books):
        for above in list(books.upward(run["run"]))[1:]:
            over = books.runs[above]["ended_at"]
            if over is None:
                continue
            if run["state"] in OPEN:
                yield f"{books.names[run['run']]} is {run['state']}, and {books.names[above]} has ended"
            for at in called.get(books.names[run["run"]], []):
                if at > over + _A_MOMENT and not _held_up(books, over, at):
                    yield f"a model was called at {at} for {books.names[run['run']]}; {books.names[above]} ended {over}"


def _held_up(books: Books, since: datetime, at: datetime) -> bool:
    """Whether who looked before *since* may come to act as late as *at*: frozen in between, or with no time."""
    kinds = [
        str(fault["kind"])
        for fault in books["faults"]
        if "SIGSTOP" in fault["kind"] and fault["at"] <= at and fault["until"] >= since
    ]
    if any(row["at"] <= at and row["until"] + _A_MOMENT >= since for row in books["starved"]):
        kinds.append("the machine had no time")
    if kinds and at - since < _HELD_UP:
        books.excuse("model called late, by one who had looked before", f"{since} {at}", kinds[0])
        return True
    return False


def trees_keep_their_budget(books: Books) -> Iterator[str]:
    """What a tree of runs has spent is the sum of its runs, and no model is called once that is the limit of any."""
    below: dict[str, list[Row]] = {run["run"]: [] for run in books["runs"]}
    for run in _children(books):
        for above in list(books.upward(run["run"]))[1:]:
            below[above].append(run)
    bought = _bought(books)
    for top, others in below.items():
        run, name = books.runs[top], books.names[top]
        total = sum(other["tokens"] for other in others)
        if run["tokens_below"] != total:
            yield f"{name} counts {run['tokens_below']} tokens below it, and its runs have used {total}"
        limit = (json.loads(run["budget"] or "null") or {}).get("tokens")
        if limit is None or not others:
            continue
        tree = {top, *(other["run"] for other in others)}
        spent = sorted((at, tokens) for each in tree for at, tokens in bought.get(each, []))
        names = {books.names[each] for each in tree}
        for call in books["model_calls"]:
            if call["fault"] or call["run"] not in names:
                continue
            until = [at for at, _ in spent if at < call["at"] - _A_MOMENT]
            if sum(tokens for _, tokens in spent[: len(until)]) >= limit and not _held_up(books, until[-1], call["at"]):
                yield f"{call['run']} called a model at {call['at']}, when all {limit} tokens of {name} were used"


def _bought(books: Books) -> dict[str, list[tuple[datetime, int]]]:
    """Return by run when what was bought was recorded, and its tokens."""
    found: dict[str, list[tuple[datetime, int]]] = {}
    for row in books["effects"]:
        if row["tool"] == "model" and row["result"]:
            found.setdefault(row["run"], []).append((row["created_at"], json.loads(row["result"]).get("tokens", 0)))
    return found


def hand_offs_are_whole(books: Books) -> Iterator[str]:
    """A conversation is handed over once: until then one agent speaks in the run, from then on the other."""
    handed: dict[str, list[Row]] = {}
    for event in books["events"]:
        if event["kind"] == "handed_off":
            handed.setdefault(event["run"], []).append(json.loads(event["data"]))
    at_round: dict[str, int] = {}
    for slot in books.slots:
        if slot.tool.startswith("hand_off_to_") and str(slot.said).startswith(_HANDED):
            at_round[slot.run] = int(slot.call[2])
            times = len(handed.get(slot.run, []))
            if times != 1:
                yield f"{books.names.get(slot.run)} was handed over, and its record says so {times} times"
    for run_id, moves in handed.items():
        run, name = books.runs.get(run_id, {}), books.names.get(run_id)
        if run_id not in at_round:
            yield f"the record of {name} says that it was handed over, and its thread does not"
        other = moves[-1]["agent"]
        if {run.get("agent"), run.get("owner")} != {other}:
            yield f"{name} was handed over to {other}, is {run.get('agent')}'s, and its thread {run.get('owner')}'s"
    for call in books["model_calls"]:
        of = books.named.get(call["run"])
        if of is None or call["agent"] is None:
            continue
        of = books.runs.get(of["merged_into"] or "", of)
        moved = handed.get(of["run"])
        early = moved is not None and call["round"] <= at_round.get(of["run"], 0)
        speaks = moved[-1]["before"] if moved is not None and early else of["agent"]
        if call["agent"] != speaks:
            yield f"{call['agent']} speaks in round {call['round']} of {call['run']}, which is {speaks}'s"
