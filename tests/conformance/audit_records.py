"""What must hold between ledger, histories, threads and recorder, (5) (7) (8); `assertions` lists it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from tests.conformance.books import GUARDED, Books, Row, Slot, class_of

__all__ = [
    "INTERRUPTED",
    "REJECTED",
    "arguments_arrive",
    "events_are_gapless",
    "histories_replay",
    "ledger_history_recorder_agree",
    "memory_without_duplicates",
    "results_reach_the_thread",
    "threads_are_whole",
]

INTERRUPTED = "interrupted:"
REJECTED = "rejected:"
ERROR = "error:"
CHANGED = "[a person changed the arguments of this call: "

_LARGE = 300_000  # bytes of what a `_large` tool returns: the recorder's answer and dots


def ledger_history_recorder_agree(books: Books) -> Iterator[str]:
    """What a history says of a step the ledger says too, and the other way round."""
    rows = {(row["scope"], row["run"], row["step_no"], row["tool"]): row for row in books["effects"]}
    doubted = {
        (entry["run"], entry["step_no"], entry["tool"]) for entry in books["ledger"] if entry["state"] == "in_doubt"
    }
    begun: set[tuple[str, str, int, str]] = set()
    for history, given, result in books.scheduled("tool_step"):
        where = (given["run_id"], given["step_no"], given["tool"])
        scope = f"{history['workflow_id']}@{given.get('scope') or given['writer']}"
        row = rows.get((scope, *where))
        about = f"{given['tool']} of {books.names.get(given['run_id'])} step {given['step_no']}"
        begun.add((scope, *where))
        if row is not None and given["effect"] != row["class"]:
            yield f"{about} is {given['effect']} in history and {row['class']} in the ledger"
        if result is None:
            continue
        if given.get("rejected") is not None:
            if row is not None:
                yield f"{about} was rejected and has a ledger row"
        elif result["status"] == "in_doubt":
            if where not in doubted:
                yield f"{about} is in doubt in history and never was in the ledger"
        elif row is None:
            yield f"{about} is {result['status']} in history and has no ledger row"
        elif given["args_hash"] != row["args_hash"]:
            yield f"{about} is {result['status']} in history with other arguments than the ledger has"
        elif result["status"] == "abandoned":
            if row["state"] != "abandoned":
                yield f"{about} is abandoned in history and {row['state']} in the ledger"
        elif _outcome(result) != _outcome(json.loads(row["result"] or "{}")):
            yield f"{about} is {_outcome(result)} in history and {row['result']} in the ledger"
    for history, given, result in books.scheduled("model_step"):
        scope = f"{history['workflow_id']}@{given.get('scope') or given['writer']}"
        step = (scope, given["run_id"], given["step_no"], "model")
        begun.add(step)
        about = f"the model step {given['step_no']} of {books.names.get(given['run_id'])}"
        if result is not None and result.get("calls"):
            if step not in rows:
                yield f"{about} is done in history and has no ledger row"
            elif json.loads(rows[step]["result"])["seq"] != result["seq"]:
                yield f"{about} is message {result['seq']} in history and another one in the ledger"
    for name in ("prepare_child", "child_result", "hand_off"):
        for history, given, result in books.scheduled(name):
            scope = f"{history['workflow_id']}@{given.get('scope') or given['writer']}"
            known = (scope, given["run_id"], given["step_no"], given["tool"])
            begun.add(known)
            outcome, row = result if name == "hand_off" else (result or {}).get("outcome"), rows.get(known)
            recorded = None if row is None else _outcome(json.loads(row["result"] or "{}"))
            if outcome is not None and _outcome(outcome) != recorded:
                about = f"{given['tool']} of {books.names.get(given['run_id'])} step {given['step_no']}"
                yield f"{about} is {_outcome(outcome)} in history and {recorded} in the ledger"
    seen = {(message["thread"], message["seq"]) for message in books["messages"] if message["role"] == "assistant"}
    for known, row in rows.items():
        about = books.about(row)
        if row["tool"] != "compact" and known not in begun:
            yield f"{about} is in the ledger and no history has it"
        if row["key"] != _key(row):
            yield f"{about} has the key {row['key']}, which is not that of its scope, step and tool"
        if row["tool"] == "model" and row["state"] == "done":
            seq = json.loads(row["result"]).get("seq")
            if seq is not None and (books.threads[row["run"]], seq) not in seen:
                yield f"{about} was recorded as message {seq}, which is no reply of its thread"


def _outcome(result: Row) -> tuple[str, int]:
    return str(result.get("status")), int(result.get("bytes", 0))


def _key(row: Row) -> str:
    """Return the hash of length-prefixed (effect scope, step, tool)."""
    parts = [str(part).encode() for part in (row["scope"], row["step_no"], row["tool"])]
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


def arguments_arrive(books: Books) -> Iterator[str]:
    """What arrives outside, and what the ledger is bound to, is what the model asked for, or a person instead."""
    edited = {
        (word["run"], word["step_no"]): json.loads(word["args"]) for word in books["words"] if word["args"] is not None
    }
    wanted: dict[str, Row] = {}
    for row in books["effects"]:
        if row["tool"] in ("model", "compact"):
            continue
        slots = books.by_step[row["run"], row["step_no"], row["tool"]]
        args = edited.get((row["run"], row["step_no"])) or (slots[0].args if slots else None)
        if args is None:
            yield f"{books.about(row)} is in the ledger and no model asked for it"
            continue
        wanted[row["key"]] = args
        if row["args_hash"] != _hash(args):
            yield f"{books.about(row)} is bound to other arguments than were asked for"
    for entry in books.arrivals:
        if entry["key"] in wanted and entry["args"] != wanted[entry["key"]]:
            yield f"{entry['tool']} of {entry['args'].get('run')} arrived with other arguments than were asked for"
    for note in books["notes"]:
        if note["key"] in wanted and {"run": note["run"], "n": note["n"]} != wanted[note["key"]]:
            yield f"local_note of {note['run']} was written with other arguments than were asked for"
    tools = {row["key"]: row["tool"] for row in books["effects"]}
    for entry in books.arrivals:
        if tools.get(entry["key"], entry["tool"]) != entry["tool"]:
            yield f"{entry['tool']} of {entry['args'].get('run')} arrived under a key of {tools[entry['key']]}"


def _hash(args: Row) -> str:
    """Return the hash of the arguments' one JSON text: keys in order, no spaces."""
    return hashlib.sha256(
        json.dumps(args, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def results_reach_the_thread(books: Books) -> Iterator[str]:
    """What a thread has for a call is what the recorder answered, or why it did not."""
    rows: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in books["effects"]:
        rows[row["run"], row["step_no"], row["tool"]].append(row)
    rejected = {(row["run"], row["step_no"]) for row in books["approvals"] if row["state"] == "rejected"}
    blobs = {blob["id"]: blob for blob in books["blobs"]}
    edited = {
        (word["run"], word["step_no"]): json.loads(word["args"]) for word in books["words"] if word["args"] is not None
    }
    for told in books.slots:
        slot, said, about = told, told.said or "", f"{told.thread} seq {told.seq}, the result of {told.tool}"
        if said.startswith(CHANGED):
            head, _, said = said.removeprefix(CHANGED).partition("]\n")
            slot = replace(told, said=said)
            if edited.get((told.run, told.step_no)) != json.loads(head):
                yield f"{about} reads that a person changed it to {head[:80]}, and nobody did"
        found = rows[slot.run, slot.step_no, slot.tool]
        if slot.tool.endswith("_refused") and any(row["state"] == "done" for row in found):
            yield f"{about}: it was refused outside and is done in the ledger"
        if said.startswith(INTERRUPTED):
            if not books.ended_in_temporal(slot.run) and books.stopped(slot.run) is None:
                yield f"{about} reads interrupted though nobody ended its run"
        elif said.startswith(REJECTED):
            if (slot.run, slot.step_no) not in rejected or "not today" not in said:
                yield f"{about} reads {said!r}, and nobody said so"
        elif (slot.run, slot.step_no) in rejected:
            yield f"{about} reads {said[:80]!r}, and a person had rejected it"
        elif class_of(slot.tool) not in GUARDED:  # `pure`, or another agent
            continue
        elif said.startswith(ERROR):
            if not any(row["state"] == "failed" for row in found):
                yield f"{about} reads {said[:80]!r}, and no ledger row of it failed"
        else:
            results = [books.results.get(row["key"]) for row in found if row["state"] == "done"]
            if not any(result is not None and _reads(slot, result, blobs) for result in results):
                yield f"{about} reads {said[:80]!r}, the recorder says {results}"


def _reads(slot: Slot, result: str, blobs: dict[str, Row]) -> bool:
    """Whether the slot has the result; a large one is stored whole beside it, and passed on in part."""
    if slot.said == result or not slot.tool.endswith("_large"):
        return slot.said == result  # a person who looked it up reports the recorder's answer alone
    blob, whole = blobs.get(slot.blob or ""), result.ljust(_LARGE, ".")
    return (
        blob is not None
        and blob["sha256"] == hashlib.sha256(whole.encode()).hexdigest()
        and str(slot.said).startswith(result)
        and len(str(slot.said)) < len(whole) // 10
    )


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
    yield from _asked_in_full(books)


def _asked_in_full(books: Books) -> Iterator[str]:
    """A run that comes to its answer asks for all its calls; one that is steered or ends early for its first rounds."""
    joined = {row["merged_into"] for row in books["runs"] if row["merged_into"]}
    rounds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in books["asked"]:
        rounds[row["run"]][row["n"]].append(row["tool"])
    for name, by_round in rounds.items():
        run = books.named.get(name, {})
        into = books.runs.get(run.get("merged_into") or "", run)
        whole = [all(books.asked[name, tool, n] for tool in by_round[n]) for n in sorted(by_round, key=int)]
        some = [any(books.asked[name, tool, n] for tool in by_round[n]) for n in sorted(by_round, key=int)]
        if into.get("state") == "done" and run.get("run") not in joined and not all(whole):
            yield f"{name} came to its answer without having asked for all its calls"
        if whole != some or any(some[len(list(takewhile(bool, some))) :]):
            yield f"{name} asked for part of a round, or left one out"


def events_are_gapless(books: Books) -> Iterator[str]:
    """Events are gapless, in the table and as clients saw them who broke off and resumed, to the last."""
    seen: dict[str, list[int]] = defaultdict(list)
    last: Counter[str] = Counter()
    for event in books["events"]:
        seen[event["run"]].append(event["seq"])
        if event["kind"] in ("ended", "refused", "merged"):
            last[event["run"]] = event["seq"]
    watched: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in books["watched"]:
        watched[row["run"], row["watcher"]].append(row["seq"])
        seen[f"{row['run']} as watcher {row['watcher']} saw it"].append(row["seq"])
    for name, seqs in seen.items():
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"events of {name} have gaps or repeats: {seqs}"
    for (run, watcher), seqs in watched.items():
        if len(seqs) < last[run]:
            yield f"watcher {watcher} saw {len(seqs)} of {last[run]} events of {books.names.get(run)}"
    for row in books["runs"]:
        if row["ended_at"] is not None and not last[row["run"]]:
            yield f"{row['message_id']} has ended and no event says so"


def memory_without_duplicates(books: Books) -> Iterator[str]:
    """Memory has each answer that it should remember once, and nothing waits in the outbox."""
    for row in books["outbox"]:
        yield f"{row['source_key']} still waits to be remembered"
    for sent in {sent["run"]: sent for sent in books["sent"]}.values():
        wanted = int(books.runs.get(sent["run"], {}).get("state") == "done" and sent["remembers"])
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
