"""What a drive stands on: a world whose processes can be killed, proxies before its servers, the evidence it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import psutil
from temporalio.client import Client as Temporal
from temporalio.worker import Replayer

from holdfast.contracts import MEMORY_WORKFLOW, MemoryAnswer, MemoryQuestion
from holdfast.convert import data_converter
from holdfast.runtime import MEMORY_WORKFLOWS, WORKFLOWS, workflow_runner
from holdfast.testing import ModelServer
from tests import histories
from tests.conformance.proxy import FaultProxy
from tests.kit import World, until

__all__ = ["Born", "Nursery", "Stage", "now"]

ROOT = Path(__file__).parents[2]


def now() -> datetime:
    """Return the time as the database keeps it; everything here is on one machine and one clock."""
    return datetime.now(UTC)


@dataclass(eq=False)
class Born:
    """A process of the product."""

    pid: int
    role: str
    ready: Path
    log: Path
    frozen: bool = False
    leaving: bool = False  # told to stop

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by a signal right now."""
        return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    @property
    def ended(self) -> bool:
        """Whether it has ended and waits to be reaped."""
        return bool(psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE)

    def signal(self, number: int) -> None:
        """Send a signal; until it is reaped its id is its own."""
        os.kill(self.pid, number)


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


class Nursery:
    """The program that bears processes; several stages may share one, for it imports for seconds."""

    def __init__(self) -> None:
        self._process = _start("tests.conformance.nursery")
        self._word = asyncio.Lock()

    async def tell(self, word: dict[str, Any]) -> dict[str, Any]:
        """Say a word and return the answer."""
        async with self._word:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(word) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(await asyncio.to_thread(self._process.stdout.readline))
            return answer

    async def close(self) -> None:
        """End it and all that live."""
        await asyncio.to_thread(self._process.communicate)  # closes its input: it ends by that


