"""Drives the subject through faults from a seed, and has the auditor judge what is left. `conduct` does all of it."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.service import RPCError

from holdfast.errors import RunEnded
from holdfast.handles import RunHandle
from holdfast.testing import ModelServer
from tests.conformance import faults, subject
from tests.conformance.evidence import run_auditor
from tests.conformance.faults import Fault
from tests.conformance.faults.servers import DatabaseGone
from tests.conformance.faults.switchover import Failover
from tests.conformance.person import Person
from tests.conformance.pulse import pulse
from tests.conformance.recurring import recur
from tests.conformance.servers import Ground
from tests.conformance.stage import Stage
from tests.conformance.subject import KINDS, Kind, Thread
from tests.kit import until

__all__ = ["CAMPAIGN", "OUTAGE", "SMOKE", "Plan", "Report", "audit", "conduct"]


_TRIES = 3  # more for a fault that found nobody to strike


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
    every_kind: bool = False  # of conversation, once at least
    fork: bool = True  # processes are born by fork: of less use than as users start them, and ready sooner
    subject: Sequence[Kind] = KINDS


SMOKE = Plan("smoke", faults.SMOKE, faults=len(faults.SMOKE), calls=190, at_once=9, gap=(0.5, 3.0), every_kind=True)
# PostgreSQL away and nothing else: what a worker knows of its calls it keeps until it can say so.
OUTAGE = Plan(
    "outage",
    (DatabaseGone(shortest=3.0, longest=3.0),),
    faults=3,
    calls=60,
    lanes=1,
    gap=(2.0, 4.0),
    subject=[kind for kind in KINDS if kind.meanwhile is None],  # a person's stop leaves doubts of its own
)
# One fault at a time, few conversations at once, and pauses in which a worker can start: so that two cores keep up.
CAMPAIGN = Plan(
    "campaign",
    faults.CAMPAIGN,
    faults=len(faults.CAMPAIGN),
    calls=150,
    at_once=4,
    lanes=1,
    gap=(2.0, 7.0),
    patience=300.0,
    every_kind=True,
    fork=False,
)


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
    missing: set[str] = field(default_factory=set)  # faults that this machine cannot have, and why
    missed: Counter[str] = field(default_factory=Counter)  # faults that found nobody to strike, and were tried again
    figures: dict[str, Any] = field(default_factory=dict)  # as the auditor wrote them

    def text(self, title: str) -> str:
        """Return it for a person."""
        struck = ", ".join(f"{count} x {name}" for name, count in sorted(self.faults.items()))
        missing = "".join(f"  NOT DONE: {each}\n" for each in sorted(self.missing))
        return (
            f"\n{title}, seed {self.seed}: {self.seconds:.0f} s, {self.faults.total()} faults, {self.calls} guarded "
            f"calls asked for\n  {struck}\n  ended by themselves: {self.fell or 'none'}\n"
            f"  not ended: {self.unfinished or 'none'}\n"
            f"{missing}{self.table}"
        )


class Drive:
    """One drive through a plan."""

    def __init__(self, stage: Stage, plan: Plan, seed: int) -> None:
        self._stage, self._plan, self._seed = stage, plan, seed
        self._threads = subject.threads(random.Random(f"{seed} subject"), plan.subject)
        self._struck = asyncio.Event()
        self._order = random.Random(f"{seed} order of faults")
        self._round: list[Fault] = []  # each kind of the plan comes once in a round
        self._missed: Counter[int] = Counter()  # how often a fault found nobody to strike in it
        self._watchers = 0
        self._due = plan.faults
        self.faults: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.calls = self._begun = 0
        self.unfinished: list[str] = []
        self._queue = stage.world.settings.task_queue
        self.person = Person(stage)

    async def run(self) -> None:
        """Return once all faults are done and all runs have ended, well or not, or patience has."""
        stage, plan = self._stage, self._plan
        await stage.bear("memory")
        for _ in range(2):
            await stage.bear()
        await until(lambda: all(born.ready.exists() for born in stage.live), "the processes are ready")
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in (self.person.serve(), stage.keep(), pulse(stage.note))]
            work = [group.create_task(self._feed()) for _ in range(plan.at_once)]
            await until(lambda: stage.recorder.exists() and stage.recorder.stat().st_size > 0, "the first effect")
            lanes = [group.create_task(self._lane(number)) for number in range(plan.lanes)]
            await asyncio.wait(lanes)
            self._struck.set()
            await asyncio.wait(work)
            await self._settle()
            for task in beside:
                task.cancel()
        unfinished = ((thread,) for thread in self.unfinished)
        await stage.note("insert into evidence.unfinished values ($1)", *unfinished)

    # ------------------------------------------------------------------------------------ faults

    async def _lane(self, number: int) -> None:
        chance = random.Random(f"{self._seed} faults {number}")
        while self._due > 0:
            self._due -= 1
            await asyncio.sleep(chance.uniform(*self._plan.gap))
            if not self._round:
                self._round = self._order.sample(self._plan.kinds, len(self._plan.kinds))
                self._missed.clear()
            fault = self._round.pop()
            struck = await fault.strike(self._stage, chance)
            if struck is None:  # tried again when half of those that are left have struck
                self._due += 1
                self.missed[fault.name] += 1
                self._missed[id(fault)] += 1
                if self._missed[id(fault)] <= _TRIES:
                    self._round.insert(len(self._round) // 2, fault)
                continue
            self.faults[fault.name] += 1
            await self._stage.note(
                "insert into evidence.faults (kind, at, until, pids, threads, note) values ($1, $2, $3, $4, $5, $6)",
                (fault.name, struck.at, struck.until, struck.pids, struck.threads, struck.note),
            )

    # ------------------------------------------------------------------------------------ work

    async def _feed(self) -> None:
        """Have one conversation after the other, until the faults are done and there were enough calls."""
        least = len(self._plan.subject) if self._plan.every_kind else 0
        while not self._struck.is_set() or self.calls < self._plan.calls or self._begun < least:
            thread = next(self._threads)
            self._begun += 1
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
        if kind.recurs is not None:
            self.unfinished += await recur(self._stage, thread, chance, self._plan.patience)
            return
        beside: list[asyncio.Task[None]] = []
        for message in thread.messages:
            if runs:
                await asyncio.sleep(chance.uniform(*kind.pause))  # some find the workflow just ended
            told = await message.send(self._stage, message)
            await self._stage.note(
                "insert into evidence.sent (name, thread, kind, run_id, expected, remembers, text) "
                "values ($1, $2, $3, $4, $5, $6, $7)",
                *(
                    (message.name, thread.name, kind.name, run.run_id, message.ends, kind.remembers, message.text)
                    for run in told
                ),
            )
            await self._stage.note("insert into evidence.asked values ($1, $2, $3)", *kind.asked(message.name))
            offspring = kind.offspring(message.name)
            await self._stage.note("insert into evidence.offspring values ($1, $2, $3)", *offspring)
            if kind.meanwhile is not None and not runs:
                beside.append(asyncio.create_task(kind.meanwhile(self._stage, told[0], chance)))
            runs.append(told[0])
        watching = [
            asyncio.create_task(self._watch(run))
            for run in {runs[0].run_id: runs[0], runs[-1].run_id: runs[-1]}.values()
        ]
        for run in runs:
            try:
                await run.result(timeout=self._plan.patience)
            except RunEnded:  # the auditor reads how it ended
                pass
            except TimeoutError:
                self.unfinished.append(run.thread)
                for task in watching:
                    task.cancel()
        for task in (*watching, *beside):
            with suppress(asyncio.CancelledError):
                await task

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
            "union all select 1 from holdfast.outbox "
            "union all select 1 from holdfast.runs where ended_at is null and parent_run_id is not null"
        )
        asking = f"WorkflowType = 'AskWorkflow' and ExecutionStatus = 'Running' and TaskQueue = '{self._queue}'"

        async def nothing() -> bool:
            if await self._stage.rows(left):
                return False
            with suppress(RPCError):
                return (await self._stage.plain.count_workflows(asking)).count == 0
            return False

        with suppress(AssertionError):  # the auditor says what is left
            await until(nothing, "everything is settled", patience=45)


async def audit(stage: Stage, keep: Path | None = None) -> tuple[int, str]:
    """Run the auditor, a program of its own, and return its exit code and table."""
    url, figures = stage.world.settings.database_url or "", stage.world.folder / "figures.json"
    return await run_auditor(stage.recorder, url, stage.histories, figures, keep)


async def conduct(ground: Ground, plan: Plan, seed: int) -> Report:
    """Drive through *plan* and return the auditor's word."""
    began = time.monotonic()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a caller that was killed is no news here
    settings: dict[str, Any] = {"roll_after_events": 50}
    cluster = await ground.cluster() if any(isinstance(fault, Failover) for fault in plan.kinds) else None
    async with ModelServer(reply=subject.answer) as models:
        source = await asyncio.to_thread(subject.AGENTS.read_text, encoding="utf-8")
        world = await ground.make(source, cluster, api_base=models.base_url, **settings)
        async with Stage(ground, world, models, cluster=cluster, fork=plan.fork) as stage:
            drive = Drive(stage, plan, seed)
            await drive.run()
            await stage.dismiss()
            await stage.close_books()
            code, table = await audit(stage, Path(tempfile.gettempdir()) / f"conformance-{plan.name}-{seed}.json")
            if code:
                table += stage.logs()
            counted = world.folder / "figures.json"  # not there if the auditor itself failed: the table says why
            figures = json.loads(counted.read_text(encoding="utf-8")) if counted.exists() else {}
    seconds = time.monotonic() - began
    return Report(
        *(seed, code, table, seconds, drive.faults, drive.calls, drive.unfinished, stage.fell, stage.missing),
        *(drive.missed, figures),
    )
