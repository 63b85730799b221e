"""What must hold of what a drive left behind: one function each, returning what is wrong. The auditor calls them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from tests.conformance.books import Books, Row, class_of

__all__ = ["ASSERTIONS", "Assertion", "frozen_double", "orphaned"]

Assertion = Callable[[Books], Iterator[str]]

LEASE = 2.0  # seconds
INTERRUPTED = "interrupted:"
REJECTED = "rejected:"


def frozen_double(books: Books, key: str) -> bool:
    """Whether the design allows this repeat: `verifiable`, a sender of it frozen for longer than lease + settle."""
    row = next((row for row in books.guarded if row["key"] == key), None)
    if row is None or row["class"] != "verifiable":
        return False
    return any(
        "SIGSTOP" in fault["kind"]
        and (fault["until"] - fault["at"]).total_seconds() > LEASE + row["settles"]
        and books.pids[key] & set(fault["pids"])
        for fault in books["faults"]
    )


def orphaned(books: Books, entry: Row) -> bool:
    """Whether a call is in doubt because Terminate took its run: nobody is left to try or to look it up again.

    The bound of the suite is `once` alone, so these are not allowed silently: the table counts them apart.
    """
    thread = books.threads.get(entry["run"], "")
    return str(entry["error"]).startswith("its run ended") and any(
        "Terminate" in fault["kind"] and thread in fault["threads"] and fault["at"] <= entry["at"]
        for fault in books["faults"]
    )


def at_most_one_effect(books: Books) -> Iterator[str]:
    """No effect twice."""
    excused: set[tuple[str, str]] = set()
    pure = {entry["key"] for entry in books.arrivals if class_of(entry["tool"]) == "pure"}
    for key, count in books.by_key.items():
        if count > 1 and frozen_double(books, key):
            row = next(row for row in books.guarded if row["key"] == key)
            excused.add((books.names[row["run"]], row["tool"]))
        elif count > 1 and key not in pure:
            yield f"key {key} took effect {count} times"
    for (run, tool, n), count in books.by_call.items():
        if count > 1 and class_of(tool) != "pure" and (run, tool) not in excused:
            yield f"{tool} of {run} round {n} took effect {count} times"


def completed_has_its_effect(books: Books) -> Iterator[str]:
    """What is done took effect once."""
    for row in books.guarded:
        if row["state"] == "done" and books.by_key[row["key"]] == 0:
            yield f"{books.about(row)} is done and never took effect: lost"
    known = {row["key"] for row in books["effects"]}
    for entry in books.arrivals:
        if entry["key"] not in known and class_of(entry["tool"]) != "pure":
            yield f"{entry['tool']} of {entry['args']} took effect under a key that no ledger row has"
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
        if state == "in_flight" or (state == "retry_ok" and row["run"] not in ended):
            yield f"{books.about(row)} is left {state}"
        if state in ("in_doubt", "abandoned") and not row["error"]:
            yield f"{books.about(row)} is {state} without a reason"
        if state == "in_doubt":
            yield f"{books.about(row)} is left in doubt: {row['error']}"


def doubts_have_a_cause(books: Books) -> Iterator[str]:
    """In doubt only what was sent and not completed when a fault hit its worker or its workflow."""
    done: set[str] = set()
    for entry in books["ledger"]:
        if entry["state"] in ("done", "failed", "abandoned"):
            done.add(entry["key"])
        if entry["state"] != "in_doubt":
            continue
        about = books.about(entry)
        if entry["class"] != "once" and not orphaned(books, entry):
            yield f"{about} was in doubt though it is {entry['class']}: {entry['error']}"
        if entry["sent_at"] is None or entry["key"] in done:
            yield f"{about} was in doubt though it was never sent, or had ended"
            continue
        pid, thread = int(entry["owner"].partition(".")[0]), books.threads.get(entry["run"], "")
        if not any(
            (pid in fault["pids"] or thread in fault["threads"])
            and fault["until"] >= entry["sent_at"]
            and fault["at"] <= entry["at"]
            for fault in books["faults"]
        ):
            yield f"{about} was in doubt though no fault hit its worker {pid} meanwhile"


def every_run_ends(books: Books) -> Iterator[str]:
    """Every run ends as it should, or waits on a listed decision."""
    runs = {row["run"]: row for row in books["runs"]}
    waiting = {row["run"] for row in books["approvals"] if row["state"] == "pending"}
    waiting |= {row["run"] for row in books.guarded if row["state"] == "in_doubt"}
    for sent in books["sent"]:
        run = runs.get(sent["run"])
        if run is None:
            yield f"{sent['name']} was accepted and has no run"
        elif (run["state"] == "waiting" and sent["run"] in waiting) or (
            run["state"] == "stopped" and books.ended_in_temporal(run["thread"])
        ):
            continue
        elif run["state"] != sent["expected"]:
            yield f"{sent['name']} is {run['state']} instead of {sent['expected']}: {run['error']}"
    for run in runs.values():
        if run["run"] not in {sent["run"] for sent in books["sent"]}:
            yield f"run {run['run']} of {run['message_id']} was sent by nobody"


def ledger_history_recorder_agree(books: Books) -> Iterator[str]:
    """What a history says of a call, the ledger says too, and the thread has the recorder's words."""
    rows = {(row["scope"], row["run"], row["step_no"], row["tool"]): row for row in books["effects"]}
    doubted = {
        (entry["run"], entry["step_no"], entry["tool"]) for entry in books["ledger"] if entry["state"] == "in_doubt"
    }
    for history, given, result in books.activities("tool_step"):
        where = (given["run_id"], given["step_no"], given["tool"])
        row = rows.get((f"{history['workflow_id']}@{given['writer']}", *where))
        about = f"{given['tool']} of {books.names.get(given['run_id'])} step {given['step_no']}"
        if given.get("rejected") is not None:
            if row is not None:
                yield f"{about} was rejected and has a ledger row"
        elif result["status"] == "in_doubt":
            if where not in doubted:
                yield f"{about} is in doubt in history and never was in the ledger"
        elif row is None:
            yield f"{about} is {result['status']} in history and has no ledger row"
        elif result["status"] == "done" and row["state"] != "done":
            yield f"{about} is done in history and {row['state']} in the ledger"
    for history, given, result in books.activities("model_step"):
        scope = f"{history['workflow_id']}@{given['writer']}"
        if result.get("calls") and (scope, given["run_id"], given["step_no"], "model") not in rows:
            yield f"a model step of {books.names.get(given['run_id'])} is done in history and has no ledger row"
    yield from _slots(books)


