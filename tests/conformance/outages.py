"""One server away for minutes while messages keep coming: nothing fails, the backlog drains, nothing is there twice.

    python -m tests.conformance.outages --what postgres|memory|model|temporal --seconds N [--rate R] [--out FILE]

`conduct` is one drive through one outage; the auditor judges it like any other. Client and workers reach PostgreSQL and
Temporal through the fault proxies, so that for all of them the server is gone; person and evidence go past.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast import Client
from holdfast.errors import HoldfastError, StackError
from holdfast.handles import RunHandle
from holdfast.testing import ModelServer
from tests.conformance import sends, subject
from tests.conformance.books import read
from tests.conformance.drive import audit
from tests.conformance.figures import count
from tests.conformance.person import Person
from tests.conformance.pulse import pulse
from tests.conformance.servers import Ground, ground
from tests.conformance.stage import Stage, now
from tests.conformance.subject import Message, Thread
from tests.kit import PATIENCE, until

__all__ = ["OUTAGES", "Result", "conduct"]

RATE = 0.5  # conversations a second; two cores with nothing else to do carry more than twice as many
_WATCHED = 5  # every so many conversations one is followed to its end by a client that resumes after errors
# Kinds of which our client sends every message and nobody ends a run: here each shall come to one end.
_PLAIN = tuple(
    kind
    for kind in subject.KINDS
    if kind.meanwhile is None and kind.sends in ((sends.by_client,), (sends.twice,)) and len(kind.ends) == 1
)
_PAUSE = 1.0  # seconds after an error until a sender tries again


@dataclass(frozen=True)
class Outage:
    """How one server is taken away and given back, and what the auditor reads of it."""

    kind: str
    away: Callable[[Stage], AbstractAsyncContextManager[None]]
    kills_worker: bool = False  # in the middle one worker is killed: the next is born while the server is away
    loses_calls: bool = False  # calls under way may be given up: they may be in doubt


@asynccontextmanager
async def _postgres_away(stage: Stage) -> AsyncIterator[None]:
    await stage.database.shut()
    try:
        yield
    finally:
        await stage.database.open()


@asynccontextmanager
async def _temporal_away(stage: Stage) -> AsyncIterator[None]:
    await stage.temporal.shut()
    try:
        yield
    finally:
        await stage.temporal.open()


@asynccontextmanager
async def _model_away(stage: Stage) -> AsyncIterator[None]:
    await stage.models.stop()
    try:
        yield
    finally:
        await stage.models.start()


@asynccontextmanager
async def _memory_away(stage: Stage) -> AsyncIterator[None]:
    for born in [born for born in stage.live if born.role == "memory"]:
        await stage.reap(born)
    try:
        yield
    finally:
        await stage.bear("memory")


OUTAGES = {
    "postgres": Outage("PostgreSQL gone", _postgres_away, kills_worker=True),
    "memory": Outage("memory process gone", _memory_away),
    "model": Outage("model server gone", _model_away),
    "temporal": Outage("Temporal gone", _temporal_away, kills_worker=True, loses_calls=True),
}


@dataclass
class Offer:
    """One message: when it was offered, when a client was told that it is safe, and as which run."""

    offered: datetime
    accepted: datetime | None = None
    run_id: str = ""
    expected: str = ""


@dataclass
class Result:
    """What came of one outage, as JSON can carry it. Times in seconds, messages counted."""

    what: str
    seconds: float
    seed: int
    rate: float  # conversations a second
    offered: int = 0
    offered_during: int = 0
    accepted_during: int = 0
    errors: dict[str, int] = field(default_factory=dict)  # that clients met, by kind; all were followed by another try
    said: str = ""  # the first of them
    ended: int = 0  # as expected
    failed: int = 0  # ended otherwise, or not at all
    backlog: int = 0  # offered and not ended when the outage was over
    drained_after: float | None = None  # seconds from the end of the outage; None: not within patience
    ratio: float | None = None  # of that to the outage
    exits: int = 0  # processes that ended by themselves and were started again
    starved_s: float = 0.0  # in which the machine had no time
    in_doubt: int = 0
    twice: int = 0
    lost: int = 0  # messages that were accepted and have no run, and completed calls without an effect
    load: float = 0.0  # of the machine, in the middle of the outage
    took: float = 0.0
    code: int = 0  # of the auditor
    table: str = ""

    @property
    def fine(self) -> bool:
        """Whether all holds that must hold of an outage of any length."""
        return self.code == self.failed == self.twice == self.lost == 0 and self.drained_after is not None

    def text(self) -> str:
        """Return it for a person."""
        figures = {name: value for name, value in asdict(self).items() if name != "table"}
        lines = "\n".join(f"  {name:<16} {value}" for name, value in figures.items())
        return f"\noutage of {self.what}:\n{lines}\n{self.table}"


class Drive:
    """One outage under a steady offer of messages."""

    def __init__(self, stage: Stage, outage: Outage, result: Result) -> None:
        self._stage, self._outage, self._result = stage, outage, result
        kinds = [kind for kind in subject.KINDS if kind.by_client_alone]
        self._threads = subject.threads(random.Random(f"{result.seed} subject"), kinds)
        self._offers: list[Offer] = []
        self._errors: Counter[str] = Counter()
        self._enough = asyncio.Event()
        self._person = Person(stage)

    async def run(self) -> None:
        """Return once every message offered has its answer, or patience has ended."""
        stage, result = self._stage, self._result
        for role in ("memory", "agents", "agents"):
            await stage.bear(role)
        await until(lambda: all(born.ready.exists() for born in stage.live), "the processes are ready")
        url, address = stage.database.url, stage.temporal.address
        near = stage.world.settings.model_copy(update={"database_url": url, "temporal_address": address})
        async with await Client.connect(near) as client, asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in (self._person.serve(), stage.keep(), pulse(stage.note))]
            offering = group.create_task(self._offer(client))
            await until(lambda: self._count("ended", 5), "the first runs have ended")
            due = await self._strike()
            began = time.monotonic()
            patience = 2 * result.seconds + PATIENCE
            if await self._within(patience, lambda: self._drained(due)):
                result.drained_after = round(time.monotonic() - began, 2)
                result.ratio = round(result.drained_after / result.seconds, 2)
            self._enough.set()
            await self._within(patience, lambda: _done(offering))
            await self._within(patience, lambda: self._drained(self._offers))
            offering.cancel()
            for task in beside:
                task.cancel()
        await self._judge()

    async def _strike(self) -> list[Offer]:
        """Take the server away for the time; return what had been offered when it was back."""
        stage, result, half = self._stage, self._result, self._result.seconds / 2
        pids = {born.pid for born in stage.live}
        at = now()
        async with self._outage.away(stage):
            await asyncio.sleep(half)
            result.load = round(os.getloadavg()[0], 2)
            if self._outage.kills_worker and stage.workers():
                await self._kill()
            await asyncio.sleep(half)
        over = now()
        pids |= {born.pid for born in stage.live}
        await self._note(self._outage.kind, at, over, sorted(pids) if self._outage.loses_calls else [])
        due = list(self._offers)
        during = [offer for offer in due if at <= offer.offered]
        result.offered_during = len(during)
        result.accepted_during = sum(offer.accepted is not None and at <= offer.accepted <= over for offer in due)
        result.backlog = len(due) - await self._count("ended")
        return due

    async def _kill(self) -> None:
        victim = self._stage.workers()[0]
        at = await self._stage.reap(victim)
        await self._note("kill -9 of a worker", at, at, [victim.pid])
        await self._stage.bear()

    async def _note(self, kind: str, at: datetime, over: datetime, pids: list[int]) -> None:
        query = "insert into evidence.faults (kind, at, until, pids) values ($1, $2, $3, $4)"
        await self._stage.note(query, (kind, at, over, pids))

    # ------------------------------------------------------------------------------------ work

    async def _offer(self, client: Client) -> None:
        """Begin conversations at a steady rate, whatever becomes of those before."""
        number, began = 0, time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not self._enough.is_set():
                group.create_task(self._converse(client, next(self._threads), number))
                number += 1
                await asyncio.sleep(max(0.0, began + number / self._result.rate - time.monotonic()))

    async def _converse(self, client: Client, thread: Thread, number: int) -> None:
        kind, run = thread.kind, None
        for message in thread.messages:
            offer = Offer(now(), expected=message.ends)
            self._offers.append(offer)
            for _ in range(2 if kind.sends == (sends.twice,) else 1):
                run = await self._send(client, message)
                offer.accepted, offer.run_id = offer.accepted or now(), run.run_id
                await self._stage.note(
                    "insert into evidence.sent (name, thread, kind, run_id, expected, remembers, text) "
                    "values ($1, $2, $3, $4, $5, $6, $7)",
                    (message.name, thread.name, kind.name, run.run_id, message.ends, kind.remembers, message.text),
                )
            await self._stage.note("insert into evidence.asked values ($1, $2, $3)", *kind.asked(message.name))
        if run is not None and number % _WATCHED == 0:
            await self._watch(run, number)

    async def _send(self, client: Client, message: Message) -> RunHandle:
        """Send a message; after an error send it again under its id, for as long as it takes."""
        agent, thread, name = message.kind.agent, message.thread, message.name
        while True:
            try:
                return await client.start(agent, message.text, thread=thread, message_id=name)
            except StackError as exc:
                self._met(exc)
            await asyncio.sleep(_PAUSE)

    async def _watch(self, run: RunHandle, number: int) -> None:
        """Follow a run to its end; after an error resume behind the last event."""
        seen: list[int] = []
        over = False
        while not over:
            try:
                async for event in run.events(after=seen[-1] if seen else 0):
                    seen.append(event.seq)  # noqa: PERF401  # what was seen before an error counts
                over = True
            except StackError as exc:
                self._met(exc)
        rows = [(run.run_id, number + 1, position, seq) for position, seq in enumerate(seen, 1)]
        await self._stage.note("insert into evidence.watched values ($1, $2, $3, $4)", *rows)

    def _met(self, exc: HoldfastError) -> None:
        self._errors[type(exc).__name__] += 1
        self._result.said = self._result.said or str(exc)

    # ------------------------------------------------------------------------------------ how it stands

    async def _count(self, column: str, least: int = 0) -> int:
        """Return how many runs have ended, or 0 if fewer than *least*."""
        rows = await self._stage.rows(f"select count({column}_at) as n from holdfast.runs")
        return int(rows[0]["n"]) if rows[0]["n"] >= least else 0

    async def _drained(self, offers: list[Offer]) -> bool:
        """Whether each of these messages has its answer, and nothing of them waits to be remembered."""
        if not all(offer.run_id for offer in offers):
            return False
        left = await self._stage.rows(
            "select 1 from unnest($1::uuid[]) as due (run_id) left join holdfast.runs r using (run_id) "
            "where r.ended_at is null union all select 1 from holdfast.outbox where run_id = any($1) limit 1",
            [offer.run_id for offer in offers],
        )
        return not left

    async def _within(self, seconds: float, condition: Callable[[], Any]) -> bool:
        """Whether it came about in time. The looks are few: all that the proxies pass on goes through this process."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return True
            await asyncio.sleep(0.5)
        return False

    async def _judge(self) -> None:
        """Count what became of the messages; then let the auditor speak."""
        stage, result = self._stage, self._result
        rows = await stage.rows("select run_id::text, state from holdfast.runs")
        states = {row["run_id"]: row["state"] for row in rows}
        result.offered, result.errors = len(self._offers), dict(self._errors)
        result.ended = sum(states.get(offer.run_id) == offer.expected for offer in self._offers)
        result.failed = result.offered - result.ended
        await stage.close_books()
        url = stage.world.settings.database_url or ""
        figures = count(await asyncio.to_thread(read, stage.recorder, url, stage.histories))
        result.in_doubt = sum(sum(each.values()) for each in figures.in_doubt.values())
        result.twice, result.exits, result.starved_s = figures.twice, sum(figures.exits.values()), figures.starved_s
        result.lost = figures.lost + sum(offer.run_id not in {*states, ""} for offer in self._offers)
        keep = Path(tempfile.gettempdir()) / f"conformance-outage-{result.what}-{result.seed}.json"
        result.code, result.table = await audit(stage, keep)
        if result.code:
            result.table += stage.logs()


