"""The suite's own Temporal and PostgreSQL under the product's supervisor, and what is needed to break each of them.

`ground()` gives all that a drive or a control needs; every test of the suite stands on it.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from holdfast.search_attributes import namespace_problem
from holdfast.server import StackInfo, read_stack, stop_stack
from holdfast.server.postgres import binaries
from tests import standalone
from tests.conformance.cluster import Cluster
from tests.conformance.processes import ROOT, Nursery
from tests.kit import World, until

__all__ = ["Ground", "Servers", "ground"]


class Servers:
    """Use as `async with`. Whoever breaks them waits his turn, and each method waits until everything answers again."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}  # as tests.standalone.servers gives it; good for as long as this lives
        self._turn = asyncio.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-")
        Path(self._folder.name).chmod(0o711)  # else the supervisor opens it for PostgreSQL, and says so
        self._home = Path(self._folder.name) / "home"
        self._supervisor: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start them."""
        await self._start()
        info = self._info()
        self.given = {
            "temporal_address": info.temporal_address,
            "temporal_ui": info.temporal_ui or "",
            "database_url": info.database_url,
            "folder": self._folder.name,
        }
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them, and what a killed supervisor left."""
        await asyncio.to_thread(stop_stack, self._home)
        if self._supervisor is not None:
            await self._supervisor.wait()
        self._folder.cleanup()

    async def crash_postgres(self, away: float = 0.0) -> None:
        """Stop PostgreSQL as a crash does: no session is told, nothing is flushed.

        The supervisor brings it back at once, or, being frozen meanwhile, after *away* seconds.
        """
        async with self._turn, self._back("postgres"):
            data = self._home / "postgres" / "data"
            identity: dict[str, Any] = {}
            if os.geteuid() == 0:  # PostgreSQL refuses root: the supervisor runs it as the owner of its data
                owner = pwd.getpwuid(data.stat().st_uid)
                identity = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            with self._frozen(away > 0):
                # Without waiting: pg_ctl waits for the pid file to go, and the supervisor makes a new one at once.
                stop = await asyncio.create_subprocess_exec(
                    *(str(binaries() / "pg_ctl"), "stop", "-D", str(data), "-m", "immediate", "-W", "-s"),
                    cwd=self._folder.name,
                    **identity,
                )
                assert await stop.wait() == 0, "pg_ctl could not stop PostgreSQL"
                await asyncio.sleep(away)

    async def kill_temporal(self, away: float = 0.0) -> None:
        """SIGKILL the Temporal server; the supervisor brings it back, at once or after *away* seconds."""
        async with self._turn, self._back("temporal"):
            with self._frozen(away > 0):
                os.kill(self._child("temporal"), signal.SIGKILL)
                await asyncio.sleep(away)

    async def kill_supervisor(self) -> None:
        """SIGKILL the supervisor; the next one ends the servers it left, and starts them again on the same ports."""
        async with self._turn:
            assert self._supervisor is not None
            self._supervisor.kill()
            await self._supervisor.wait()
            await self._start()

    async def restart(self) -> None:
        """Stop everything in order and start it again."""
        async with self._turn:
            assert self._supervisor is not None
            self._supervisor.terminate()
            await self._supervisor.wait()
            await self._start()

    def _info(self) -> StackInfo:
        info = read_stack(self._home)
        assert info is not None, "the supervisor of the servers is not ready"
        return info

    def _child(self, name: str) -> int:
        return next(child.pid for child in self._info().children if child.name == name)

    async def _start(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "TEMPORAL_"))}
        self._supervisor = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests._servers"),
            cwd=ROOT,
            env={**clean, "HOLDFAST_HOME": str(self._home), "HOLDFAST_AGENTS": str(self._home / "none.py")},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._supervisor.stdout is not None
        line = await self._supervisor.stdout.readline()
        assert line == b"READY\n", f"the servers did not start: {line!r}"
        await until(self._answer, "the servers answer")

    @contextmanager
    def _frozen(self, wanted: bool) -> Iterator[None]:
        """Keep the supervisor from bringing back what ends meanwhile."""
        assert self._supervisor is not None
        if wanted:
            self._supervisor.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if wanted:
                self._supervisor.send_signal(signal.SIGCONT)

    @asynccontextmanager
    async def _back(self, name: str) -> AsyncIterator[None]:
        """Wait afterwards until another process than now serves."""
        before = self._child(name)
        yield
        await until(lambda: self._child(name) != before, f"the supervisor starts {name} again")
        await until(self._answer, f"{name} answers again")

    async def _answer(self) -> bool:
        info = self._info()
        if any(child.state != "ready" for child in info.children):
            return False
        try:
            conn = await asyncpg.connect(info.database_url, timeout=5.0)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await conn.close()
        return await namespace_problem(info.temporal_address, info.namespace) is None


@dataclass
class Ground:
    """What every drive stands on; worlds and servers end with it."""

    servers: Servers
    nursery: Nursery
    _stack: AsyncExitStack = field(repr=False)

    async def make(self, source: str, cluster: Cluster | None = None, **settings: Any) -> World:
        """Return a world on these servers, or with its database in a cluster, from the source of an agents file."""
        given = self.servers.given if cluster is None else {**self.servers.given, "database_url": cluster.url}
        return await self._stack.enter_async_context(standalone.world(given, source, **settings))

    async def cluster(self) -> Cluster:
        """Return a PostgreSQL that can be switched over; it ends with the ground, after the worlds in it."""
        return await self._stack.enter_async_context(Cluster())


@asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """Start servers and a nursery of our own."""
    async with AsyncExitStack() as stack:
        nursery = Nursery()
        stack.push_async_callback(nursery.close)
        servers = await stack.enter_async_context(Servers())
        yield Ground(servers, nursery, stack)