def _slots(books: Books) -> Iterator[str]:
    keys: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in books["effects"]:
        keys[row["run"], row["step_no"], row["tool"]].append(row)
    rejected = {(row["run"], row["step_no"]) for row in books["approvals"] if row["state"] == "rejected"}
    tools: dict[tuple[str, str], str] = {}
    for message in books["messages"]:
        body = json.loads(message["body"] or "{}")
        for call in body.get("tool_calls") or []:
            tools[message["thread"], call["id"]] = call["function"]["name"]
        if message["role"] != "tool" or message["body"] is None:
            continue
        tool = tools.get((message["thread"], message["call_id"]), "")
        about = f"{message['thread']} seq {message['seq']} ({tool})"
        said = body["content"]
        if said.startswith(INTERRUPTED):
            if not books.ended_in_temporal(message["thread"]):
                yield f"{about} reads interrupted though nobody ended its workflow"
        elif said.startswith(REJECTED):
            if (message["run"], message["step_no"]) not in rejected:
                yield f"{about} reads rejected though nobody rejected it"
        elif said.startswith("error:") and class_of(tool) != "pure":
            if not any(row["state"] == "failed" for row in keys[message["run"], message["step_no"], tool]):
                yield f"{about} reads {said!r}, and no ledger row of it failed"
        elif class_of(tool) != "pure":
            found = keys[message["run"], message["step_no"], tool]
            if not any(books.results.get(row["key"]) == said and row["state"] == "done" for row in found):
                had = [books.results.get(row["key"]) for row in found]
                yield f"{about} reads {said!r}, the recorder says {had}"


def fences_never_fall(books: Books) -> Iterator[str]:
    """A fence never falls."""
    highest: dict[str, int] = {}
    for entry in books["ledger"]:
        if entry["fence"] < highest.get(entry["key"], 0):
            yield f"the fence of {books.about(entry)} fell from {highest[entry['key']]} to {entry['fence']}"
        highest[entry["key"]] = entry["fence"]


