"""What `resume` and `starved` stand on: workers to be killed, a recorder that counts, and what they say at the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from temporalio.client import Client as Temporal

from holdfast import Client
from holdfast.handles import RunHandle
from scripts.bench_kit.models import model_server
from tests import histories, standalone
from tests.conformance.processes import Birth, start
from tests.kit import World, until

__all__ = ["RUNS", "Count", "Crew", "Worker", "crew"]

RUNS = 10  # under way when the kill comes
GUARDED = ("keyed", "local_tx", "once", "verifiable")
_NOTES = "create table public.notes (id bigint generated always as identity, key text not null)"
_DOUBTS = "select run_id::text as run, count(*) as n from events where kind = 'in_doubt' group by 1"


@dataclass(frozen=True)
class Count:
    """What runs came to. `doubts` are calls that went in doubt at any time."""

    runs: int
    finished: int
    calls: int  # of tools with an effect
    twice: int
    lost: int
    doubts: int
    bought_twice: int  # model calls

    def sentence(self) -> str:
        """Return it for a person."""
        return (
            f"{self.finished} of {self.runs} runs finished; of {self.calls} calls with an effect {self.twice} took it "
            f"twice, {self.lost} are lost, {self.doubts} were in doubt; {self.bought_twice} model calls bought twice"
        )


@dataclass(eq=False)
class Worker:
    """A worker process."""

    pid: int
    log: Path

    @property
    def ended(self) -> bool:
        """Whether it has ended and waits to be reaped."""
        return bool(psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE)

    def freeze(self) -> None:
        """Stop it with a signal; until it is reaped its id is its own."""
        os.kill(self.pid, signal.SIGSTOP)


class _Nursery:
    """The program that forks workers which are ready within a second."""

    def __init__(self) -> None:
        self._process = start("scripts.bench_kit.deaths")

    def tell(self, word: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(word) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()  # closes its input: it ends by that, and with it all it bore


@dataclass
class Crew:
    """The workers, clients and counters of one measurement."""

    world: World
    client: Client
    temporal: Temporal
    marks: Path
    delay: str
    _nursery: _Nursery
    _recorder: str
    _log: Path
    _journal: Path
    _born: int = 0
    _live: list[Worker] = field(default_factory=list)

    async def worker(self, *, deaths: Iterable[str] = ()) -> Worker:
        """Return a worker that polls; *deaths* are names of `deaths.DEATHS`."""
        self._born += 1
        ready, log = (self.world.folder / f"worker-{self._born}.{kind}" for kind in ("ready", "log"))
        env = self.world.environment(
            BENCH_RECORDER=self._recorder,
            BENCH_DELAY=self.delay,
            BENCH_MARKS=str(self.marks),
            BENCH_DIE_WITH=str(RUNS),
            OPENAI_API_KEY="none",
        )
        word = Birth(bear=str(ready), log=str(log), role="agents", env=env, switches=list(deaths), fork=True)
        born = Worker((await asyncio.to_thread(self._nursery.tell, word))["pid"], log)
        self._live.append(born)

        def polls() -> bool:
            assert not born.ended, f"a worker ended: {log.read_text()[-3000:]}"
            return ready.exists()

        await until(polls, f"a worker is ready: {log}", patience=300)
        return born

    async def kill(self, born: Worker) -> float:
        """Kill -9 a worker, or bury one that has killed itself, and return when, in Unix seconds."""
        self._live.remove(born)
        found: float = (await asyncio.to_thread(self._nursery.tell, {"reap": born.pid}))["at"]
        return found

    async def end(self) -> None:
        """Kill every worker."""
        for born in list(self._live):
            await self.kill(born)

    async def start(self, name: str, count: int = RUNS) -> list[RunHandle]:
        """Start runs at once; the model is told *name* and does as its script says."""
        for file in self.marks.iterdir():
            file.unlink()
        self._born += 1
        thread = f"{name.replace(' ', '_')}-{self._born}"
        asked = (
            self.client.start("worker", f"{name}: {thread}-{n}", thread=f"{thread}-{n}", message_id=f"{thread}-{n}")
            for n in range(count)
        )
        return list(await asyncio.gather(*asked))

    async def gathered(self, runs: Sequence[RunHandle], what: str, patience: float) -> None:
        """Wait until each run has left its mark, at most *patience* seconds."""
        names = {run.run_id for run in runs}
        await until(lambda: names <= {file.name for file in self.marks.iterdir()}, what, patience=patience)

    async def count(self, runs: Sequence[RunHandle]) -> Count:
        """Return what came of *runs*: the recorder's word, the table's and the model server's against the ledger."""
        ids = [run.run_id for run in runs]
        ledger = await self.world.rows(
            "select key, class, state from effects where run_id::text = any($1) and class = any($2)", ids, list(GUARDED)
        )
        effects = Counter[str]()
        for line in (await asyncio.to_thread(self._log.read_text)).splitlines():
            entry = json.loads(line)
            effects[entry["key"]] += entry["kind"] == "effect"
        for row in await self.world.rows("select key from public.notes"):
            effects[row["key"]] += 1
        doubts = {row["run"]: row["n"] for row in await self.world.rows(_DOUBTS)}
        ended = await self.world.rows("select 1 from runs where run_id::text = any($1) and state = 'done'", ids)
        bought = Counter(
            json.loads(line)["hash"] for line in (await asyncio.to_thread(self._journal.read_text)).splitlines()
        )
        return Count(
            runs=len(runs),
            finished=len(ended),
            calls=len(ledger),
            twice=sum(effects[row["key"]] > 1 for row in ledger),
            lost=sum(row["state"] == "done" and not effects[row["key"]] for row in ledger),
            doubts=sum(doubts.get(run, 0) for run in ids),
            bought_twice=sum(times - 1 for times in bought.values()),
        )


@asynccontextmanager
async def crew(script: str, delay: str = "250") -> AsyncIterator[Crew]:
    """Give a crew without a worker on servers of its own; *delay* is in milliseconds, as `agents` has it."""
    source = await asyncio.to_thread(Path(__file__).with_name("agents.py").read_text, encoding="utf-8")
    async with standalone.servers() as given:
        folder = Path(given["folder"])
        journal, log, marks = folder / "journal", folder / "recorder", folder / "marks"
        await asyncio.to_thread(marks.mkdir)
        recorder = start("tests.outside.recorder", "--port", "0", "--log", str(log))
        nursery = _Nursery()
        assert recorder.stdout is not None
        url = f"http://127.0.0.1:{(await asyncio.to_thread(recorder.stdout.readline)).strip()}"
        try:
            async with (
                model_server(folder, script, journal) as api_base,
                standalone.world(given, source, api_base=api_base, database_pool=4 * RUNS) as world,
            ):
                await world.rows(_NOTES)
                temporal = await histories.connect(world.settings)
                made = Crew(world, await world.client(), temporal, marks, delay, nursery, url, log, journal)
                try:
                    yield made
                finally:
                    await made.end()
        finally:
            recorder.terminate()
            await asyncio.to_thread(recorder.communicate)
            await asyncio.to_thread(nursery.close)
