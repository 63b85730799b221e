"""Opens PostgreSQL and brings its schema up to date. The runtime, the client and the supervisor call it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from importlib import resources
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from holdfast.errors import StorageError

__all__ = ["UNAVAILABLE", "UNSTORABLE", "Connection", "OwnConnection", "Pool", "connect", "migrate", "open_pool"]

OwnConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"  # of no pool
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# What a caller sees while PostgreSQL is away, restarting or refusing: worth another try later.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,  # no connection, memory or disk left: until someone sees to it
    asyncpg.TransactionRollbackError,  # a deadlock: one of two is asked to try again
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,  # the server has said goodbye on an idle connection, which is not closed yet
)


UNSTORABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""What PostgreSQL says of a value that it will never take: it is malformed, out of range, or too long for an index."""


class _Floor(logging.Filter):
    """Drops the driver's traceback for each failed try to keep one connection open: who needs one hears of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "connection floor" not in str(record.msg)


_FLOOR = _Floor()

_LOCK = 0x486F6C6466617374  # the advisory lock of migrations: "Holdfast" in ASCII


def _advice(url: str, exc: BaseException) -> StorageError:
    where = url.rpartition("@")[2] or url
    return StorageError(
        f"PostgreSQL at {where} cannot be used: {exc or type(exc).__name__}. "
        "Check HOLDFAST_DATABASE_URL (postgresql://user:password@host:5432/name) and that the server is up."
    )


async def connect(url: str, *, name: str = "holdfast", timeout: float = 10.0) -> OwnConnection:
    """Open one connection with our search path.

    Raises:
        StorageError: the server does not answer, or refuses; the message says what to check.

    """
    try:
        return await asyncpg.connect(
            url, timeout=timeout, server_settings={"search_path": "holdfast", "application_name": name}
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TimeoutError) as exc:
        raise _advice(url, exc) from exc


async def open_pool(url: str, *, size: int, name: str, timeout: float = 10.0, idle: float | None = 10.0) -> Pool:
    """Open a pool of at most *size* connections; *name* shows in pg_stat_activity.

    A transaction in which nothing happens for *idle* seconds is rolled back by PostgreSQL: else a process frozen in the
    middle of one would hold its locks, and so a thread, for as long as it is frozen.

    Raises:
        StorageError: the server does not answer, or refuses; the message says what to check.

    """
    logging.getLogger("asyncpg.pool").addFilter(_FLOOR)
    try:
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=timeout,
            command_timeout=60.0,
            server_settings={
                "search_path": "holdfast",
                "application_name": name,
                "idle_in_transaction_session_timeout": str(int((idle or 0) * 1000)),
            },
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TimeoutError) as exc:
        raise _advice(url, exc) from exc


def _migrations() -> list[tuple[int, str, str]]:
    found = []
    for entry in resources.files("holdfast.memory").joinpath("migrations").iterdir():
        number, _, rest = entry.name.partition("_")
        if rest.endswith(".sql") and number.isdigit():
            found.append((int(number), entry.name, entry.read_text(encoding="utf-8")))
    return sorted(found)


async def migrate(url: str) -> list[str]:
    """Apply what is missing of the numbered migrations, under an advisory lock; return the names applied.

    Raises:
        StorageError: the server cannot be used, an applied migration was changed since, or the schema is newer
            than this code.

    """
    conn = await connect(url, name="holdfast-migrate", timeout=30.0)
    try:
        await conn.execute("select pg_advisory_lock($1)", _LOCK)
        await conn.execute("create schema if not exists holdfast")
        await conn.execute(
            "create table if not exists migrations (number int primary key, name text not null, hash text not null, "
            "applied_at timestamptz not null default clock_timestamp())"
        )
        applied = {row["number"]: row["hash"] for row in await conn.fetch("select number, hash from migrations")}
        ours = _migrations()
        if applied and max(applied) > ours[-1][0]:
            raise StorageError(
                f"the database is at migration {max(applied)}, this Holdfast knows {ours[-1][0]}: upgrade Holdfast"
            )
        done = []
        for number, name, text in ours:
            digest = hashlib.sha256(text.encode()).hexdigest()
            if number in applied:
                if applied[number] != digest:
                    raise StorageError(
                        f"migration {name} was changed after it was applied: restore the file, add a new number"
                    )
                continue
            async with conn.transaction():
                await conn.execute(text)
                await conn.execute(
                    "insert into migrations (number, name, hash) values ($1, $2, $3)", number, name, digest
                )
            done.append(name)
        return done
    finally:
        await asyncio.shield(conn.close())