def threads_are_whole(books: Books) -> Iterator[str]:
    """Threads are gapless, every call is answered in its place, nothing is asked twice."""
    threads: dict[str, list[Row]] = defaultdict(list)
    for message in books["messages"]:
        threads[message["thread"]].append(message)
    for thread, messages in threads.items():
        seqs = [message["seq"] for message in messages]
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"{thread} has gaps or repeats: {seqs}"
        open_calls: set[str] = set()
        for message in messages:
            body = json.loads(message["body"] or "null")
            if body is None:
                yield f"{thread} seq {message['seq']} is an open slot"
            if message["role"] == "tool":
                if message["call_id"] not in open_calls:
                    yield f"{thread} seq {message['seq']} is a result without its call before it"
                open_calls.discard(message["call_id"])
            elif open_calls:
                yield f"{thread} seq {message['seq']} comes before the results of {sorted(open_calls)}"
                open_calls = set()
            open_calls |= {call["id"] for call in (body or {}).get("tool_calls") or []}
        if open_calls:
            yield f"{thread} lacks results of {sorted(open_calls)}"
    for call, count in books.asked.items():
        if count > 1:
            yield f"{call} was asked for {count} times"
    states = {row["message_id"]: row["state"] for row in books["runs"]}
    for row in books["asked"]:
        if states.get(row["run"]) in ("done", "over_budget") and not books.asked[row["run"], row["tool"], row["n"]]:
            yield f"{row['tool']} of {row['run']} round {row['n']} was never asked for, though the run came to its end"


def events_are_gapless(books: Books) -> Iterator[str]:
    """Events are gapless, in the table and as clients saw them who broke off and resumed."""
    seen: dict[str, list[int]] = defaultdict(list)
    for event in books["events"]:
        seen[event["run"]].append(event["seq"])
    for row in books["watched"]:
        seen[f"{row['run']} as watcher {row['watcher']} saw it"].append(row["seq"])
    for name, seqs in seen.items():
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"events of {name} have gaps or repeats: {seqs}"


def memory_without_duplicates(books: Books) -> Iterator[str]:
    """Memory has each answer that it should remember once, and nothing waits in the outbox."""
    for row in books["outbox"]:
        yield f"{row['source_key']} still waits to be remembered"
    states = {row["run"]: row["state"] for row in books["runs"]}
    for sent in books["sent"]:
        wanted = int(states.get(sent["run"]) == "done" and sent["remembers"])
        count = sum(row["run_id"] == sent["run"] for row in books["memories"])
        if count != wanted:
            yield f"{sent['name']} is remembered {count} times instead of {wanted}"


def histories_replay(books: Books) -> Iterator[str]:
    """Every history replays."""
    tried = {(row["workflow_id"], row["run_id"]): row["error"] for row in books["replays"]}
    for history in books.histories:
        error = tried.get((history["workflow_id"], history["run_id"]), "it was never tried")
        if error is not None:
            yield f"{history['workflow_id']} {history['run_id']}: {error}"
    known = {history["workflow_id"].partition(":")[2] for history in books.histories}
    for thread in {sent["thread"] for sent in books["sent"]} - known:
        yield f"there is no history of {thread}"


def one_message_one_run(books: Books) -> Iterator[str]:
    """One message id, one run, begun once."""
    runs = Counter((row["thread"], row["message_id"]) for row in books["runs"])
    for (thread, message), count in runs.items():
        if count > 1:
            yield f"message {message} on {thread} has {count} runs"
    named: dict[str, set[str]] = defaultdict(set)
    for sent in books["sent"]:
        named[sent["name"]].add(sent["run"])
    for name, said in named.items():
        if len(said) > 1:
            yield f"the sender of {name} was told of {len(said)} runs"
    events = Counter((event["run"], event["kind"]) for event in books["events"])
    for (run, kind), count in events.items():
        if kind in ("accepted", "started", "ended") and count > 1:
            yield f"run {books.names.get(run)} has {count} events `{kind}`"


