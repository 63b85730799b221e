"""The drive's own line to the database, past every proxy: it says its evidence once, whatever becomes of PostgreSQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeAlias, TypeVar

import asyncpg

from tests.conformance.evidence import TABLES
from tests.kit import PATIENCE

__all__ = ["Witness"]

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

GONE = (
    *(OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError),
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is not promoted yet
    asyncpg.InternalClientError,  # the driver's own word for a connection lost between two of its steps
    *(asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.CannotConnectNowError),
)


class Witness:
    """One connection, made again whenever it is lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = asyncio.Lock()
        self._conn: Connection | None = None

    async def open(self) -> Self:
        """Connect, and make the tables of the evidence."""
        text = await asyncio.to_thread(TABLES.read_text, encoding="utf-8")
        await (await self._connected()).execute(text)
        return self

    async def close(self) -> None:
        """Hang up."""
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None

    async def note(self, query: str, *rows: tuple[Any, ...]) -> None:
        """Write rows, all of them, once. Whether a lost commit took place, the token in its transaction tells."""
        token = uuid.uuid4()

        async def say(conn: Connection) -> None:
            async with conn.transaction():
                fresh = "insert into evidence.said values ($1) on conflict do nothing returning true"
                if await conn.fetchval(fresh, token):
                    await conn.executemany(query, rows)

        await self._insist(say)

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Return what a query finds; it is asked again if the answer was lost."""

        async def ask(conn: Connection) -> list[dict[str, Any]]:
            return [dict(row) for row in await conn.fetch(query, *args)]

        return await self._insist(ask)

    async def _insist(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._turn:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    return await work(await self._connected())
                except BaseException as exc:  # a connection on which something broke off is not used again
                    await self.close()
                    if not isinstance(exc, GONE) or time.monotonic() > deadline:
                        raise
                await asyncio.sleep(0.1)

    async def _connected(self) -> Connection:
        if self._conn is None:
            self._conn = await asyncpg.connect(self._url, timeout=10.0, command_timeout=30.0)
        return self._conn
