"""Drives a crash test: keeps runs going, kills workers at random moments, plays the person who resolves doubts.

It judges nothing. What it leaves behind (kills, names of runs, the recorder's log, the database) the auditor reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from holdfast import Client
from holdfast.errors import DecisionRefused, RunEnded, StackError
from holdfast.memory.database import connect
from tests.crash.gate import Gate
from tests.kit import World, until

__all__ = ["SCRIPT", "CrashDrive", "Kill", "Plan", "asked_calls"]

ROOT = Path(__file__).parents[2]
AGENTS = Path(__file__).with_name("agents.py")

# Three rounds of four guarded calls and a pure one, in parallel; {{n}} makes the arguments of each round distinct.
_ODD = ["once_async", "keyed_sync", "verifiable_async", "local_note", "pure_look"]
_EVEN = ["once_sync", "keyed_async", "verifiable_sync", "local_note", "pure_look"]
_ROUNDS = [_ODD, _EVEN, _ODD]
_ARGUMENTS = {"run": "{{user}}", "n": "{{n}}"}
SCRIPT: dict[str, Any] = {
    "conversations": [
        {
            "replies": [
                *({"call": [{name: _ARGUMENTS} for name in names], "latency": 0.05} for names in _ROUNDS),
                {"say": "all done", "latency": 0.05},
            ]
        }
    ]
}

# The ledger as it changes, written by the database itself: renewals of a lease alone are left out.
_EVIDENCE = """
create table public.notes (id bigint generated always as identity, key text, run text, n text);
create table public.ledger_log (
    id bigint generated always as identity, at timestamptz not null default clock_timestamp(),
    key text, run_id uuid, step_no int, tool text, class text, state text, fence int, owner text, sent_at timestamptz
);
create function public.log_ledger() returns trigger language plpgsql as $$
begin
    insert into public.ledger_log (key, run_id, step_no, tool, class, state, fence, owner, sent_at)
    values (new.key, new.run_id, new.step_no, new.tool, new.class, new.state, new.fence, new.owner, new.sent_at);
    return null;
