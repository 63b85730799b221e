"""Judges a crash test by the recorder's log and the database alone; of the runtime it knows the tables, no code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.driver import Kill

__all__ = ["GUARDED", "Audit", "audit"]

GUARDED = ("once", "keyed", "verifiable", "local_tx")
_AT_ONCE = ("keyed", "local_tx")  # may be taken over without waiting
_ENDED = ("done", "failed", "abandoned")

Row = dict[str, Any]
Query = Callable[[str], Awaitable[list[Row]]]
Call = tuple[str, str, str]  # tool, run, n: each is asked for once


@dataclass
class Audit:
    """What was found. The test passes when nothing is in `wrong` and nothing took effect twice or got lost."""

    calls: Counter[str] = field(default_factory=Counter)  # by class
    twice: dict[str, list[Call]] = field(default_factory=dict)  # by class
    lost: dict[str, list[Call]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    doubts_seen: int = 0  # in doubt, and the effect had taken place
    doubts_never_seen: int = 0
    pure_repeats: int = 0
    model_repeats: int = 0
    keyed_deduped: int = 0
    kills: int = 0
    kills_in_flight: int = 0
    taken_over: list[float] = field(default_factory=list)  # seconds from a kill to the next claim: keyed, local_tx
    waited: list[float] = field(default_factory=list)  # the same for once and verifiable, or until they were in doubt

    def table(self, title: str) -> str:
        """Return everything as text for a person."""
        rows: list[tuple[str, object]] = [
            ("faults (kill -9, or an outage)", self.kills),
            ("  that hit a call sent and not ended", self.kills_in_flight),
            ("guarded calls", sum(self.calls[name] for name in GUARDED)),
            *((f"  {name}", self.calls[name]) for name in GUARDED),
            ("effects twice", sum(map(len, self.twice.values()))),
            ("effects lost", sum(map(len, self.lost.values()))),
            ("in doubt, the recorder saw it", self.doubts_seen),
            ("in doubt, the recorder never saw it", self.doubts_never_seen),
            ("keyed repeats deduped by the remote", self.keyed_deduped),
            ("pure calls", self.calls["pure"]),
            ("  repeats", self.pure_repeats),
            ("model calls repeated", self.model_repeats),
            ("taken over after a kill (keyed, local_tx)", _quantiles(self.taken_over)),
            ("taken over or in doubt (once, verifiable)", _quantiles(self.waited)),
            ("other findings", len(self.wrong)),
        ]
        wide = max(len(name) for name, _ in rows)
        return "\n".join([f"\n{title}", *(f"  {name:<{wide}}  {value}" for name, value in rows)]) + "\n"

    def verdict(self) -> str:
        """Return all that is wrong, or an empty text."""
        lines = [f"took effect twice ({name}): {calls}" for name, calls in self.twice.items()]
        lines += [f"was lost ({name}): {calls}" for name, calls in self.lost.items()]
        return "\n".join(lines + self.wrong)


async def audit(query: Query, log: Path, kills: list[Kill], asked: list[Call], model_requests: int) -> Audit:
    """Read everything and compare it with the calls the model *asked* for."""
    found = Audit(kills=len(kills))
    arrivals = _read(log)
    effects = await query("select *, run_id::text as run from effects")
    slots = await query(
        "select t.thread, m.* from messages m join threads t on t.id = m.thread_id where seq is not null order by seq"
    )
    notes = await query("select * from public.notes")
    history = await query("select *, extract(epoch from at)::float8 as time from public.ledger_log order by id")
    _effects(found, arrivals, notes, asked)
    _ledger(found, effects, arrivals, notes)
    await _threads(found, query, slots, effects, arrivals, notes, asked)
    _doubts(found, history, kills, arrivals)
    _kills(found, history, kills)
    found.model_repeats = model_requests - sum(row["tool"] == "model" for row in effects)
    return found


def _read(log: Path) -> list[Row]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _class_of(tool: str) -> str:
    return "local_tx" if tool == "local_note" else tool.partition("_")[0]


def _effects(found: Audit, arrivals: list[Row], notes: list[Row], asked: list[Call]) -> None:
    """Count effects by what was asked for, not by key: a key that came out wrong would hide a repeat."""
    happened: Counter[Call] = Counter(
        (entry["tool"], entry["args"]["run"], entry["args"]["n"]) for entry in arrivals if entry["kind"] == "effect"
    )
    happened.update(("local_note", note["run"], note["n"]) for note in notes)
    for call in asked:
        name, times = _class_of(call[0]), happened.pop(call, 0)
        found.calls[name] += 1
        if name == "pure":
            found.pure_repeats += times - 1
        elif times > 1:
            found.twice.setdefault(name, []).append(call)
        if times == 0:
            found.lost.setdefault(name, []).append(call)
    found.keyed_deduped = sum(entry["kind"] != "effect" for entry in arrivals)
    if happened:
        found.wrong.append(f"effects that nobody asked for: {dict(happened)}")


def _ledger(found: Audit, effects: list[Row], arrivals: list[Row], notes: list[Row]) -> None:
    """Hold every row against the effects of its key: done has one, what failed or was given up none."""
    times = Counter(entry["key"] for entry in arrivals if entry["kind"] == "effect")
    times.update(note["key"] for note in notes)
    for row in effects:
        count = times.pop(row["key"], 0)
        about = f"{row['tool']} of run {row['run']} step {row['step_no']}"
        if row["class"] == "pure":
            continue
        if row["state"] != "done":
            found.wrong.append(f"{about} ended as {row['state']} with {count} effects: {row['error']}")
        elif count != 1:
            found.wrong.append(f"{about} is done and its key has {count} effects")
        if row["state"] == "done" and json.loads(row["result"])["status"] != "done":
            found.wrong.append(f"{about} is done with the result {row['result']}")
    if times:
        found.wrong.append(f"effects under keys that no ledger row has: {dict(times)}")


async def _threads(
    found: Audit,
    query: Query,
    slots: list[Row],
    effects: list[Row],
    arrivals: list[Row],
    notes: list[Row],
    asked: list[Call],
) -> None:
    """Nothing may be missing in the conversations: runs done, no gap, each call's slot filled with its own result."""
    for run in await query("select t.thread, r.state, r.error from runs r join threads t on t.id = r.thread_id"):
        if run["state"] != "done":
            found.wrong.append(f"{run['thread']} ended as {run['state']}: {run['error']}")
    threads: dict[str, list[Row]] = {}
    for slot in slots:
        threads.setdefault(slot["thread"], []).append(slot)
    results = {entry["key"]: entry["result"] for entry in reversed(arrivals)}
    results.update({note["key"]: f"local_note #{note['id']}" for note in notes})
    keys = {(row["run"], row["step_no"]): row for row in effects}
    wanted = Counter(asked)
    for thread, messages in threads.items():
        if [message["seq"] for message in messages] != list(range(1, len(messages) + 1)):
            found.wrong.append(f"{thread} has gaps: {[message['seq'] for message in messages]}")
        calls = {}
        for message in messages:
            body = json.loads(message["body"]) if message["body"] is not None else {}
            for call in body.get("tool_calls") or []:
                arguments = json.loads(call["function"]["arguments"])
                wanted[(call["function"]["name"], arguments["run"], arguments["n"])] -= 1
                calls[call["id"]] = call["function"]["name"]
            if message["role"] != "tool":
                continue
            row = keys.get((str(message["run_id"]), message["step_no"]))
            tool = calls.pop(message["call_id"], None)
            if row is None or tool != row["tool"]:
                found.wrong.append(f"{thread} seq {message['seq']}: no ledger row of {tool}")
            elif body.get("content") != results.get(row["key"]) and row["class"] != "pure":
                found.wrong.append(
                    f"{thread} seq {message['seq']}: {tool} says {body.get('content')!r}, "
                    f"its effect was {results.get(row['key'])!r}"
                )
        if calls:
            found.wrong.append(f"{thread}: no slot for {calls}")
    if any(wanted.values()):
        found.wrong.append(f"asked for otherwise than scripted: {[call for call in wanted if wanted[call]]}")


