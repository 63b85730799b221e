"""Plays a small drive and keeps its books, for `test_audit.py` to doctor. Run it when tables or contracts change.

python -m tests.conformance.bookkeeping [--seed N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

from holdfast.testing import ModelServer
from tests.conformance import audit
from tests.conformance.books import Books, Row, read
from tests.conformance.drive import Drive, Plan
from tests.conformance.faults.processes import Kill
from tests.conformance.servers import Ground, ground
from tests.conformance.stage import Stage
from tests.conformance.subject import AGENTS, KINDS, answer
from tests.conformance.variety import variety

__all__ = ["BOOK"]

BOOK = Path(__file__).with_name("samples") / "books.json"

# Kinds that have nothing to doctor which others have not.
_LEFT_OUT = (
    *("fan", "queue", "shaky", "twice", "refuse", "spend", "approval"),
    *("clan", "vetted", "halt", "office"),
)
_PLAN = Plan(
    "book",
    (Kill(),),
    faults=3,
    calls=1,
    at_once=9,
    lanes=1,
    gap=(0.5, 1.5),
    every_kind=True,
    subject=[kind for kind in KINDS if kind.name not in _LEFT_OUT],
)
# What the books must have, or there is nothing to doctor.
_NEEDED = (
    "guarded calls taken over by another worker",
    "steering messages that joined a run",
    "messages refused: another agent's thread",
    "runs stopped by a person",
    "approvals with other arguments",
    "rejections",
    "questions by AskWorkflow",
    "results stored whole and passed on in part",
    "runs over budget",
    "of these below another one that was asked",
    "of these that gave no answer",
    "conversations handed over",
    "questions by a schedule",
    "times that a schedule skipped",
    "calls refused because their MCP tool was suspended",
)
_KEPT = ("activityTaskScheduledEventAttributes", "activityTaskCompletedEventAttributes")
_STEPS = ("tool_step", "model_step", "prepare_child", "child_result", "hand_off")


async def _main(seed: int) -> int:
    async with ground() as given:
        while True:
            books = await _play(given, seed)
            holds, table = audit.judge(books)
            has = variety(books)
            lacks = [name for name in _NEEDED if not has[name]]
            lacks += [] if any(entry["state"] == "in_doubt" for entry in books["ledger"]) else ["a call in doubt"]
            if holds and not lacks:
                break
            sys.stdout.write(f"{table}seed {seed} is of no use: it lacks {lacks}\n")
            seed += 1
    histories = [_slim(history) for history in books.histories]
    slim = {"seed": seed, "tables": books.tables, "arrivals": books.arrivals, "histories": histories}
    BOOK.parent.mkdir(exist_ok=True)
    BOOK.write_text(json.dumps(slim, default=str, separators=(",", ":")) + "\n", encoding="utf-8")
    sys.stdout.write(f"{BOOK.name}: seed {seed}, {BOOK.stat().st_size:,} bytes\n")
    return 0 if audit.judge(Books.load(BOOK))[0] else 1


async def _play(given: Ground, seed: int) -> Books:
    async with ModelServer(reply=answer) as models:
        world = await given.make(AGENTS.read_text(encoding="utf-8"), api_base=models.base_url, roll_after_events=50)
        async with Stage(given, world, models) as stage:
            await Drive(stage, _PLAN, seed).run()
            await stage.dismiss()
            await stage.close_books()
            url = world.settings.database_url or ""
            return await asyncio.to_thread(read, stage.recorder, url, stage.histories)


def _slim(history: Row) -> Row:
    """Return a history with no more than an auditor reads: steps, and how it ended."""
    steps: set[str] = set()
    events: list[dict[str, Any]] = []
    for event in history["events"]:
        asked, done = (event.get(name) for name in _KEPT)
        if asked is not None and asked["activityType"]["name"] in _STEPS:
            steps.add(event["eventId"])
            given = {"activityType": asked["activityType"], "input": asked["input"]}
            events.append({"eventId": event["eventId"], _KEPT[0]: given})
        elif done is not None and done["scheduledEventId"] in steps:
            told = {"scheduledEventId": done["scheduledEventId"], "result": done["result"]}
            events.append({"eventId": event["eventId"], _KEPT[1]: told})
    last = history["events"][-1]
    kept = {name: last[name] for name in last if name.startswith("workflowExecution")}
    return {**{name: history[name] for name in ("workflow_id", "run_id", "type")}, "events": [*events, kept]}


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.bookkeeping", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    return asyncio.run(_main(parser.parse_args().seed))


if __name__ == "__main__":
    sys.exit(main())
