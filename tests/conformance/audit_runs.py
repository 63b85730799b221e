"""What must hold of runs and of a person's word, (4) (9) (10); `assertions` lists it, the auditor calls it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.conformance.books import Books, Row, payload

__all__ = [
    "answer",
    "decisions_are_audited",
    "ended",
    "every_run_ends",
    "one_message_one_run",
    "words_are_kept",
]

OPEN = ("queued", "running", "waiting")
_A_MOMENT = 2.0  # seconds after it was taken until a stop must show
_BECOMES = {"approve": "approved", "signal": "approved", "edit": "approved", "reject": "rejected"}


def every_run_ends(books: Books) -> Iterator[str]:
    """Every run ends as it should and says so to whoever asked, or waits on a listed decision."""
    waiting = {row["run"] for row in books["approvals"] if row["state"] == "pending"}
    waiting |= {row["run"] for row in books.guarded if row["state"] == "in_doubt"}
    for sent in books["sent"]:
        run = books.runs.get(sent["run"])
        if run is None:
            yield f"{sent['name']} was accepted and has no run"
            continue
        if run["state"] not in sent["expected"].split("|"):
            because = dict(_excused(books, run, waiting)).get(run["state"])
            if because is None:
                yield f"{sent['name']} is {run['state']} instead of {sent['expected']}: {run['error']}"
            else:
                books.excuse(f"run that is {run['state']} instead of {sent['expected']}", run["run"], because)
        if run["state"] not in OPEN:
            yield from ended(books, run)
    for run in books["runs"]:
        if run["run"] not in {sent["run"] for sent in books["sent"]} and run["parent"] is None:
            yield f"run {run['run']} of {run['message_id']} was sent by nobody"
    yield from _answers_to_askers(books)


def _excused(books: Books, run: Row, waiting: set[str]) -> Iterator[tuple[str, str]]:
    if run["run"] in waiting:
        yield "waiting", "a decision that is listed"
    if books.ended_in_temporal(run["run"]):
        yield "stopped", "Terminate through Temporal"


def ended(books: Books, run: Row) -> Iterator[str]:
    """Yield what is wrong about a run that is over."""
    name = books.names[run["run"]]
    if run["ended_at"] is None:
        yield f"{name} is {run['state']} and has no end"
    if any(row["run"] == run["run"] and row["state"] == "pending" for row in books["approvals"]):
        yield f"{name} is {run['state']} and an approval of it is pending"
    if run["state"] == "merged":
        into = books.runs.get(run["merged_into"])
        if into is None or into["thread"] != run["thread"]:
            yield f"{name} joined {run['merged_into']}, which is no run of its thread"
    if run["state"] == "done" and answer(books, run) != f"all done with {_asked_last(books, run)}":
        yield f"{name} is done, and its answer reads {answer(books, run)!r}"
    stop = books.stopped(run["run"])
    if (
        stop is not None
        and stop["run"] == run["run"]
        and stop["taken"]
        and run["state"] == "done"
        and _went_on(books, stop, run)
    ):
        yield f"{name} was stopped, and went on to its answer"


def _went_on(books: Books, stop: Row, run: Row) -> bool:
    """Whether a run did not heed a stop, though no Reset took it back to before that."""
    if (run["ended_at"] - stop["until"]).total_seconds() <= _A_MOMENT:
        return False
    for fault in books["faults"]:
        if "Reset" in fault["kind"] and run["thread"] in fault["threads"] and fault["until"] >= stop["at"]:
            books.excuse("run that went on after a stop", run["run"], fault["kind"])
            return False
    return True


def answer(books: Books, run: Row) -> str | None:
    """Return the answer that the thread has of a run."""
    for message in books["messages"]:
        if message["thread"] == run["thread"] and message["seq"] == run["answer_seq"]:
            return str(json.loads(message["body"] or "{}").get("content"))
    return None


def _asked_last(books: Books, run: Row) -> str:
    """Return the message that the model answers: that of the run, or the last one that joined it."""
    name = books.names[run["run"]]
    for message in books["messages"]:
        if message["thread"] == run["thread"] and message["role"] == "user":
            other = books.runs.get(message["run"])
            if other is not None and other["merged_into"] == run["run"]:
                name = books.names[other["run"]]
    return str(name)


def _answers_to_askers(books: Books) -> Iterator[str]:
    """Each AskWorkflow ends, and its result is how the run ended."""
    for history in books.histories:
        if history["type"] != "AskWorkflow":
            continue
        last = history["events"][-1]
        if "workflowExecutionContinuedAsNewEventAttributes" in last:
            continue
        done = last.get("workflowExecutionCompletedEventAttributes")
        if done is None:
            yield f"{history['workflow_id']} did not come to its end"
            continue
        result = payload(done["result"])
        run = books.runs.get(result["run_id"])
        if run is None or run["state"] != result["state"]:
            yield f"{history['workflow_id']} says {result['state']}, its run is {run and run['state']}"
        elif run["state"] == "done" and result.get("answer") != answer(books, run):
            yield f"{history['workflow_id']} gave another answer than its run: {result.get('answer')!r}"


def one_message_one_run(books: Books) -> Iterator[str]:
    """One message id, one run, begun once, with the text that was sent."""
    runs = Counter((row["thread"], row["message_id"]) for row in books["runs"])
    for (thread, message), count in runs.items():
        if count > 1:
            yield f"message {message} on {thread} has {count} runs"
    named: dict[str, set[str]] = defaultdict(set)
    for sent in books["sent"]:
        named[sent["name"]].add(sent["run"])
        run = books.runs.get(sent["run"])
        if run is not None and (run["message_id"], run["thread"]) != (sent["message_id"], sent["thread"]):
            yield f"the sender of {sent['name']} was told of the run of {run['message_id']} on {run['thread']}"
        if run is not None and run["message"] is not None:
            text = json.loads(run["message"])["content"]
            if text != (sent["text"] or sent["name"]):
                yield f"{sent['name']} was stored as {text[:80]!r}"
    for name, said in named.items():
        if len(said) > 1:
            yield f"the sender of {name} was told of {len(said)} runs"
    events = Counter((event["run"], event["kind"]) for event in books["events"])
    for (run_id, kind), count in events.items():
        if kind in ("accepted", "started", "ended", "merged", "refused") and count > 1:
            yield f"run {books.names.get(run_id)} has {count} events `{kind}`"
    for run in books["runs"]:
        if run["state"] != "refused" and not events[run["run"], "accepted"]:
            yield f"run {books.names[run['run']]} has no event `accepted`"
    places = Counter(message["run"] for message in books["messages"] if message["role"] == "user")
    for run_id, count in places.items():
        if count > 1:
            yield f"the message of {books.names.get(run_id)} stands {count} times in its thread"


def decisions_are_audited(books: Books) -> Iterator[str]:
    """Every word on a call in doubt and every decision has its audit row, before the call is claimed."""
    carried = {(row["run"], row["step_no"], row["action"]) for row in books["audit"] if row["accepted"]}
    before: dict[str, Row] = {}
    begun: dict[tuple[str, int], Row] = {}
    for entry in books["ledger"]:
        begun.setdefault((entry["run"], entry["step_no"]), entry)
        last = before.get(entry["key"])
        before[entry["key"]] = entry
        if last is None or last["state"] != "in_doubt" or entry["state"] == "in_doubt":
            continue
        if entry["state"] in ("retry_ok", "abandoned") and (entry["run"], entry["step_no"], "resolve") not in carried:
            yield f"{books.about(entry)} went from in doubt to {entry['state']} and nobody's word is in the audit"
    audit = {row["decision_id"]: row for row in books["audit"] if row["accepted"]}
    for row in books["approvals"]:
        if row["state"] not in ("approved", "rejected"):
            continue
        said = audit.get(row["decision_id"])
        action = "approve" if row["state"] == "approved" else "reject"
        if said is None or (said["run"], said["step_no"], said["action"]) != (row["run"], row["step_no"], action):
            yield f"{books.about(row)} was {row['state']} and nobody's word is in the audit"
        elif (row["run"], row["step_no"]) in begun and begun[row["run"], row["step_no"]]["at"] < said["at"]:
            yield f"{books.about(row)} was claimed before its decision was in the audit"
    allowed = {(row["run"], row["step_no"]) for row in books["approvals"] if row["state"] == "approved"}
    for row in books.guarded:
        if row["tool"].endswith("_approved") and (row["run"], row["step_no"]) not in allowed:
            yield f"{books.about(row)} was begun and nobody approved it"
    for row in books["audit"]:
        if row["verified"]:
            yield f"the word {row['decision_id']} counts as verified, and nobody signed it"


def words_are_kept(books: Books) -> Iterator[str]:
    """What a person said is what became of it: nobody's word is lost or turned round."""
    audited = {row["decision_id"] for row in books["audit"]}
    said: dict[tuple[str, int], Row] = {}
    for word in books["words"]:
        if word["decision_id"] is not None and word["decision_id"] not in audited:
            yield f"the word {word['word']} on {books.names.get(word['run'])} was taken and is not in the audit"
        if word["step_no"] is not None:
            said[word["run"], word["step_no"]] = word
    for row in books["approvals"]:
        word = said.get((row["run"], row["step_no"]), {})
        if row["state"] == "void":
            if not (books.ended_in_temporal(row["run"]) or books.stopped(row["run"])):
                yield f"{books.about(row)} is void though nobody ended its run"
        elif row["state"] != _BECOMES.get(word.get("word", ""), "pending"):
            yield f"{books.about(row)} is {row['state']}, and a person said {word.get('word')}"
        elif (json.loads(row["args"]) if row["args"] else None) != (
            json.loads(word["args"]) if word.get("args") else None
        ):
            yield f"{books.about(row)} was approved with other arguments than a person gave: {row['args']}"
