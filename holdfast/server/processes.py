"""One child process: start, readiness, restart when it dies, stop. Only the supervisor uses it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import psutil

from holdfast.errors import ConfigurationError, StackError
from holdfast.server.state import ProcessInfo
from holdfast.settings import Settings

__all__ = ["CONFIGURATION_EXIT", "ChildProcess", "ProcessSpec", "kill_tree", "log_tail"]

CONFIGURATION_EXIT: Final = 3  # a child that exits so says: the configuration is wrong, another start will not help
_LOG_MAX: Final = 10 * 1024 * 1024  # bytes; a longer log is set aside when its process starts again
_FIRST_DELAY: Final = 0.2  # seconds before the second restart; the first is at once
_START_ATTEMPTS: Final = 3  # a process that dies so often before it was ever ready fails the start of the stack
_POLL: Final = 0.02

State = Literal["starting", "ready", "waiting", "failed", "stopped", "draining"]


@dataclass(frozen=True)
class ProcessSpec:
    """How one child is started, known to be ready, and stopped."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """The whole environment of the child; `HOLDFAST_READY_FILE` is added."""
    role: Literal["server", "memory", "worker"] = "worker"
    stop_signal: signal.Signals = signal.SIGTERM
    account: str | None = None
    """The system user the child runs as; None: ours."""
    prepare: Callable[[], None] | None = None
    """Called in a thread before each start."""
    probe: Callable[[], Awaitable[bool]] | None = None
    """Says whether the child is ready; None: it is when it has created its ready file."""


def log_tail(path: Path, lines: int = 15) -> str:
    """Return the last *lines* of a log, or a note that it is empty."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def kill_tree(pid: int) -> None:
    """Kill a process, its descendants and its process group, and wait until they are gone (2 s at most)."""
    victims: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        victims = [root, *root.children(recursive=True)]
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in victims:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(victims, timeout=2.0)


class ChildProcess:
    """One supervised child. `start` keeps it running until `stop`."""

    def __init__(
        self, spec: ProcessSpec, settings: Settings, *, on_change: Callable[[], None], notify: Callable[[str], None]
    ) -> None:
        """Prepare nothing yet; *on_change* is called when pid or state change, *notify* with lines for a person."""
        self.spec = spec
        self.log = settings.home / "logs" / f"{spec.name}.log"
        self.ready_file = settings.home / "run" / f"{spec.name}.ready"
        self.info: ProcessInfo | None = None
        self.state: State = "stopped"
        self.error: str | None = None
        self._settings = settings
        self._on_change = on_change
        self._notify = notify
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._deaths = 0

    def start(self) -> None:
        """Start the child and keep it running."""
        self._stopping = False
        self._deaths = 0
        self._set("starting")
        self._task = asyncio.create_task(self._keep_running(), name=f"keep {self.spec.name} running")

    async def wait_ready(self, *, timeout: float) -> None:
        """Wait until the child is ready.

        Raises:
            ConfigurationError: it exited saying that its configuration is wrong.
            StackError: it kept dying, or was not ready within *timeout* seconds.

        """
        deadline = time.monotonic() + timeout
        while self.state != "ready":
            if self.state == "failed":
                raise ConfigurationError(self.error)
            if self._task is not None and self._task.done():
                await self._task
                raise StackError(f"{self.spec.name} was stopped before it was ready.")
            if self._deaths >= _START_ATTEMPTS:
                raise StackError(self._report(f"{self.spec.name} died {self._deaths} times while starting"))
            if time.monotonic() > deadline:
                raise StackError(self._report(f"{self.spec.name} was not ready within {timeout:.0f} s"))
            await asyncio.sleep(_POLL)

    async def stop(self, *, timeout: float) -> None:
        """Ask the child to stop; kill it after *timeout* seconds. Returns when it is gone."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            if self.state == "ready":
                self._set("draining")
            self._signal(self.spec.stop_signal)
            await self._until_gone(self._task, timeout)
        self._set("stopped")

    async def _until_gone(self, waiting: asyncio.Future[None] | asyncio.Future[int], timeout: float) -> None:
        """Wait for the child's end; kill all of it when the time is up."""
        await asyncio.wait([waiting], timeout=max(timeout, 0.0))
        while not waiting.done():
            if self._process is not None and self._process.returncode is None:
                await asyncio.to_thread(kill_tree, self._process.pid)
            await asyncio.wait([waiting], timeout=0.2)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _set(self, state: State, error: str | None = None) -> None:
        self.state, self.error = state, error
        if self.info is not None:
            self.info = self.info.model_copy(update={"state": state, "error": error})
        self._on_change()

    def _report(self, what: str) -> str:
        return f"{what}. The end of {self.log}:\n{log_tail(self.log)}"

    async def _keep_running(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping:
                break
            if code == CONFIGURATION_EXIT:
                self._set("failed", self._report(f"{self.spec.name} refused its configuration"))
                self._notify(self.error or "")
                return
            healthy = self.state == "ready" and time.monotonic() - began >= self._settings.healthy_after
            self._deaths = 1 if healthy else self._deaths + 1
            delay = 0.0
            if self._deaths > 1:
                delay = min(self._settings.restart_delay_max, _FIRST_DELAY * 2.0 ** min(self._deaths - 2, 16))
            how = f"exited with {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
            self._notify(f"{self.spec.name} {how}; restarting" + (f" in {delay:.1f} s" if delay else ""))
            self._set("waiting")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), timeout=delay)
            self._wake.clear()

    async def _run_once(self) -> int:
        """Start the child, follow it to its end, and return its exit code (negative: the signal)."""
        self._set("starting")
        try:
            if self.spec.prepare is not None:
                await asyncio.to_thread(self.spec.prepare)
            if self._stopping:
                return 0
            process = await self._spawn()
        except (OSError, StackError) as exc:
            await asyncio.to_thread(self._write_log, f"could not be started: {exc}\n")
            return 127
        probing = asyncio.create_task(self._probe())
        try:
            return await process.wait()
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            if process.returncode is None:  # we were cancelled: never leave it behind
                kill_tree(process.pid)
                await process.wait()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started and did not wait for

    def _write_log(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(text)

    def _open_log(self) -> int:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.ready_file.parent.mkdir(parents=True, exist_ok=True)
        self.ready_file.unlink(missing_ok=True)
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def _spawn(self) -> asyncio.subprocess.Process:
        log = self._open_log()
        identity: dict[str, object] = {}
        if self.spec.account is not None:
            account = pwd.getpwnam(self.spec.account)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**self.spec.environment, "HOLDFAST_READY_FILE": str(self.ready_file)},
                start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone, which stops us in order
                **identity,  # type: ignore[arg-type]  # user, group and extra_groups, as Popen takes them
            )
        finally:
            os.close(log)
        try:
            create_time = psutil.Process(self._process.pid).create_time()
        except psutil.Error:  # it is gone already
            create_time = time.time()
        self.info = ProcessInfo(
            name=self.spec.name,
            pid=self._process.pid,
            create_time=create_time,
            stop_signal=int(self.spec.stop_signal),
        )
        self._set("starting")
        if self._stopping:  # the request came while we were starting, and found no process
            self._signal(self.spec.stop_signal)
        return self._process

    async def _probe(self) -> None:
        while True:
            if await self.spec.probe() if self.spec.probe is not None else self.ready_file.exists():
                break
            await asyncio.sleep(_POLL)
        self._set("ready")
