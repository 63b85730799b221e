"""All that an audit reads: the recorder's log, the database, exported histories. It knows tables, and no code."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import asyncpg

__all__ = ["GUARDED", "LEASE", "SCALE", "Books", "Call", "Row", "Slot", "class_of", "payload", "read"]

GUARDED = ("once", "keyed", "verifiable", "local_tx")

SCALE = float(os.environ.get("HOLDFAST_TIME_SCALE", "1"))  # by which the product's times were multiplied
LEASE = 2.0 * SCALE  # seconds, of the ledger and of Temporal's heartbeats alike
_LAST_WORDS = timedelta(seconds=SCALE)  # from a kill to the end of the last statement that the process had sent

Row = dict[str, Any]
Call = tuple[str, str, str]  # run, tool, n: each is asked for once

_TABLES = {
    "effects": "select key, run_id::text as run, scope, step_no, tool, class, args_hash, state, fence, owner, "
    "sent_at, deadline, sends, result, error, created_at, ended_at, extract(epoch from settle)::float8 as settles "
    "from effects",
    "late": "select key, tokens, at, outcome->>'run_id' as run from late_outcomes order by id",
    "ledger": "select id, at, key, run_id::text as run, step_no, tool, class, state, fence, owner, sent_at, error "
    "from evidence.ledger order by id",
    "messages": "select m.seq, m.run_id::text as run, m.step_no, m.role, m.call_id, m.body, m.blob, m.created_at, "
    "t.thread from messages m join threads t on t.id = m.thread_id where m.seq is not null order by t.thread, m.seq",
    "blobs": "select id, bytes, convert_from(substring(body for 200), 'utf8') as head, "
    "encode(sha256(body), 'hex') as sha256 from blobs",
    "runs": "select r.run_id::text as run, r.message_id, r.agent, r.mode, r.state, r.merged_into::text, r.answer_seq, "
    "r.error, r.rounds, r.tokens_in + r.tokens_out as tokens, r.created_at, r.started_at, r.ended_at, "
    "m.body as message, t.thread, t.tenant, coalesce(r.budget, d.body->'budget') as budget, t.scope, "
    "t.agent as owner, "
    "r.parent_run_id::text as parent, r.root_run_id::text as root, r.parent_step, r.depth, "
    "coalesce(s.tokens, 0) as tokens_below from runs r "
    "join threads t on t.id = r.thread_id left join messages m on m.id = r.message "
    "left join definitions d on d.hash = r.definition left join spent_below s on s.run_id = r.run_id",
    "events": "select run_id::text as run, seq, kind, at, case when kind in ('child_started', 'child_ended', "
    "'handed_off') then data end as data from events order by run_id, seq",
    "approvals": "select run_id::text as run, step_no, call_id, tool, state, args, decision_id, asked_at, decided_at "
    "from approvals",
    "audit": "select decision_id, run_id::text as run, step_no, action, actor, verified, accepted, detail, at "
    "from audit order by id",
    "outbox": "select source_key from outbox",
    "notes": "select * from public.notes order by id",
    "faults": "select kind, at, until, pids, threads, note from evidence.faults order by at",
    "starved": "select at, until from evidence.starved order by at",
    "sent": "select name, coalesce(message_id, name) as message_id, thread, kind, run_id::text as run, expected, "
    "remembers, text from evidence.sent order by id",
    "offspring": "select * from evidence.offspring",
    "schedules": "select * from evidence.schedules order by name",
    "suspended": "select * from evidence.suspended order by at",
    "leftovers": "select * from evidence.leftovers",
    "exits": "select * from evidence.exits order by at",
    "unfinished": "select * from evidence.unfinished",
    "words": "select at, until, run_id::text as run, step_no, word, args, decision_id, taken from evidence.words "
    "order by id",
    "asked": "select * from evidence.asked",
    "model_calls": "select at, split_part(run, ' ', 1) as run, round, fault, agent from evidence.model_calls "
    "order by at",
    "recorded": "select at, key, owner from evidence.recorded order by at",
    "given": "select at, key, owner from evidence.given order by id",
    "watched": "select run_id::text as run, watcher, position, seq from evidence.watched order by watcher, position",
    "memories": "select * from evidence.memories",
    "replays": "select * from evidence.replays",
}
_TIME = re.compile(r"(.*_)?at|until|deadline")


@dataclass(frozen=True)
class Slot:
    """A tool call as its thread has it: what the model asked for, and what it was told."""

    thread: str
    run: str  # id
    step_no: int
    seq: int
    call_id: str
    tool: str
    args: Row
    said: str | None  # None: nobody answered
    blob: str | None

    @property
    def call(self) -> Call:
        """The name under which everybody outside knows it."""
        return _call(self.tool, self.args)


@dataclass
class Books:
    """Rows of each table by its name, arrivals at the recorder, events of each history; and views of them.

    The *name* of a run is how its message begins: its message id, unless another run or a schedule sent it.
    """

    tables: dict[str, list[Row]]
    arrivals: list[Row]
    histories: list[Row]

    def __post_init__(self) -> None:
        """Count effects by what was asked for, and by key: a key that came out wrong would hide a repeat."""
        self.excused: dict[tuple[str, str], str] = {}
        self.runs = {row["run"]: row for row in self["runs"]}
        self.names = {row["run"]: _name(row) for row in self["runs"]}
        self.named = {name: self.runs[run] for run, name in self.names.items()}
        self.threads = {row["run"]: row["thread"] for row in self["runs"]}
        self.guarded = [row for row in self["effects"] if row["class"] != "pure"]
        self.model_keys = {
            (row["run"], row["step_no"]): row["key"] for row in self["effects"] if row["tool"] == "model"
        }
        self.spoken: dict[tuple[str, int], Row] = {}  # by message and round: what the model replied
        self.asked: Counter[Call] = Counter()
        self.slots: list[Slot] = []
        self.by_step: dict[tuple[str, int, str], list[Slot]] = defaultdict(list)  # by run, step, tool
        self._read_threads()
        self._read_effects()

    def _read_effects(self) -> None:
        keys = self._keys_by_call()
        self.by_call: Counter[Call] = Counter()
        self.by_key: Counter[str] = Counter()
        self.results: dict[str, str] = {}
        self.pids: dict[str, set[int]] = defaultdict(set)  # of those that sent a key
        for entry in self.arrivals:
            if entry["key"] in keys:
                entry["key"] = keys[entry["key"]]
            self.results.setdefault(entry["key"], entry["result"])
            self.pids[entry["key"]].add(int(entry["pid"] or 0))
            if entry["kind"] == "effect":
                self.by_call[entry["args"]["run"], entry["tool"], entry["args"]["n"]] += 1
                self.by_key[entry["key"]] += 1
        for note in self["notes"]:
            self.results.setdefault(note["key"], f"local_note #{note['id']}")
            self.by_call[note["run"], "local_note", note["n"]] += 1
            self.by_key[note["key"]] += 1

    def _keys_by_call(self) -> dict[str, str]:
        """Return the ledger's keys of calls that are known outside by what was asked for.

        The tool of an MCP server is not told its key, unless it is `keyed`.
        """
        found: dict[str, str] = {}
        for row in sorted(self["effects"], key=lambda row: str(row["state"]) == "done"):
            for slot in self.by_step[row["run"], row["step_no"], row["tool"]]:
                run, tool, n = slot.call
                found[f"{tool}:{run}:{n}"] = row["key"]
        return found

    def __getitem__(self, table: str) -> list[Row]:
        return self.tables[table]

    def _read_threads(self) -> None:
        calls: dict[tuple[str, str], Row] = {}
        name, spoken, thread = "", 0, ""
        for message in self["messages"]:
            body = json.loads(message["body"] or "{}")
            if message["thread"] != thread:
                name, spoken, thread = "", 0, message["thread"]
            if message["role"] == "user":
                name, spoken = str(body["content"]).partition(" ")[0], 0
            elif message["role"] == "assistant":
                spoken += 1
                self.spoken[name, spoken] = message
                for call in body.get("tool_calls") or []:
                    calls[thread, call["id"]] = call["function"]
                    self.asked[_call(call["function"]["name"], json.loads(call["function"]["arguments"]))] += 1
            elif (thread, message["call_id"]) in calls:
                asked = calls[thread, message["call_id"]]
                args, said = json.loads(asked["arguments"]), body.get("content")
                place = (message["run"], message["step_no"])
                slot = Slot(
                    thread, *place, message["seq"], message["call_id"], asked["name"], args, said, message["blob"]
                )
                self.slots.append(slot)
                self.by_step[*place, slot.tool].append(slot)

    def excuse(self, what: str, about: str, because: str) -> None:
        """Note that an assertion let something pass, and by which fault: all of it is counted and shown."""
        self.excused[what, about] = because

    def about(self, row: Row) -> str:
        """Return how a person finds a ledger row."""
        return f"{row['tool']} of {self.names.get(row['run'], row['run'])} step {row['step_no']}"

    def upward(self, run: str) -> Iterator[str]:
        """Yield the run and all above it: the one that asked for it, and so on."""
        above: str | None = run
        while above is not None and above in self.runs:
            yield above
            above = self.runs[above]["parent"]

    def threads_above(self, run: str) -> set[str]:
        """Return the threads of a run and of all above it: what hits one of them hits the run."""
        return {self.threads[each] for each in self.upward(run)}

    def ended_in_temporal(self, run: str) -> bool:
        """Whether a fault took a workflow away, its own or one above. A Reset does not: there everything must go on."""
        threads = self.threads_above(run)
        return any("Terminate" in fault["kind"] and threads & set(fault["threads"]) for fault in self["faults"])

    def blows(self, fault: Row, run: str) -> list[tuple[datetime, datetime]]:
        """Return from when to when a fault can harm calls of a run: also the moment at which a Terminate stopped it.

        A sweeper ends the run of a workflow that was terminated, seconds later, and with it all that the run has asked.
        What begins and ends between the two is harmed by neither. A killed process may have sent a statement, which
        PostgreSQL still carries out.
        """
        killed = fault["at"] == fault["until"] and fault["pids"]
        until = fault["until"] + (_LAST_WORDS if killed else timedelta())
        found: list[tuple[datetime, datetime]] = [(fault["at"], until)]
        row = self.runs.get(run)
        terminated = "Terminate" in fault["kind"] and bool(self.threads_above(run) & set(fault["threads"]))
        if not terminated or row is None or row["state"] != "stopped" or row["created_at"] > fault["until"]:
            return found
        ended: datetime | None = row["ended_at"]
        return found if ended is None or ended <= fault["until"] else [*found, (ended, ended)]

    def stopped(self, run: str) -> Row | None:
        """Return the word of the person who stopped this run, or one above, heard or not."""
        family = set(self.upward(run))
        return next((word for word in self["words"] if word["run"] in family and word["word"] == "stop"), None)

    def scheduled(self, name: str) -> Iterator[tuple[Row, Row, Row | None]]:
        """Yield (history, input, result or None) of every activity of this name."""
        for history in self.histories:
            inputs: dict[str, Row] = {}
            results: dict[str, Row] = {}
            for event in history["events"]:
                asked = event.get("activityTaskScheduledEventAttributes")
                if asked is not None and asked["activityType"]["name"] == name:
                    inputs[event["eventId"]] = payload(asked["input"])
                done = event.get("activityTaskCompletedEventAttributes")
                if done is not None and done["scheduledEventId"] in inputs:
                    results[done["scheduledEventId"]] = payload(done["result"])
            for number, given in inputs.items():
                yield history, given, results.get(number)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read books that were kept as JSON."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        tables = {
            name: [{key: _time(key, row[key]) for key in row} for row in rows] for name, rows in kept["tables"].items()
        }
        return cls(tables, kept["arrivals"], kept["histories"])


def class_of(tool: str) -> str:
    """Return the effect class of a tool of the suite: it is in its name, behind an MCP server's. Others have none."""
    return "local_tx" if tool == "local_note" else tool.rpartition("__")[2].partition("_")[0]