def _done(task: asyncio.Task[None]) -> bool:
    return task.done()


async def conduct(given: Ground, what: str, seconds: float, *, rate: float = RATE, seed: int = 0) -> Result:
    """Drive through one outage and return its figures; *rate* is in conversations a second."""
    began = time.monotonic()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a caller that was killed is no news here
    result = Result(what, seconds, seed, rate)
    # Patience below a long outage: clients are to meet errors, and to find that sending again is safe. No less than
    # this, or those that wait for a busy worker would send again and again, and keep it busy.
    settings: dict[str, Any] = {"roll_after_events": 60, "client_patience": min(60.0, max(10.0, seconds / 3))}
    async with ModelServer(reply=subject.answer) as models:
        world = await given.make(subject.AGENTS.read_text(encoding="utf-8"), api_base=models.base_url, **settings)
        async with Stage(given, world, models, fork=False) as stage:
            await Drive(stage, OUTAGES[what], result).run()
    result.took = round(time.monotonic() - began, 1)
    return result


async def _main(options: argparse.Namespace) -> int:
    async with ground() as given:
        result = await conduct(given, options.what, options.seconds, rate=options.rate, seed=options.seed)
    sys.stdout.write(result.text())
    if options.out is not None:
        options.out.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    return 0 if result.fine else 1


def main() -> int:
    """Run as a program; exit code 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.outages", description=__doc__)
    parser.add_argument("--what", choices=sorted(OUTAGES), required=True)
    parser.add_argument("--seconds", type=float, required=True, help="how long it is away")
    parser.add_argument("--rate", type=float, default=RATE, help="conversations a second")
    parser.add_argument("--seed", type=int, default=0, help="orders the kinds of conversation")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    return asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
