"""Runs that wait on an approval survive a kill of everything at once, and each ends after its decision.

    python -m tests.conformance.waiting --runs N [--out FILE]

The stack is the embedded one as a user has it: started detached, killed with its supervisor by SIGKILL in one moment,
started again. Some decisions are on their way when it dies, some are said while it is down, the rest when it is back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil

from holdfast import Client
from holdfast.errors import DecisionRefused, HoldfastError, StackError
from holdfast.handles import RunHandle
from holdfast.server import StackInfo, settings_for, start_detached, stop_stack
from holdfast.settings import Settings, load_settings
from holdfast.testing import ModelServer
from tests import histories
from tests.conformance.books import read
from tests.conformance.evidence import TABLES, export, model_call, run_auditor
from tests.conformance.figures import count
from tests.conformance.person import NOTE, REASON
from tests.conformance.processes import start
from tests.conformance.pulse import pulse
from tests.conformance.stage import now
from tests.conformance.subject import AGENTS, Kind
from tests.kit import PATIENCE, until

__all__ = ["Result", "conduct"]

_KIND = Kind("wait", (("once_approved",),))
_AT_ONCE = 32  # messages, or decisions, on their way at the same time
_EARLY = 6  # decisions, at least, are on their way when everything dies, and as many are said while it is down
_SURE = 2.0  # seconds after the ledger's own deadline until a call that never arrived is said to be not done
_CLEAN = ("HOLDFAST_", "TEMPORAL_")


@dataclass
class Result:
    """What came of it, as JSON can carry it. Times in seconds, sizes in bytes."""

    runs: int
    started_after: float = 0.0  # until all of them wait
    temporal_bytes: int = 0  # of its data, with all of them waiting
    postgres_bytes: int = 0  # of the database
    memory_waiting: dict[str, int] = field(default_factory=dict)  # of each process, shared pages in proportion
    memory_decided: dict[str, int] = field(default_factory=dict)  # the same when all have ended
    killed: int = 0  # processes
    answers_after: float = 0.0  # from the kill to the stack's being ready again
    first_ended_after: float = 0.0  # from then on
    all_ended_after: float = 0.0  # from then on, with all decisions made as fast as they are taken
    decided_before: int = 0  # decisions that were on their way when everything died
    decided_down: int = 0  # decisions said while it was down
    words: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)  # that clients met, by kind; each was followed by another try
    ended: int = 0  # as they should
    effects: int = 0  # of approved calls
    wrong: list[str] = field(default_factory=list)  # runs whose effects are not those that were decided
    in_doubt: int = 0
    twice: int = 0
    lost: int = 0
    load: float = 0.0  # of the machine, while the decisions were made
    took: float = 0.0
    code: int = 0  # of the auditor
    table: str = ""

    @property
    def fine(self) -> bool:
        """Whether all holds that must hold."""
        return self.code == self.twice == self.lost == 0 and not self.wrong and self.ended == self.runs

    def text(self) -> str:
        """Return it for a person."""
        figures = {name: value for name, value in asdict(self).items() if name != "table"}
        lines = "\n".join(f"  {name:<18} {value}" for name, value in figures.items())
        return f"\n{self.runs} runs waiting:\n{lines}\n{self.table}"


@dataclass
class Waiting:
    """One run that waits, and the word that it will hear."""

    name: str
    run: RunHandle
    word: str  # approve, reject or edit
    step: int = 0

    @property
    def thread(self) -> str:
        """Its thread."""
        return self.name.rpartition(".")[0]


def _word(number: int) -> str:
    return {0: "reject", 5: "edit"}.get(number % 10, "approve")


class Crash:
    """One stack with its runs: `run` plays the whole."""

    def __init__(self, settings: Settings, folder: Path, models: ModelServer, url: str, result: Result) -> None:
        self._settings, self._folder, self._models, self._url = settings, folder, models, url
        self._result = result
        self._info: StackInfo | None = None
        self._waiting: list[Waiting] = []
        self._errors: Counter[str] = Counter()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._starved: list[tuple[Any, ...]] = []

    async def run(self) -> None:
        """Start them, kill everything, start it again, decide, judge."""
        result = self._result
        info = self._info = await asyncio.to_thread(start_detached, self._settings)
        await self._database(lambda conn: conn.execute(TABLES.read_text(encoding="utf-8")))
        near = settings_for(self._settings, info)
        async with await Client.connect(near) as client:
            await self._begin(client)
            result.memory_waiting = await asyncio.to_thread(_memory, _processes(info))
            result.temporal_bytes = sum(file.stat().st_size for file in (info.home / "temporal").iterdir())
            result.postgres_bytes = int((await self._rows("select pg_database_size(current_database()) as n"))[0]["n"])
            early = max(_EARLY, result.runs // 50)
            before, down, rest = (self._waiting[a:b] for a, b in ((0, early), (early, 2 * early), (2 * early, None)))
            result.decided_before, result.decided_down = len(before), len(down)
            async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as http:
                for each in before:
                    group.create_task(self._decide(each))
                await until(self._effect, "the first effect, so that calls are under way")
                await self._kill(info)
                for each in down:
                    group.create_task(self._decide(each))
                began = time.monotonic()
                info = self._info = await asyncio.to_thread(start_detached, self._settings)
                result.answers_after = round(time.monotonic() - began, 2)
                began = time.monotonic()
                beside = [group.create_task(work) for work in (self._settle_doubts(http), pulse(self._keep))]
                for each in rest:
                    group.create_task(self._decide(each))
                await until(self._ended, "the first run has ended", patience=PATIENCE * 2)
                result.first_ended_after = round(time.monotonic() - began, 2)
                result.load = round(os.getloadavg()[0], 2)
                with suppress(AssertionError):  # the auditor tells what is missing
                    await until(self._all_ended, "all have ended", patience=PATIENCE + result.runs)
                result.all_ended_after = round(time.monotonic() - began, 2)
                for task in beside:
                    task.cancel()
        result.memory_decided = await asyncio.to_thread(_memory, _processes(info))
        result.errors, result.words = dict(self._errors), dict(Counter(each.word for each in self._waiting))
        await self._judge(near)

    async def _begin(self, client: Client) -> None:
        """Start all runs and wait until each waits on its approval."""

        async def one(number: int) -> None:
            thread = f"{_KIND.name}-{number:05}"
            name = f"{thread}.1"
            run = None
            async with self._room:
                while run is None:
                    try:
                        run = await client.start(_KIND.agent, name, thread=thread, message_id=name)
                    except StackError as exc:
                        self._errors[type(exc).__name__] += 1
            self._waiting.append(Waiting(name, run, _word(number)))

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self._result.runs):
                group.create_task(one(number))
        await until(lambda: self._all_wait(), "all wait on their approvals", patience=PATIENCE + self._result.runs)
        self._result.started_after = round(time.monotonic() - began, 2)
        rows = await self._rows("select run_id::text, step_no from holdfast.approvals")
        steps = {row["run_id"]: row["step_no"] for row in rows}
        self._waiting.sort(key=lambda each: each.name)
        for each in self._waiting:
            each.step = steps[each.run.run_id]
        await self._note(
            "insert into evidence.sent (name, thread, kind, run_id, expected, remembers) "
            "values ($1, $2, $3, $4, 'done', false)",
            ((each.name, each.thread, _KIND.name, each.run.run_id) for each in self._waiting),
        )
        asked = (call for each in self._waiting for call in _KIND.asked(each.name))
        await self._note("insert into evidence.asked values ($1, $2, $3)", asked)

    async def _kill(self, info: StackInfo) -> None:
        """SIGKILL every process of the stack, the supervisor first, so that none is replaced."""
        victims = [process for found in _processes(info).values() for process in found]
        pids = [child.pid for child in info.children]
        at = now()
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, victims, 10)
        assert not alive, f"these survived: {alive}"
        self._result.killed = len(victims)
        self._fault = ("kill -9 of everything", at, at, pids)

    # ------------------------------------------------------------------------------------ people

    async def _decide(self, each: Waiting) -> None:
        """Say the word until it is taken, or was taken by a try whose answer got lost."""
        at, receipt = now(), None
        args = {"run": each.name, "n": "1", "note": NOTE} if each.word == "edit" else None
        async with self._room:
            while receipt is None:
                try:
                    if each.word == "reject":
                        receipt = await each.run.reject(str(each.step), reason=REASON, actor="person")
                    else:
                        receipt = await each.run.approve(str(each.step), args=args, actor="person")
                except DecisionRefused:
                    # An earlier try's word was taken, and waits for its turn to be written down.
                    taken = "select 1 from holdfast.approvals where run_id = $1 and state <> 'pending'"
                    await until(partial(self._rows, taken, each.run.run_id), f"{each.name} is decided", 10 * PATIENCE)
                    break
                except HoldfastError as exc:
                    self._errors[type(exc).__name__] += 1
        said = (at, now(), each.run.run_id, each.step, each.word, None if args is None else json.dumps(args))
        await self._note(
            "insert into evidence.words (at, until, run_id, step_no, word, args, decision_id, taken) "
            "values ($1, $2, $3, $4, $5, $6, $7, $8)",
            [(*said, None if receipt is None else receipt.decision_id, receipt is not None)],
        )

    async def _settle_doubts(self, http: aiohttp.ClientSession) -> None:
        """Say of each call in doubt what the recorder says: those under way when everything died may be."""
        runs = {each.run.run_id: each.run for each in self._waiting}
        while True:
            for row in await self._rows(
                "select key, run_id::text, step_no, tool, coalesce(clock_timestamp() > greatest(lease_until, deadline) "
                "+ make_interval(secs => $1), true) as sure from holdfast.effects where state = 'in_doubt'",
                _SURE,
            ):
                async with http.get(f"{self._url}/lookup/{row['tool']}/{row['key']}") as answer:
                    arrived = str((await answer.json())["result"]) if answer.status == 200 else None
                with suppress(HoldfastError):  # said again at the next look
                    if arrived is not None:
                        await runs[row["run_id"]].resolve(row["step_no"], done=arrived, actor="person")
                    elif row["sure"]:
                        await runs[row["run_id"]].resolve(row["step_no"], not_done=True, actor="person")
            await asyncio.sleep(0.5)

    # ------------------------------------------------------------------------------------ how it stands

    async def _effect(self) -> bool:
        log = self._folder / "recorder.jsonl"
        return log.exists() and log.stat().st_size > 0

    async def _all_wait(self) -> bool:
        rows = await self._rows("select count(*) as n from holdfast.approvals where state = 'pending'")
        return bool(rows[0]["n"] == self._result.runs)

    async def _ended(self) -> int:
        rows = await self._rows("select count(ended_at) as n from holdfast.runs")
        return int(rows[0]["n"])

    async def _all_ended(self) -> bool:
        return await self._ended() == self._result.runs

    async def _database(self, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """Do something with a connection of its own: what is here outlives the server."""
        assert self._info is not None
        conn = await asyncpg.connect(self._info.database_url)
        try:
            return await work(conn)
        finally:
            await conn.close()

    async def _rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._database(lambda conn: conn.fetch(query, *args))]

    async def _note(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        await self._database(lambda conn: conn.executemany(query, list(rows)))

    async def _keep(self, _: str, row: tuple[Any, ...]) -> None:
        self._starved.append(row)

    # ------------------------------------------------------------------------------------ the end

    async def _judge(self, settings: Settings) -> None:
        """Hold every word against the recorder; then let the auditor speak."""
        result, folder, url = self._result, self._folder, settings.database_url or ""
        kind, at, over, pids = self._fault
        query = "insert into evidence.faults (kind, at, until, pids) values ($1, $2, $3, $4)"
        await self._note(query, [(kind, at, over, pids)])
        await self._note("insert into evidence.starved values ($1, $2)", self._starved)
        query = "insert into evidence.model_calls values ($1, $2, $3, $4, $5)"
        await self._note(query, (model_call(entry) for entry in self._models.journal))
        queues = (settings.task_queue, settings.memory_queue)
        plain = await histories.connect(settings)
        replays = [row async for row in export(plain, queues, folder / "histories")]
        await self._note("insert into evidence.replays values ($1, $2, $3, $4)", replays)
        recorder = folder / "recorder.jsonl"
        arrivals = [json.loads(line) for line in recorder.read_text(encoding="utf-8").splitlines()]
        notes: dict[str, list[str]] = {each.name: [] for each in self._waiting}
        for entry in arrivals:
            notes[entry["args"]["run"]].append(entry["args"].get("note", ""))
        should: dict[str, list[str]] = {"approve": [""], "edit": [NOTE], "reject": []}
        result.effects = len(arrivals)
        result.wrong = [
            f"{each.name}, {each.word}: took effect {len(notes[each.name])} times with notes {notes[each.name]}"
            for each in self._waiting
            if notes[each.name] != should[each.word]
        ]
        rows = await self._rows("select count(*) as n from holdfast.runs where state = 'done'")
        result.ended = int(rows[0]["n"])
        figures = count(await asyncio.to_thread(read, recorder, url, folder / "histories"))
        result.in_doubt = sum(sum(each.values()) for each in figures.in_doubt.values())
        result.twice, result.lost = figures.twice, figures.lost
        keep = Path(tempfile.gettempdir()) / f"conformance-waiting-{result.runs}.json"
        result.code, result.table = await run_auditor(recorder, url, folder / "histories", folder / "figures", keep)


def _processes(info: StackInfo) -> dict[str, list[psutil.Process]]:
    """Return the processes of a stack by the name of each part, with all that descend from it."""
    found: dict[str, list[psutil.Process]] = {}
    for part in (info.supervisor, *info.children):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(part.pid)
            found[part.name] = [process, *([] if part is info.supervisor else process.children(recursive=True))]
    return found


def _memory(processes: dict[str, list[psutil.Process]]) -> dict[str, int]:
    """Return the bytes of each part: a page that several share counts for each in proportion."""
    sizes: dict[str, int] = {}
    for name, members in processes.items():
        sizes[name] = 0
        for process in members:
            with suppress(psutil.Error):
                sizes[name] += process.memory_full_info().pss
    return sizes


@asynccontextmanager
async def _recorder(folder: Path) -> AsyncIterator[str]:
    process = start("tests.outside.recorder", "--port", "0", "--log", str(folder / "recorder.jsonl"))
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{(await asyncio.to_thread(process.stdout.readline)).strip()}"
    finally:
        process.terminate()
        await asyncio.to_thread(process.communicate)


async def conduct(runs: int, folder: Path) -> Result:
    """Play it with so many runs, in an empty folder, and return the figures."""
    began, result = time.monotonic(), Result(runs)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a caller that was killed is no news here
    script = {"conversations": [{"replies": _KIND.replies()}]}
    kept = dict(os.environ)
    async with ModelServer(script) as models, _recorder(folder) as url:
        for name in [name for name in os.environ if name.startswith(_CLEAN)]:
            del os.environ[name]
        os.environ["CONFORMANCE_RECORDER"] = url
        settings = load_settings(home=folder / "home", agents=AGENTS, api_base=models.base_url, offline=True)
        try:
            await Crash(settings, folder, models, url, result).run()
        finally:
            await asyncio.to_thread(stop_stack, settings.home)
            os.environ.clear()
            os.environ.update(kept)
    result.took = round(time.monotonic() - began, 1)
    return result


def main() -> int:
    """Run as a program; exit code 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.waiting", description=__doc__)
    parser.add_argument("--runs", type=int, required=True, help="how many wait")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        result = asyncio.run(conduct(options.runs, Path(folder)))
    sys.stdout.write(result.text())
    if options.out is not None:
        options.out.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    return 0 if result.fine else 1


if __name__ == "__main__":
    sys.exit(main())