def payload(payloads: Row) -> Row:
    """Return what a payload of a history says."""
    decoded: Row = json.loads(base64.b64decode(payloads["payloads"][0]["data"]))
    return decoded


def read(recorder: Path, database: str, histories: Path) -> Books:
    """Read everything. A last line of the log that a kill cut off was never answered: it counts as no arrival."""
    lines = recorder.read_text(encoding="utf-8").splitlines() if recorder.exists() else []
    arrivals = [json.loads(line) for line in lines if line.endswith("}")]
    exported = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(histories.glob("*.json"))]
    return Books(asyncio.run(_tables(database)), arrivals, exported)


async def _tables(database: str) -> dict[str, list[Row]]:
    conn = await asyncpg.connect(database, server_settings={"search_path": "holdfast"})
    try:
        return {name: [dict(row) for row in await conn.fetch(query)] for name, query in _TABLES.items()}
    finally:
        await conn.close()


def _call(tool: str, given: Row) -> Call:
    """Return who asks for what, in which round.

    Another agent is asked for, or told, MESSAGE ROUND; in place of a tool stands then the message, which ends in its
    own name: RUN/NAME.
    """
    if "message" in given:
        name, _, n = str(given["message"]).partition(" ")
        return name.rpartition("/")[0], name, n
    if "note" in given and "run" not in given:
        name, _, n = str(given["note"]).partition(" ")
        return name, tool, n
    return str(given.get("run")), tool, str(given.get("n"))


def _name(run: Row) -> str:
    if run["message"] is None:
        return str(run["message_id"])
    return str(json.loads(run["message"])["content"]).partition(" ")[0]


def _time(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) and _TIME.fullmatch(name) else value