def _doubts(found: Audit, history: list[Row], kills: list[Kill], arrivals: list[Row]) -> None:
    """Only a call that was sent and not completed when its worker was killed may be in doubt."""
    killed = {str(kill.pid): kill.at for kill in kills}
    came = {entry["key"]: entry["time"] for entry in reversed(arrivals) if entry["kind"] == "effect"}
    done: set[str] = set()
    for entry in history:
        about = f"{entry['tool']} of run {entry['run_id']} step {entry['step_no']}"
        if entry["state"] in _ENDED:
            done.add(entry["key"])
        if entry["state"] != "in_doubt":
            continue
        at = killed.get(entry["owner"].partition(".")[0])
        if entry["class"] != "once":
            found.wrong.append(f"{about} is in doubt though it is {entry['class']}")
        if entry["sent_at"] is None or entry["key"] in done:
            found.wrong.append(f"{about} is in doubt though it was never sent, or had ended")
        elif at is None or not entry["sent_at"].timestamp() <= at <= entry["time"]:
            found.wrong.append(f"{about} is in doubt though no fault hit its worker while it was under way")
        if came.get(entry["key"], entry["time"]) < entry["time"]:
            found.doubts_seen += 1
        else:
            found.doubts_never_seen += 1


def _kills(found: Audit, history: list[Row], kills: list[Kill]) -> None:
    """Find what each kill interrupted, and how long it took until somebody went on with it."""
    by_key: dict[str, list[Row]] = {}
    for entry in history:
        if entry["class"] != "pure":
            by_key.setdefault(entry["key"], []).append(entry)
    for kill in kills:
        sent = False
        for entries in by_key.values():
            before = [entry for entry in entries if entry["time"] <= kill.at]
            last = before[-1] if before else None
            if last is None or last["state"] != "in_flight" or last["owner"].partition(".")[0] != str(kill.pid):
                continue
            sent = sent or last["sent_at"] is not None
            after = next((entry["time"] for entry in entries if entry["time"] > kill.at), None)
            if after is not None:
                (found.taken_over if last["class"] in _AT_ONCE else found.waited).append(after - kill.at)
        found.kills_in_flight += sent


def _quantiles(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p50, p95 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.95))
    return f"p50 {p50:.1f} s, p95 {p95:.1f} s, most {ordered[-1]:.1f} s (of {len(ordered)})"
