"""A PostgreSQL that is switched over: the primary, whichever server that is, is behind one address, that of a proxy.

Two roles, so that the password of one may change: the workers', and that of everybody else.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.conformance.proxy import FaultProxy
from tests.standby import Server, rotate_password

__all__ = ["Cluster"]

_WORKER = "conformance_worker"


class Cluster:
    """Use as `async with`. Whoever breaks it waits his turn."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self.switching = asyncio.Lock()  # for faults that switch over: one at a time
        self._turn = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._servers = 0
        self._password = secrets.token_hex(8)
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="holdfast-")))
        self._folder.chmod(0o711)

    async def __aenter__(self) -> Self:
        """Start a primary."""
        self._primary = self._server()
        await self._primary.start()
        self._front = FaultProxy(self._primary.url)
        await self._front.open()
        self._stack.push_async_callback(self._front.shut)
        conn = await asyncpg.connect(self.url)
        await conn.execute(f"create role {_WORKER} superuser login password '{self._password}'")
        await conn.close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what runs."""
        await self._stack.aclose()

    def _server(self) -> Server:
        self._servers += 1
        server = Server(self._folder / f"server-{self._servers}")
        self._stack.push_async_callback(server.stop)
        return server

    @property
    def url(self) -> str:
        """The URL of the primary, whichever it is, for everybody but the workers."""
        return self._front.url

    def for_workers(self, url: str) -> str:
        """Return a URL of this cluster with the workers' role in it."""
        where = urlsplit(url)
        return urlunsplit(where._replace(netloc=f"{_WORKER}:{self._password}@{where.netloc.rpartition('@')[2]}"))

    async def crash_postgres(self, away: float = 0.0) -> None:
        """Stop the primary as a crash does, and start it again after *away* seconds."""
        async with self._turn:
            await self._primary.stop(crash=True)
            await asyncio.sleep(away)
            await self._primary.start()

    async def follow(self) -> Server:
        """Return a standby that has all that the primary says is committed."""
        standby = self._server()
        await standby.follow(self._primary.url)
        return standby

    async def fail_over(self, standby: Server, read_only: float) -> None:
        """Crash the primary; clients reach the standby, which so many seconds later is promoted."""
        async with self._turn:
            await self._primary.stop(crash=True)
            self._front.lead_to(standby.url)
            self._front.cut()
            await asyncio.sleep(read_only)
            await standby.promote()
            self._primary = standby

    async def rotate(self, away: float) -> None:
        """Change the workers' password and end their sessions; for *away* seconds they have the wrong one."""
        async with self._turn:
            await rotate_password(self._primary.url, _WORKER, secrets.token_hex(8))
            await asyncio.sleep(away)
            await rotate_password(self._primary.url, _WORKER, self._password)
