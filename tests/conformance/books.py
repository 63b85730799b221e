"""All that an audit reads: the recorder's log, the database, exported histories. It knows tables, and no code."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

__all__ = ["GUARDED", "Books", "Call", "Row", "class_of", "read"]

GUARDED = ("once", "keyed", "verifiable", "local_tx")

Row = dict[str, Any]
Call = tuple[str, str, str]  # run, tool, n: each is asked for once

_TABLES = {
    "effects": "select e.*, e.run_id::text as run, extract(epoch from settle)::float8 as settles from effects e",
    "ledger": "select *, run_id::text as run from evidence.ledger order by id",
    "messages": "select m.*, m.run_id::text as run, t.thread from messages m join threads t on t.id = m.thread_id "
    "where m.seq is not null order by t.thread, m.seq",
    "runs": "select r.*, r.run_id::text as run, t.thread, t.tenant, d.body as declared from runs r "
    "join threads t on t.id = r.thread_id left join definitions d on d.hash = r.definition",
    "events": "select *, run_id::text as run from events order by run_id, seq",
    "approvals": "select *, run_id::text as run from approvals",
    "audit": "select *, run_id::text as run from audit order by id",
    "outbox": "select * from outbox",
    "notes": "select * from public.notes order by id",
    "faults": "select * from evidence.faults order by at",
    "sent": "select *, run_id::text as run from evidence.sent order by id",
    "asked": "select * from evidence.asked",
    "model_calls": "select * from evidence.model_calls order by at",
    "watched": "select *, run_id::text as run from evidence.watched order by watcher, position",
    "memories": "select * from evidence.memories",
    "replays": "select * from evidence.replays",
}


@dataclass
class Books:
    """Rows of each table by its name, arrivals at the recorder, events of each history; and views of them."""

    tables: dict[str, list[Row]]
    arrivals: list[Row]
    histories: list[Row]

    def __post_init__(self) -> None:
        """Count effects by what was asked for, and by key: a key that came out wrong would hide a repeat."""
        self.by_call: Counter[Call] = Counter()
        self.by_key: Counter[str] = Counter()
        self.results: dict[str, str] = {}
        self.pids: dict[str, set[int]] = defaultdict(set)  # of those that sent a key
        for entry in self.arrivals:
            self.results.setdefault(entry["key"], entry["result"])
            self.pids[entry["key"]].add(int(entry["pid"] or 0))
            if entry["kind"] == "effect":
                self.by_call[entry["args"]["run"], entry["tool"], entry["args"]["n"]] += 1
                self.by_key[entry["key"]] += 1
        for note in self["notes"]:
            self.results.setdefault(note["key"], f"local_note #{note['id']}")
            self.by_call[note["run"], "local_note", note["n"]] += 1
            self.by_key[note["key"]] += 1
        self.names = {row["run"]: row["message_id"] for row in self["runs"]}
        self.threads = {row["run"]: row["thread"] for row in self["runs"]}
        self.asked: Counter[Call] = Counter(self._asked())
        self.guarded = [row for row in self["effects"] if row["class"] != "pure"]

    def __getitem__(self, table: str) -> list[Row]:
        return self.tables[table]

    def _asked(self) -> Iterator[Call]:
        for message in self["messages"]:
            for call in json.loads(message["body"] or "{}").get("tool_calls") or []:
                arguments = json.loads(call["function"]["arguments"])
                if "run" in arguments and "n" in arguments:
                    yield arguments["run"], call["function"]["name"], arguments["n"]

    def about(self, row: Row) -> str:
        """Return how a person finds a ledger row."""
        return f"{row['tool']} of {self.names.get(row['run'], row['run'])} step {row['step_no']}"

    def ended_in_temporal(self, thread: str) -> bool:
        """Whether a fault took the thread's workflow away. A Reset does not: there everything must go on."""
        return any("Terminate" in fault["kind"] and thread in fault["threads"] for fault in self["faults"])

    def activities(self, name: str) -> Iterator[tuple[Row, Row, Row]]:
        """Yield (history, input, result) of every completed activity of this name."""
        for history in self.histories:
            inputs: dict[str, Row] = {}
            for event in history["events"]:
                asked = event.get("activityTaskScheduledEventAttributes")
                if asked is not None and asked["activityType"]["name"] == name:
                    inputs[event["eventId"]] = _payload(asked["input"])
                done = event.get("activityTaskCompletedEventAttributes")
                if done is not None and done["scheduledEventId"] in inputs:
                    yield history, inputs[done["scheduledEventId"]], _payload(done["result"])


def class_of(tool: str) -> str:
    """Return the effect class of a tool of the suite: it is in its name."""
    return "local_tx" if tool == "local_note" else tool.partition("_")[0]


def _payload(payloads: Row) -> Row:
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
