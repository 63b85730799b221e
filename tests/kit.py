"""What integration tests share: one Temporal and one PostgreSQL a session, a database and queues of its own a test."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from holdfast import Client
from holdfast.memory.database import Connection, connect, migrate
from holdfast.runtime import connect_temporal
from holdfast.settings import Settings, load_settings
from scripts.reference.kinds import check

__all__ = ["PATIENCE", "Process", "World", "kept", "serving", "until"]

_CLIENTS_MOST = 32  # of one world: each keeps connections, of which the session's PostgreSQL has 200
PATIENCE = 60.0 * float(os.environ.get("HOLDFAST_TIME_SCALE", "1"))  # seconds a test waits for what should be soon


async def until(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any], what: str, patience: float = PATIENCE
) -> Any:
    """Poll *condition* until it is true and return what it gave; fail the test after *patience* seconds."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(app: web.Application, *hosts: str) -> AsyncIterator[int]:
    """Serve *app* on a free port, the same on each of these hosts (127.0.0.1), and give the port."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        port = 0
        for host in hosts or ("127.0.0.1",):
            await web.TCPSite(runner, host, port).start()
            port = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()


class Process:
    """A worker process of ours, to be killed, stopped and waited for."""

    def __init__(self, role: str, environment: dict[str, str], folder: Path, name: str) -> None:
        self.role = role
        self.name = name
        self.log = folder / f"{name}.log"
        self._ready = folder / f"{name}.ready"
        self._ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "holdfast.runtime", role],
                env={**os.environ, **environment, "HOLDFAST_READY_FILE": str(self._ready)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self.popen.pid

    async def ready(self) -> None:
        """Wait until it polls."""

        def polls() -> bool:
            assert self.popen.poll() is None, f"{self.name} ended: {self.log.read_text()[-3000:]}"
            return self._ready.exists()

        await until(polls, f"{self.name} is ready")

    def kill(self) -> None:
        """Kill -9, and reap."""
        self.signal(signal.SIGKILL)
        self.popen.wait()

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.popen.poll() is None:
            os.kill(self.popen.pid, number)

    async def end(self) -> int:
        """Ask it to stop as the supervisor does, and return its exit code."""
        self.signal(signal.SIGTERM)
        return await asyncio.to_thread(self.popen.wait)


class World:
    """One test's own database, queues, tenant and folder on the session's servers."""

    def __init__(self, settings: Settings, folder: Path, agents: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.agents = agents
        self.processes: list[Process] = []
        self.models: Any = None  # the model server, where a test reads its journal
        self._stack = AsyncExitStack()
        self._clients = 0

    @classmethod
    async def create(cls, servers: dict[str, str], folder: Path, source: str, **overrides: Any) -> World:
        """Make the database, write the agents file, return the world without a worker."""
        name = f"t{uuid.uuid4().hex[:12]}"
        admin = await connect(servers["database_url"])
        try:
            await admin.execute(f"create database {name} owner {urlsplit(servers['owner_url']).username}")
        finally:
            await admin.close()
        url = servers["owner_url"].rpartition("/")[0] + f"/{name}"
        await migrate(url)
        agents = folder / "agents.py"
        agents.write_text(source, encoding="utf-8")
        given: dict[str, Any] = {
            "home": folder / "home",
            "agents": agents,
            "temporal_address": servers["temporal_address"],
            "temporal_ui": servers["temporal_ui"],
            "database_url": url,
            "task_queue": name,
            "memory_queue": f"{name}-memory",
            "tenant": name,
            "offline": True,
            "linger": 2.0,
            "sweep_every": 2.0,
        }
        settings = load_settings(**{**given, **overrides})
        settings.home.mkdir(exist_ok=True)
        return cls(settings, folder, agents)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables under which a process of this world runs."""
        from holdfast.server.state import settings_environment

        return {**settings_environment(self.settings), **more}

    async def worker(self, role: str = "agents", **environment: str) -> Process:
        """Start a worker process and wait until it polls."""
        process = self.start(role, **environment)
        await process.ready()
        return process

    def start(self, role: str = "agents", **environment: str) -> Process:
        """Start a worker process."""
        name = f"{role}-{len(self.processes)}"
        process = Process(role, self.environment(**environment), self.folder, name)
        self.processes.append(process)
        return process

    async def client(self) -> Client:
        """Return a client that lives as long as the world; whoever polls with one opens it before the loop."""
        self._clients += 1
        assert self._clients <= _CLIENTS_MOST, f"{self._clients} clients of one world: is one opened at each poll?"
        return await self._stack.enter_async_context(await Client.connect(self.settings))

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Return rows of this world's database."""
        conn = await connect(self.settings.database_url or "")
        try:
            return [dict(row) for row in await conn.fetch(query, *args)]
        finally:
            await conn.close()

    @asynccontextmanager
    async def held(self, lock: str, *args: Any) -> AsyncIterator[Connection]:
        """Hold a lock that stops one kind of step, as a slow database would."""
        conn = await connect(self.settings.database_url or "")
        try:
            async with conn.transaction():
                await conn.execute(lock, *args)
                yield conn
        finally:
            await conn.close()

    async def close(self) -> None:
        """End all processes, and hold the events they wrote against the reference."""
        await self._stack.aclose()
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()
        for row in await self.rows("select kind, data from events"):
            check(row["kind"], row["data"])  # what docs/reference/events.md promises

    def logs(self) -> str:
        """Return the end of every process's log, for a failed test's report."""
        return "\n".join(f"== {process.name}\n{process.log.read_text()[-2000:]}" for process in self.processes)


async def kept(world: World, threads: list[str]) -> dict[str, bytes]:
    """Return all that a world leaves: each table, the histories of these threads, each log."""
    left: dict[str, bytes] = {}
    conn = await connect(world.settings.database_url or "")
    for row in await conn.fetch("select tablename t from pg_tables where schemaname = 'holdfast'"):
        rows = await conn.fetch(f"select t::text as row from {row['t']} t")
        left[row["t"]] = "\n".join(each["row"] for each in rows).encode()
    left["blobs"] = b"\n".join([each["body"] for each in await conn.fetch("select body from blobs")])
    await conn.close()
    temporal = await connect_temporal(world.settings, identity="test")
    for thread in threads:
        history = await temporal.get_workflow_handle(f"{world.settings.tenant}:{thread}").fetch_history()
        left[f"history {thread}"] = b"".join(event.SerializeToString() for event in history.events)
    for path in [each.log for each in world.processes] + list((world.settings.home / "logs").glob("*")):
        left[str(path)] = path.read_bytes()
    return left
