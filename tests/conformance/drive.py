"""Drives the subject through faults from a seed, and has the auditor judge what is left. `conduct` does all of it."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, RunEnded
from holdfast.handles import RunHandle
from holdfast.testing import ModelServer
from tests.conformance import faults, subject
from tests.conformance.faults import Fault
from tests.conformance.person import Person
from tests.conformance.stage import Nursery, Stage
from tests.conformance.subject import Thread
from tests.kit import World, until

__all__ = ["CAMPAIGN", "SMOKE", "Plan", "Report", "audit", "conduct"]

MakeWorld = Callable[..., Awaitable[World]]


@dataclass(frozen=True)
class Plan:
    """How much of everything. Times in seconds."""

    name: str
    kinds: Sequence[Fault]
    faults: int
    calls: int  # guarded calls, at least
    at_once: int = 6  # conversations
    lanes: int = 2  # faults at the same time
    gap: tuple[float, float] = (0.5, 4.0)  # between two faults of a lane
    patience: float = 150.0  # for the last run to end


SMOKE = Plan("smoke", faults.SMOKE, faults=28, calls=190)
CAMPAIGN = Plan("campaign", faults.CAMPAIGN, faults=80, calls=700, at_once=8, patience=300.0)


@dataclass
class Report:
    """What came of one drive."""

    seed: int
    code: int  # of the auditor
    table: str
    seconds: float
    faults: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    unfinished: list[str] = field(default_factory=list)
    fell: list[str] = field(default_factory=list)  # processes that ended by themselves and were replaced

    def text(self, title: str) -> str:
        """Return it for a person."""
        struck = ", ".join(f"{count} x {name}" for name, count in sorted(self.faults.items()))
        return (
            f"\n{title}, seed {self.seed}: {self.seconds:.0f} s, {self.faults.total()} faults, {self.calls} guarded "
            f"calls asked for\n  {struck}\n  ended by themselves: {self.fell or 'none'}\n{self.table}"
        )


class Drive:
    """One drive through a plan."""

    def __init__(self, stage: Stage, plan: Plan, seed: int) -> None:
        self._stage, self._plan, self._seed = stage, plan, seed
        self._threads = subject.threads(random.Random(f"{seed} subject"))
        self._struck = asyncio.Event()
        self._order = random.Random(f"{seed} order of faults")
        self._round: list[Fault] = []  # each kind of the plan comes once in a round
        self._watchers = 0
        self._due = plan.faults
        self.faults: Counter[str] = Counter()
        self.calls = 0
        self.unfinished: list[str] = []
        self.person = Person(stage)

    async def run(self) -> None:
        """Return once all faults are done and all runs have ended, well or not, or patience has."""
        stage, plan = self._stage, self._plan
        await stage.bear("memory")
        for _ in range(2):
            await stage.bear()
        await until(lambda: all(born.ready.exists() for born in stage.live), "the processes are ready")
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in (self.person.serve(), stage.keep())]
            work = [group.create_task(self._feed()) for _ in range(plan.at_once)]
            await until(lambda: stage.recorder.exists() and stage.recorder.stat().st_size > 0, "the first effect")
            lanes = [group.create_task(self._lane(number)) for number in range(plan.lanes)]
            await asyncio.wait(lanes)
            self._struck.set()
            await asyncio.wait(work)
            await self._settle()
            for task in beside:
                task.cancel()

    # ------------------------------------------------------------------------------------ faults

    async def _lane(self, number: int) -> None:
        chance = random.Random(f"{self._seed} faults {number}")
        while self._due > 0:
            self._due -= 1
            await asyncio.sleep(chance.uniform(*self._plan.gap))
            if not self._round:
                self._round = self._order.sample(self._plan.kinds, len(self._plan.kinds))
            fault = self._round.pop()
            struck = await fault.strike(self._stage, chance)
            if struck is None:
                self._due += 1
                continue
            self.faults[fault.name] += 1
            await self._stage.note(
                "insert into evidence.faults (kind, at, until, pids, threads, note) values ($1, $2, $3, $4, $5, $6)",
                (fault.name, struck.at, struck.until, struck.pids, struck.threads, struck.note),
            )

    # ------------------------------------------------------------------------------------ work

    async def _feed(self) -> None:
        """Have one conversation after the other, until the faults are done and there were enough calls."""
        while not self._struck.is_set() or self.calls < self._plan.calls:
            thread = next(self._threads)
            self.calls += thread.guarded
            self._stage.active.add(thread.name)
            try:
                await self._converse(thread)
            finally:
                self._stage.active.discard(thread.name)

    async def _converse(self, thread: Thread) -> None:
        kind = thread.kind
        runs: list[RunHandle] = []
        chance = random.Random(f"{self._seed} {thread.name}")
        for message in thread.messages:
            if runs:
                await asyncio.sleep(chance.uniform(0.0, 3.0))  # some find the workflow just ended, by itself or a fault
            for _ in range(1 + kind.again):
                run = await self._send(thread, message.name)
                await self._stage.note(
                    "insert into evidence.sent (name, thread, kind, run_id, expected, remembers) "
                    "values ($1, $2, $3, $4, $5, $6)",
                    (message.name, thread.name, kind.name, run.run_id, kind.ends, kind.remembers),
                )
            runs.append(run)
            await self._stage.note("insert into evidence.asked values ($1, $2, $3)", *kind.asked(message.name))
        watching = asyncio.create_task(self._watch(runs[0]))
        for run in runs:
            try:
                await run.result(timeout=self._plan.patience)
            except RunEnded:  # the auditor reads how it ended
                pass
            except TimeoutError:
                self.unfinished.append(run.thread)
                watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    async def _send(self, thread: Thread, name: str) -> RunHandle:
        """Send a message; after an error send it again, as a client may that gave a message id."""
        for _ in range(5):
            with suppress(HoldfastError):
                return await self._stage.client.start(thread.kind.agent, name, thread=thread.name, message_id=name)
        raise AssertionError(f"message {name} could not be sent: {self._stage.logs()}")

    async def _watch(self, run: RunHandle) -> None:
        """Follow a run's events as a client that breaks off at random and resumes behind the last it saw."""
        self._watchers += 1
        chance = random.Random(f"{self._seed} watcher {self._watchers}")
        watcher, seen = self._watchers, list[int]()
        over = False
        while not over:
            stay = chance.randrange(1, 6)
            async for event in run.events(after=seen[-1] if seen else 0):
                seen.append(event.seq)
                over = event.kind in ("ended", "refused", "merged")
                stay -= 1
                if stay == 0:
                    break
            else:
                over = True
        rows = [(run.run_id, watcher, position, seq) for position, seq in enumerate(seen, 1)]
        await self._stage.note("insert into evidence.watched values ($1, $2, $3, $4)", *rows)

    async def _settle(self) -> None:
        """Wait until nothing is left of calls of ended runs, and of what is to be remembered."""
        left = (
            "select 1 from holdfast.effects where state in ('in_flight', 'in_doubt') "
            "union all select 1 from holdfast.outbox"
        )

        async def nothing() -> bool:
            return not await self._stage.rows(left)

        with suppress(AssertionError):  # the auditor says what is left
            await until(nothing, "everything is settled", patience=45)


async def audit(stage: Stage, keep: Path | None = None) -> tuple[int, str]:
    """Run the auditor, a program of its own, and return its exit code and table."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.conformance.audit",
        *("--recorder", str(stage.recorder)),
        *("--database", stage.world.settings.database_url or ""),
        *("--histories", str(stage.histories)),
        *(() if keep is None else ("--keep", str(keep))),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def conduct(make_world: MakeWorld, nursery: Nursery, plan: Plan, seed: int) -> Report:
    """Drive through *plan* and return the auditor's word."""
    began = time.monotonic()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a caller that was killed is no news here
    settings: dict[str, Any] = {"roll_after_events": 60}
    async with ModelServer(subject.script()) as models:
        world = await make_world(subject.AGENTS.read_text(encoding="utf-8"), api_base=models.base_url, **settings)
        async with Stage(world, models, nursery) as stage:
            drive = Drive(stage, plan, seed)
            await drive.run()
            await stage.close_books()
            code, table = await audit(stage, Path(tempfile.gettempdir()) / f"conformance-{plan.name}-{seed}.json")
            if code:
                table += stage.logs()
    return Report(seed, code, table, time.monotonic() - began, drive.faults, drive.calls, drive.unfinished, stage.fell)