@dataclass
class Stage:
    """Use as `async with`; then `bear` processes. What faults need is public here, and nothing else reaches them."""

    world: World
    models: ModelServer
    nursery: Nursery
    live: list[Born] = field(default_factory=list)
    active: set[str] = field(default_factory=set)  # threads with a run that has not ended
    url: str = ""  # of the recorder
    fell: list[str] = field(default_factory=list)  # last words of processes that ended by themselves

    def __post_init__(self) -> None:
        """Name the files and proxies."""
        self.recorder = self.world.folder / "recorder.jsonl"
        self.histories = self.world.folder / "histories"
        self.database = FaultProxy(self.world.settings.database_url or "")
        self.temporal = FaultProxy(f"tcp://{self.world.settings.temporal_address}")
        self._born = 0
        self._pen = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Start recorder, nursery and proxies, and prepare the database."""
        await self.database.open()
        await self.temporal.open()
        self._recorder = _start("tests.outside.recorder", "--port", "0", "--log", str(self.recorder))
        assert self._recorder.stdout is not None
        self.url = f"http://127.0.0.1:{(await asyncio.to_thread(self._recorder.stdout.readline)).strip()}"
        self._conn = await asyncpg.connect(self.world.settings.database_url)
        await self._conn.execute(Path(__file__).with_name("evidence.sql").read_text(encoding="utf-8"))
        self.client = await self.world.client()
        self.plain: Temporal = await histories.connect(self.world.settings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything that was started here."""
        self._recorder.terminate()
        await asyncio.to_thread(self._recorder.communicate)
        for born in list(self.live):
            await self.reap(born)
        await self._conn.close()
        await self.database.shut()
        await self.temporal.shut()

    # ------------------------------------------------------------------------------------ processes

    async def bear(self, role: str = "agents", *, switches: Iterable[str] = (), wait: bool = False) -> Born:
        """Start a process, with guards switched off if asked; with *wait* return when it polls."""
        self._born += 1
        ready, log = (self.world.folder / f"{role}-{self._born}.{kind}" for kind in ("ready", "log"))
        env = self.world.environment(
            CONFORMANCE_RECORDER=self.url,
            HOLDFAST_DATABASE_URL=self.database.url,
            HOLDFAST_TEMPORAL_ADDRESS=self.temporal.address,
            CONFORMANCE_MARK=str(self.world.folder / "mark"),
        )
        word = {"bear": str(ready), "log": str(log), "role": role, "env": env, "switches": list(switches)}
        born = Born((await self.nursery.tell(word))["pid"], role, ready, log)
        self.live.append(born)
        if wait:

            def polls() -> bool:
                assert not born.ended, f"{role} ended: {log.read_text()[-2000:]}"
                return ready.exists()

            await until(polls, f"{role} is ready: {log}")
        return born

    async def reap(self, victim: Born) -> datetime:
        """Kill -9 a process that lives, or bury one that ended by itself; return when."""
        if victim in self.live:
            self.live.remove(victim)
        return datetime.fromtimestamp((await self.nursery.tell({"reap": victim.pid}))["at"], UTC)

    async def keep(self) -> None:
        """Do what a supervisor does: replace what ended by itself, such as one born while PostgreSQL is gone."""
        while True:
            for born in [born for born in self.live if not born.leaving]:
                if born in self.live and born.ended:
                    await self.reap(born)
                    text = await asyncio.to_thread(born.log.read_text)
                    self.fell.append(f"{born.log.name}: {(text.strip().splitlines() or ['no word'])[-1][:200]}")
                    await self.bear(born.role)
            await asyncio.sleep(0.3)

    def workers(self) -> list[Born]:
        """Return the agent workers that serve and are awake."""
        return [
            born
            for born in self.live
            if born.role == "agents" and not born.frozen and not born.leaving and born.ready.exists()
        ]

    def logs(self) -> str:
        """Return the ends of the latest logs."""
        files = sorted(self.world.folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[-3:]
        return "\n".join(f"== {file.name}\n{file.read_text()[-2000:]}" for file in files)

    # ------------------------------------------------------------------------------------ evidence

    async def note(self, query: str, *rows: tuple[Any, ...]) -> None:
        """Write rows of evidence."""
        async with self._pen:
            await self._conn.executemany(query, rows)

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Read from the database, past every proxy."""
        async with self._pen:
            return [dict(row) for row in await self._conn.fetch(query, *args)]

    async def close_books(self) -> None:
        """Write down what only the servers know: model calls, memories, histories and whether they replay."""
        await self.note(
            "insert into evidence.model_calls values ($1, $2, $3, $4)",
            *(_model_call(entry) for entry in self.models.journal),
        )
        hits = await self._memories()
        await self.note("insert into evidence.memories values ($1, $2, $3)", *hits)
        self.histories.mkdir(exist_ok=True)
        replayer = Replayer(
            workflows=[*WORKFLOWS, *MEMORY_WORKFLOWS], data_converter=data_converter, workflow_runner=workflow_runner()
        )
        queues = (self.world.settings.task_queue, self.world.settings.memory_queue)
        query = " or ".join(f"TaskQueue = '{queue}'" for queue in queues)
        async for found in self.plain.list_workflows(query):
            history = await self.plain.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
            whole = {"workflow_id": found.id, "run_id": found.run_id, "type": found.workflow_type}
            path = self.histories / f"{found.id.replace(':', '_')}-{found.run_id}.json"
            path.write_text(json.dumps({**whole, **history.to_json_dict()}), encoding="utf-8")
            result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
            error = None if result.replay_failure is None else repr(result.replay_failure)[:2000]
            await self.note("insert into evidence.replays values ($1, $2, $3)", (found.id, found.run_id, error))

    async def _memories(self) -> list[tuple[str, str | None, str]]:
        if not any(born.role == "memory" for born in self.live):
            return []
        answer: MemoryAnswer = await self.plain.execute_workflow(
            MEMORY_WORKFLOW,
            MemoryQuestion(tenant=self.world.settings.tenant, text="all done with memory", limit=100),
            id=f"{self.world.settings.tenant}-memories",
            task_queue=self.world.settings.memory_queue,
            result_type=MemoryAnswer,
        )
        return [(str(hit.id), hit.run_id, hit.text) for hit in answer.hits]


def _model_call(entry: dict[str, Any]) -> tuple[datetime, str, int, bool]:
    """Return (when, run, round, whether the server made it fail) of a request, read from its body alone."""
    messages = entry["body"]["messages"]
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    text = messages[last]["content"] if last >= 0 else ""
    if isinstance(text, list):
        text = "".join(str(part.get("text", "")) for part in text)
    spoken = sum(message["role"] == "assistant" for message in messages[last + 1 :])
    return datetime.fromtimestamp(entry["at"], UTC), text, spoken + 1, "fault" in entry["answer"]