end $$;
create trigger log_insert after insert on holdfast.effects for each row execute function public.log_ledger();
create trigger log_update after update on holdfast.effects for each row
when ((old.state, old.fence, old.owner, old.sent_at) is distinct from (new.state, new.fence, new.owner, new.sent_at))
execute function public.log_ledger();
"""


def asked_calls(runs: list[str]) -> list[tuple[str, str, str]]:
    """Return (tool, run, n) of every call that the script makes the model ask for."""
    return [(name, run, str(n)) for run in runs for n, names in enumerate(_ROUNDS, 1) for name in names]


def _start(module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass(frozen=True)
class Plan:
    """How much of everything. Times in seconds."""

    kills: int
    runs: int  # at least; more are started as long as kills are to come
    at_once: int = 7
    gap: tuple[float, float] = (0.8, 3.6)  # between two kills
    ledger: bool = True
    outage: float = 0.0  # above 0: nobody is killed, PostgreSQL is away from the workers for so long
    patience: float = 150.0  # for the last run to end

    @property
    def aims(self) -> bool:
        """Whether the ledger can tell which kills hit a call, so that kills go on until half of them did."""
        return self.ledger and not self.outage


@dataclass(frozen=True)
class Kill:
    """One kill -9: whom, when (Unix seconds), and how many calls it had sent and not ended just before."""

    pid: int
    at: float
    in_flight: int


@dataclass
class CrashDrive:
    """One drive through a plan. Use as `async with`, then `run()`."""

    world: World
    plan: Plan
    seed: int
    kills: list[Kill] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    refusals: int = 0  # words of the person that had to be said again

    def __post_init__(self) -> None:
        """Take a random generator of our own."""
        self._random = random.Random(self.seed)
        self._live: list[int] = []
        self._born = 0
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._killed = asyncio.Event()
        self._gate = Gate(self.world.settings.database_url or "")
        self.log = self.world.folder / "recorder.jsonl"

    async def __aenter__(self) -> Self:
        """Start recorder and nursery, and prepare the database."""
        await self._gate.open()
        self._recorder = _start("tests.outside.recorder", "--port", "0", "--log", str(self.log))
        assert self._recorder.stdout is not None
        self._url = f"http://127.0.0.1:{(await asyncio.to_thread(self._recorder.stdout.readline)).strip()}"
        self._nursery = _start(
            "tests.crash.nursery",
            *([] if self.plan.ledger else ["--ledger-off"]),
            **self.world.environment(CRASH_RECORDER=self._url, HOLDFAST_DATABASE_URL=self._gate.url),
        )
        conn = await connect(self.world.settings.database_url or "")
        await conn.execute(_EVIDENCE)
        await conn.close()
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything that was started here."""
        for task in self._resolving.values():
            task.cancel()
        await self._http.close()
        await self._gate.shut()
        self._recorder.terminate()
        for process in (self._nursery, self._recorder):
            await asyncio.to_thread(process.communicate)  # closes its input: the nursery ends by that

    async def run(self) -> None:
        """Go through the plan: return once all kills are done and all runs have ended, well or not."""
        ready = [await self._bear() for _ in range(2)]
        await until(lambda: all(file.exists() for file in ready), "two workers are ready")
        client = await self.world.client()
        async with asyncio.TaskGroup() as group:
            person = group.create_task(self._resolve(client))
            work = [group.create_task(self._feed(client)) for _ in range(self.plan.at_once)]
            await asyncio.wait([group.create_task(self._kill()), *work])
            person.cancel()

    # ------------------------------------------------------------------------------------ workers

    async def _tell(self, word: dict[str, Any]) -> dict[str, Any]:
        nursery = self._nursery
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write(json.dumps(word) + "\n")
        nursery.stdin.flush()
        answer: dict[str, Any] = json.loads(await asyncio.to_thread(nursery.stdout.readline))
        return answer

    async def _bear(self) -> Path:
        self._born += 1
        ready = self.world.folder / f"worker-{self._born}.ready"
        said = await self._tell({"bear": str(ready), "log": str(self.world.folder / f"worker-{self._born}.log")})
        self._live.append(said["pid"])
        return ready

    async def _kill(self) -> None:
        """Kill one of the two at random moments, until enough were killed, half of them with a call in flight."""
        await until(lambda: self.log.exists() and self.log.stat().st_size > 0, "the first effect")
        while len(self.kills) < self.plan.kills or (self.plan.aims and 2 * self._hits() < len(self.kills)):
            assert len(self.kills) < 2 * self.plan.kills, f"only {self._hits()} of {len(self.kills)} kills hit a call"
            await asyncio.sleep(self._random.uniform(*self.plan.gap))
            if self.plan.outage:
                self.kills.append(Kill(0, time.time(), 0))
                await self._gate.shut()
                await asyncio.sleep(self.plan.outage)
                await self._gate.open()
                continue
            victim = self._live.pop(self._random.randrange(len(self._live)))
            open_calls = await self.world.rows(
                "select 1 from effects where state = 'in_flight' and sent_at is not null and owner like $1",
                f"{victim}.%",
            )
            said = await self._tell({"kill": victim})
            assert os.WIFSIGNALED(said["status"]), f"worker {victim} had ended by itself: {self.logs()}"
            self.kills.append(Kill(victim, said["at"], len(open_calls)))
            await self._bear()
        self._killed.set()

    def _hits(self) -> int:
        return sum(kill.in_flight > 0 for kill in self.kills)

    def logs(self) -> str:
        """Return the ends of the latest workers' logs."""
        files = sorted(self.world.folder.glob("worker-*.log"), key=lambda file: file.stat().st_mtime)[-3:]
        return "\n".join(f"== {file.name}\n{file.read_text()[-2000:]}" for file in files)

    # ------------------------------------------------------------------------------------ runs

    async def _feed(self, client: Client) -> None:
        """Start one run after the other, until the kills are done and there were enough of them."""
        while not self._killed.is_set() or len(self.runs) < self.plan.runs:
            name = f"run-{len(self.runs) + 1:02}"
            self.runs.append(name)
            run = await client.start("crash", name, thread=name, message_id=name)
            with suppress(RunEnded, TimeoutError):  # the auditor reads how it ended
                await run.result(timeout=self.plan.patience)

    # ------------------------------------------------------------------------------------ the person

    async def _resolve(self, client: Client) -> None:
        """Say of each call in doubt what the recorder says of it. A word that is refused is said again."""
        while True:
            for row in await self.world.rows(
                "select key, run_id::text, step_no, tool from effects where state = 'in_doubt'"
            ):
                task = self._resolving.get(row["key"])
                if task is None or task.done():
                    if task is not None:
                        task.result()
                    self._resolving[row["key"]] = asyncio.create_task(self._resolve_one(client, row))
            await asyncio.sleep(0.2)

    async def _resolve_one(self, client: Client, row: dict[str, Any]) -> None:
        run = await client.get(row["run_id"])
        async with self._http.get(f"{self._url}/lookup/{row['tool']}/{row['key']}") as answer:
            arrived = str((await answer.json())["result"]) if answer.status == 200 else None
        try:
            if arrived is not None:
                await run.resolve(row["step_no"], done=arrived, actor="person")
            else:
                await run.resolve(row["step_no"], not_done=True, actor="person")
        except (DecisionRefused, StackError):
            self.refusals += 1
