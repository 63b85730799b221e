"""Opens PostgreSQL and brings its schema up to date. The runtime, the client and the supervisor call it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from importlib import resources
from typing import TypeAlias, cast
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.connection import LoggedQuery
from asyncpg.pool import PoolConnectionProxy

from holdfast.errors import StorageError
from holdfast.secrets import address, mask

__all__ = [
    "STRUCK",
    "UNAVAILABLE",
    "UNSTORABLE",
    "Connection",
    "OwnConnection",
    "Pool",
    "connect",
    "migrate",
    "open_pool",
]

OwnConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"  # of no pool
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# What no later try can mend, by SQLSTATE class: our statement or its values are wrong.
_OURS = (
    asyncpg.DataError,  # 22
    asyncpg.IntegrityConstraintViolationError,  # 23
    asyncpg.SyntaxOrAccessError,  # 42
    asyncpg.ProgramLimitExceededError,  # 54, such as a value too long for an index
)

# What a caller sees while PostgreSQL is away, restarting, refusing or changing hands: worth another try later. All that
# it may answer is among them but what is ours: during a switchover it says that it is read-only (25006), that the
# password is wrong (28P01), that a lock was not to be had (55P03), and more.
UNAVAILABLE = cast(
    "tuple[type[Exception]]",  # of any length; checkers know no `except` over such a tuple and more
    (
        OSError,
        TimeoutError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # goodbye on a connection that is not closed yet; no server that takes writes
        asyncpg.InsufficientPrivilegeError,  # 42501: granted to a role anew after its rotation, or on a restored server
        *(kind for kind in asyncpg.PostgresError.__subclasses__() if kind not in _OURS),
    ),
)

# Of these, what hits a statement whatever it says: a tool whose statement met it has not failed.
STRUCK = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientResourcesError,  # no connection, memory or disk left: until someone sees to it
    asyncpg.TransactionRollbackError,  # a deadlock: one of two is asked to try again
)

_WRITES = SessionAttribute.read_write  # of several hosts, or behind a name that moves: never a standby

# Without it PostgreSQL sees that a client is gone only when it answers: the session of a killed worker that waits for a
# lock keeps its connection, and may still commit once it has the lock. Half a lease: it ends before others take over.
_CLIENT_CHECK = ("client_connection_check_interval", "1000")  # milliseconds

_REFUSED = (
    *(OSError, TimeoutError, ValueError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
)


UNSTORABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)
"""What PostgreSQL says of a value that it will never take: it is malformed, out of range, or too long for an index."""


class _Floor(logging.Filter):
    """Drops the driver's traceback for each failed try to keep one connection open: who needs one hears of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "connection floor" not in str(record.msg)


_FLOOR = _Floor()

_LOCK = 0x486F6C6466617374  # the advisory lock of migrations: "Holdfast" in ASCII


# What the driver says of a URL that it cannot read: it quotes a part of it, which may be the password's.
_UNREAD = (ValueError, asyncpg.ClientConfigurationError)


def _advice(url: str, exc: BaseException) -> StorageError:
    if isinstance(exc, _UNREAD):
        why = "the URL cannot be parsed; percent-encode special characters in user and password"
    else:
        why = str(exc) or type(exc).__name__
    return StorageError(
        f"PostgreSQL at {address(url)} cannot be used: {mask(why)}. "
        "Check HOLDFAST_DATABASE_URL (postgresql://user:password@host:5432/name) and that the server is up."
    )


def _session(url: str, name: str, **more: str) -> dict[str, str]:
    """Return the settings of a session; the URL may have another interval, or 0 for a server that knows none."""
    check, interval = _CLIENT_CHECK
    given = {key for key, _ in parse_qsl(urlsplit(url).query)}
    checked = {} if check in given else {check: interval}
    return {"search_path": "holdfast", "application_name": name, **checked, **more}


async def connect(url: str, *, name: str = "holdfast", timeout: float = 10.0) -> OwnConnection:
    """Open one connection with our search path.

    Raises:
        StorageError: the server does not answer, or refuses; the message says what to check.

    """
    try:
        return await asyncpg.connect(
            url,
            timeout=timeout,
            target_session_attrs=_WRITES,
            server_settings=_session(url, name),
        )
    except _REFUSED as exc:
        raise _advice(url, exc) from (None if isinstance(exc, _UNREAD) else exc)


async def open_pool(url: str, *, size: int, name: str, timeout: float = 10.0, idle: float | None = 10.0) -> Pool:
    """Open a pool of at most *size* connections; *name* shows in pg_stat_activity.

    A transaction in which nothing happens for *idle* seconds is rolled back by PostgreSQL: else a process frozen in the
    middle of one would hold its locks, and so a thread, for as long as it is frozen.

    Raises:
        StorageError: the server does not answer, or refuses; the message says what to check.

    """
    logging.getLogger("asyncpg.pool").addFilter(_FLOOR)
    try:
        pool: Pool = asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=timeout,
            command_timeout=60.0,
            target_session_attrs=_WRITES,
            init=lambda conn: _heed(pool, conn),
            setup=lambda conn: _leave(pool, conn),
            server_settings=_session(url, name, idle_in_transaction_session_timeout=str(int((idle or 0) * 1000))),
        )
        await pool
    except _REFUSED as exc:
        raise _advice(url, exc) from (None if isinstance(exc, _UNREAD) else exc)
    return pool


async def _leave(pool: Pool, conn: Connection) -> None:
    """Refuse a connection whose server has said that it takes no writes any more: what it says may be old.

    Who only reads would never find out. The server says so with the answer to a question, so this costs nothing.
    """
    if getattr(conn.get_settings(), "default_transaction_read_only", "off") == "on":
        await pool.expire_connections()
        raise asyncpg.InterfaceError("this PostgreSQL server no longer accepts writes; connecting to another one")


async def _heed(pool: Pool, conn: Connection) -> None:
    """See to it that no connection is kept to a server that takes no writes any more, though its sessions live on."""

    def heard(query: LoggedQuery) -> None:
        if isinstance(query.exception, asyncpg.ReadOnlySQLTransactionError):
            expiring.append(asyncio.create_task(pool.expire_connections()))

    expiring: list[asyncio.Task[None]] = []
    conn.add_query_logger(heard)


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
