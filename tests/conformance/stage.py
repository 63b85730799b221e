"""What a drive stands on: a world whose processes can be killed, proxies before its servers, the evidence it leaves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from temporalio.client import Client as Temporal

from holdfast.contracts import MEMORY_WORKFLOW, MemoryAnswer, MemoryHit, MemoryQuestion
from holdfast.testing import ModelServer
from tests import histories
from tests.conformance import clock
from tests.conformance.cluster import Cluster
from tests.conformance.evidence import export, model_call
from tests.conformance.offices import Offices
from tests.conformance.processes import Birth, Born, start
from tests.conformance.proxy import FaultProxy
from tests.conformance.servers import Ground
from tests.conformance.witness import Witness
from tests.kit import World, until

__all__ = ["Stage", "now"]

_PAUSES = (0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0)  # seconds before a process that died so often starts again


def now() -> datetime:
    """Return the time as the database keeps it; everything here is on one machine and one clock."""
    return datetime.now(UTC)


@dataclass
class Stage:
    """Use as `async with`; then `bear` processes. What faults need is public here, and nothing else reaches them."""

    ground: Ground
    world: World
    models: ModelServer
    live: list[Born] = field(default_factory=list)
    active: set[str] = field(default_factory=set)  # threads with a run that has not ended
    url: str = ""  # of the recorder
    cluster: Cluster | None = None  # that the world's database is in, if it can be switched over
    fork: bool = True  # processes are born by fork, ready within a second; else started as users start them
    fell: list[str] = field(default_factory=list)  # last words of processes that ended by themselves
    missing: set[str] = field(default_factory=set)  # faults that this machine cannot have, and why

    def __post_init__(self) -> None:
        """Name the files and proxies."""
        self.recorder = self.world.folder / "recorder.jsonl"
        self.histories = self.world.folder / "histories"
        url = self.world.settings.database_url or ""
        self.database = FaultProxy(url if self.cluster is None else self.cluster.for_workers(url))
        self.temporal = FaultProxy(f"tcp://{self.world.settings.temporal_address}")
        self.offices = Offices(self.world.folder)
        self._born = 0
        self._witness = Witness(self.world.settings.database_url or "")

    async def __aenter__(self) -> Self:
        """Start recorder, nursery and proxies, and prepare the database."""
        await self.database.open()
        await self.temporal.open()
        self._recorder = start("tests.outside.recorder", "--port", "0", "--log", str(self.recorder))
        assert self._recorder.stdout is not None
        self.url = f"http://127.0.0.1:{(await asyncio.to_thread(self._recorder.stdout.readline)).strip()}"
        await self.offices.open(self.url)
        await self._witness.open()
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
        await self.offices.close()
        await self._witness.close()
        await self.database.shut()
        await self.temporal.shut()

    # ------------------------------------------------------------------------------------ processes

    async def bear(
        self, role: str = "agents", *, switches: Iterable[str] = (), wait: bool = False, deaths: int = 0
    ) -> Born:
        """Start a process, with guards switched off if asked; with *wait* return when it polls."""
        self._born += 1
        ready, log, wrong = (self.world.folder / f"{role}-{self._born}.{kind}" for kind in ("ready", "log", "clock"))
        clock.jump(wrong, 0.0)
        env = self.world.environment(
            CONFORMANCE_RECORDER=self.url,
            HOLDFAST_DATABASE_URL=self.database.url,
            HOLDFAST_TEMPORAL_ADDRESS=self.temporal.address,
            CONFORMANCE_MARK=str(self.world.folder / "mark"),
            FAKETIME_TIMESTAMP_FILE=str(wrong),
            **self.offices.environment,
        )
        off = list(switches)
        word = Birth(bear=str(ready), log=str(log), role=role, env=env, switches=off, fork=self.fork or bool(off))
        pid = int((await self.ground.nursery.tell(word))["pid"])
        born = Born(pid, role, ready, log, wrong, deaths=deaths)
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
        told = await self.ground.nursery.tell({"reap": victim.pid})
        victim.code = os.waitstatus_to_exitcode(int(told["status"]))
        return datetime.fromtimestamp(told["at"], UTC)

    async def keep(self) -> None:
        """Replace what ended by itself, pausing between its deaths as the product's supervisor does."""
        async with asyncio.TaskGroup() as group:
            while True:
                for born in [born for born in self.live if not born.leaving]:
                    if born in self.live and born.ended:
                        await self.bury(born)
                        group.create_task(self.replace(born))
                await asyncio.sleep(0.3)

    async def bury(self, born: Born) -> None:
        """Note how a process ended by itself."""
        await self.exited(born, await self.reap(born))

    async def exited(self, born: Born, at: datetime) -> None:
        """Note by which code a process ended that nobody killed, and its last word."""
        serving, text = born.ready.exists(), await asyncio.to_thread(born.log.read_text)
        word = (text.strip().splitlines() or ["no word"])[-1][:200]
        when = "serving" if serving else "starting"
        born.deaths = 1 if serving else born.deaths + 1
        self.fell.append(f"{born.log.stem} while {when}, code {born.code}: {word}")
        if serving:
            self.fell.append(text[-3000:])
        await self.note(
            "insert into evidence.exits (at, pid, role, serving, code, word) values ($1, $2, $3, $4, $5, $6)",
            (at, born.pid, born.role, serving, born.code, word),
        )

    async def replace(self, born: Born) -> None:
        """Start the next process in its place, after the pause that its deaths ask for."""
        await asyncio.sleep(_PAUSES[min(born.deaths, len(_PAUSES)) - 1])
        await self.bear(born.role, deaths=born.deaths)

    async def dismiss(self) -> None:
        """Kill -9 the agent workers, and write down what processes of theirs are left after a while."""
        for born in [born for born in self.live if born.role == "agents"]:
            await self.reap(born)
        with suppress(AssertionError):
            await until(lambda: not self.offices.left(), "no MCP server is left", patience=10.0)
        await self.note("insert into evidence.leftovers values ($1)", *((each,) for each in self.offices.left()))

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

    async def crash_postgres(self, away: float = 0.0) -> None:
        """Stop the PostgreSQL of this world as a crash does; it comes back after *away* seconds."""
        await (self.cluster or self.ground.servers).crash_postgres(away)

    # ------------------------------------------------------------------------------------ evidence

    async def note(self, query: str, *rows: tuple[Any, ...]) -> None:
        """Write rows of evidence, once, whatever becomes of PostgreSQL meanwhile."""
        await self._witness.note(query, *rows)

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Read from the database, past every proxy."""
        return await self._witness.rows(query, *args)

    async def close_books(self) -> None:
        """Write down what only the servers know: model calls, memories, histories and whether they replay."""
        await self.note(
            "insert into evidence.model_calls values ($1, $2, $3, $4, $5)",
            *(model_call(entry) for entry in self.models.journal),
        )
        hits = await self._memories()
        await self.note("insert into evidence.memories values ($1, $2, $3)", *hits)
        queues = (self.world.settings.task_queue, self.world.settings.memory_queue)
        async for row in export(self.plain, queues, self.histories):
            await self.note("insert into evidence.replays values ($1, $2, $3, $4)", row)

    async def _memories(self) -> list[tuple[str, str | None, str]]:
        if not any(born.role == "memory" for born in self.live):
            return []
        hits: dict[str, MemoryHit] = {}
        # One answer has a hundred hits at most: after a long drive each thing is asked for by its name.
        names = await self.rows("select distinct name from evidence.sent where remembers")
        for name in ["memory", *(row["name"] for row in names)]:
            answer: MemoryAnswer = await self.plain.execute_workflow(
                MEMORY_WORKFLOW,
                MemoryQuestion(tenant=self.world.settings.tenant, text=f"all done with {name}", limit=100),
                id=f"{self.world.settings.tenant}-memories-{name}",
                task_queue=self.world.settings.memory_queue,
                result_type=MemoryAnswer,
            )
            hits |= {str(hit.id): hit for hit in answer.hits}
            if len(answer.hits) < 100:
                break
        return [(str(hit.id), hit.run_id, hit.text) for hit in hits.values()]