def decisions_are_audited(books: Books) -> Iterator[str]:
    """Every word on a call in doubt and every decision has its audit row."""
    carried = {(row["run"], row["step_no"], row["action"]) for row in books["audit"] if row["accepted"]}
    before: dict[str, Row] = {}
    for entry in books["ledger"]:
        last = before.get(entry["key"])
        before[entry["key"]] = entry
        if last is None or last["state"] != "in_doubt" or entry["state"] == "in_doubt":
            continue
        if entry["state"] in ("retry_ok", "abandoned") and (entry["run"], entry["step_no"], "resolve") not in carried:
            yield f"{books.about(entry)} went from in doubt to {entry['state']} and nobody's word is in the audit"
        if entry["state"] not in ("done", "retry_ok", "abandoned"):
            yield f"{books.about(entry)} went from in doubt to {entry['state']}"
    ids = {row["decision_id"] for row in books["audit"] if row["accepted"]}
    for row in books["approvals"]:
        if row["state"] in ("approved", "rejected") and row["decision_id"] not in ids:
            yield f"{books.about(row)} was {row['state']} and nobody's word is in the audit"
    allowed = {(row["run"], row["step_no"]) for row in books["approvals"] if row["state"] == "approved"}
    for row in books.guarded:
        if row["tool"].endswith("_approved") and (row["run"], row["step_no"]) not in allowed:
            yield f"{books.about(row)} was begun and nobody approved it"


def recorded_calls_are_not_bought_again(books: Books) -> Iterator[str]:
    """No recorded model call is bought again; a call bought twice has a fault in between."""
    recorded: dict[tuple[str, int], Row] = {}
    rounds: Counter[str] = Counter()
    for row in sorted((row for row in books["effects"] if row["tool"] == "model"), key=lambda row: row["created_at"]):
        name = books.names[row["run"]]
        rounds[name] += 1
        recorded[name, rounds[name]] = row
    last: dict[tuple[str, int], Row] = {}
    for call in books["model_calls"]:
        where = (call["run"], call["round"])
        before, last[where] = last.get(where), call
        if before is None or before["fault"]:
            continue
        if not any(fault["until"] >= before["at"] and fault["at"] <= call["at"] for fault in books["faults"]):
            times = f"{before['at']} and {call['at']}"
            yield f"round {call['round']} of {call['run']} was bought twice, at {times}, and no fault was in between"
        done = recorded.get(where)
        if done is not None and done["created_at"] < call["at"]:
            frozen = [fault for fault in books["faults"] if "SIGSTOP" in fault["kind"]]
            if not any(fault["at"] <= call["at"] and fault["until"] >= done["created_at"] for fault in frozen):
                yield f"round {call['round']} of {call['run']} was bought again after it had been recorded"


def budgets_hold(books: Books) -> Iterator[str]:
    """No run goes on when its budget is spent."""
    bought: dict[str, list[int]] = defaultdict(list)
    for row in sorted((row for row in books["effects"] if row["tool"] == "model"), key=lambda row: row["created_at"]):
        bought[row["run"]].append(json.loads(row["result"])["tokens"])
    for run in books["runs"]:
        budget = json.loads(run["declared"] or "{}").get("budget") or {}
        tokens = bought[run["run"]]
        if budget.get("rounds") is not None and len(tokens) > budget["rounds"]:
            yield f"{run['message_id']} had {len(tokens)} of {budget['rounds']} rounds"
        if budget.get("tokens") is not None and sum(tokens[:-1]) >= budget["tokens"]:
            yield f"{run['message_id']} went on after {sum(tokens[:-1])} of {budget['tokens']} tokens"


ASSERTIONS: tuple[tuple[str, Assertion], ...] = (
    ("1", at_most_one_effect),
    ("2", completed_has_its_effect),
    ("3", given_up_has_none),
    ("3", doubts_have_a_cause),
    ("4", every_run_ends),
    ("5", ledger_history_recorder_agree),
    ("6", fences_never_fall),
    ("7", threads_are_whole),
    ("7", events_are_gapless),
    ("7", memory_without_duplicates),
    ("8", histories_replay),
    ("9", one_message_one_run),
    ("10", decisions_are_audited),
    ("11", recorded_calls_are_not_bought_again),
    ("12", budgets_hold),
)
