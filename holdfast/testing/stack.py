"""The real servers of a test run, in a folder of their own. The fixture `stack` gives one; every call blocks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from holdfast.client import Client
from holdfast.contracts import AgentDefinition
from holdfast.errors import ConfigurationError, StackError
from holdfast.server import StackInfo, read_stack, settings_for, start_detached, stop_stack
from holdfast.server.state import ProcessInfo, is_alive
from holdfast.settings import Settings, load_settings
from holdfast.testing.models import ScriptedModels
from holdfast.testing.portal import Portal
from holdfast.testing.skipping import SkippingServer

__all__ = ["Stack"]

T = TypeVar("T")

_IDLE = 3600.0  # seconds; the end of pytest is what ends a stack, whatever happens
_POLL = 0.05

# Waits for the end of whoever holds its standard input, also by kill -9, and stops the stack: one with a run that has
# not ended would never be idle. One that was only beginning to start holds no lock yet: it is looked for again.
_GUARD = """
import sys, time
from pathlib import Path
sys.stdin.read()
from holdfast.server import stop_stack
for _ in range(100):
    if stop_stack(Path(sys.argv[1])):
        break
    time.sleep(0.1)
"""
_OURS = {"workers": 1, "reload": False, "idle_exit": _IDLE}

# Nothing of what a person's shell, .env or holdfast.toml says of servers may reach a test: they may be production.
# Ports that are fixed there are those of the person's own stack.
_PORTS = ("temporal_port", "ui_port", "postgres_port")
_NOWHERE = ("temporal_address", "temporal_ui", "database_url", "qdrant_url", "qdrant_api_key", *_PORTS)


class Stack:
    """One embedded stack: Temporal, PostgreSQL, Qdrant, a worker, and a model server where the models are scripted."""

    def __init__(self, folder: Path, settings: Settings, portal: Portal) -> None:
        """Know the parts; `Stack.start` makes one that runs."""
        self.folder = folder
        self.settings = settings
        self.models: ScriptedModels | None = None
        self.clock: SkippingServer | None = None
        self._portal = portal
        self._client: Client | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        agents: Path,
        scripted: bool = True,
        clock: SkippingServer | None = None,
        hear: Callable[[str], None] = lambda _: None,
        **settings: object,
    ) -> Stack:
        """Start a stack in *folder*, whatever the shell, `.env` and holdfast.toml say of servers. Takes seconds.

        Args:
            folder: a folder of its own, made if need be; its content goes when the stack is closed, but for the logs.
            agents: the agents file.
            scripted: have every model played by `models`; else agents use the models they name.
            clock: a time-skipping test server to use in place of Temporal; closed with the stack.
            hear: is told what takes long: the first start of all may download a Temporal server.
            settings: of `Settings`; unset, one worker and no reload.

        Raises:
            StackError, ConfigurationError, StorageError: what kept it from starting.

        """
        wrong = set(settings) & {*_NOWHERE, "home", "agents"}
        if wrong:
            raise ConfigurationError(f"a test's stack is its own: {', '.join(sorted(wrong))} cannot be set.")
        read = load_settings(home=folder / "home", agents=agents, **{**_OURS, **settings})
        stack = cls(folder, read, Portal())
        stack.clock = clock
        try:
            stack._open(scripted=scripted, hear=hear)
        except BaseException:
            stack.close()
            raise
        return stack

    def _open(self, *, scripted: bool, hear: Callable[[str], None]) -> None:
        given: dict[str, Any] = dict.fromkeys(_NOWHERE)
        given |= {"temporal_namespace": "default", "tenant": "default"}
        if self.settings.offline is None:
            given["offline"] = True
        if self.clock is not None:
            given["temporal_address"] = self.clock.start()
        if scripted:
            self.models = ScriptedModels()
            self._portal.call(self.models.start)
            given["api_base"] = self.models.base_url
        settings = self.settings.model_copy(update=given)
        self._guard = subprocess.Popen(
            [sys.executable, "-P", "-c", _GUARD, str(settings.home.absolute())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        blank = {f"HOLDFAST_{name.upper()}": "" for name in _NOWHERE}
        info = start_detached(settings, hear=hear, environment=blank)
        self.settings = settings_for(settings, info)

        async def connect() -> Client:
            return await Client.connect(self.settings)

        self._client = self._portal.call(connect)

    @property
    def logs(self) -> Path:
        """The folder with the log of each process."""
        return self.folder / "home" / "logs"

    @property
    def info(self) -> StackInfo:
        """Where its parts are now, with their process ids.

        Raises:
            StackError: it does not run any more.

        """
        info = read_stack(self.settings.home)
        if info is None:
            raise StackError(f"the stack of this test run is gone; see {self.logs / 'supervisor.log'}")
        return info

    def call(self, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """Run *work* with a client of this stack, on a loop beside the test's own, and return what it does."""
        __tracebackhide__ = True
        client = self._client
        if client is None:
            raise StackError("the stack of this test run is closed")
        return self._portal.call(lambda: work(client))

    def agents(self) -> dict[str, AgentDefinition]:
        """Return the agents that the workers have loaded, by name."""
        return self.call(lambda client: client.agents())

    # ------------------------------------------------------------------------------------ workers

    def workers(self) -> list[ProcessInfo]:
        """Return the agent workers: name, pid, state."""
        return [child for child in self.info.children if child.name.startswith("agents-")]

    def kill_workers(self) -> list[int]:
        """Kill -9 every agent worker, and return their pids. The supervisor starts others at once."""
        workers = self.workers()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        while any(is_alive(worker) for worker in workers):  # nobody can hold out against this signal
            time.sleep(_POLL / 10)
        return [worker.pid for worker in workers]

    def restart_workers(self) -> None:
        """Replace the workers one by one, as a roll-out does: they drain, and the agents file is loaded anew.

        Raises:
            StackError: the new ones were not ready in time; the message names the log.

        """
        before = {worker.pid for worker in self.workers()}
        os.kill(self.info.supervisor.pid, signal.SIGHUP)
        self._until(lambda now: not before & {worker.pid for worker in now}, "replaced")

    def until_ready(self) -> None:
        """Wait until every worker polls, as after `kill_workers`; runs go on without this too.

        Raises:
            StackError: they were not ready in time; the message names the log.

        """
        self._until(lambda _: True, "ready")

    def _until(self, fits: Callable[[list[ProcessInfo]], bool], what: str) -> None:
        deadline = time.monotonic() + self.settings.scaled(self.settings.start_timeout)
        while True:
            now = [worker for worker in self.workers() if worker.state != "draining"]
            if now and fits(now) and all(worker.state == "ready" and is_alive(worker) for worker in now):
                return
            if time.monotonic() > deadline:
                raise StackError(f"the workers were not {what} within {self.settings.start_timeout:g} s: {self.logs}")
            time.sleep(_POLL)

    # ------------------------------------------------------------------------------------ time

    def skip(self, duration: timedelta | float) -> None:
        """Let so much of Temporal's time (seconds, or a timedelta) pass at once: timers, retries, look-ups come due.

        Temporal's time alone: leases and deadlines in the ledger go by PostgreSQL's clock, and tools by their own. It
        passes only while no step is under way; begin when the run waits.

        Raises:
            ConfigurationError: this stack runs on a real Temporal server, whose time cannot be skipped.
            StackError: a step was under way for too long.

        """
        if self.clock is None:
            raise ConfigurationError(
                "the time of this stack cannot be skipped: mark the test with @pytest.mark.holdfast(time_skipping=True)"
            )
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
        clock, patience = self.clock, self.settings.scaled(self.settings.client_patience)
        self._portal.call(lambda: clock.skip(seconds, patience))

    def close(self) -> None:
        """Stop everything, and remove all but the logs."""
        with contextlib.ExitStack() as last_first:  # each part is ended, whatever the others raise
            last_first.callback(self._remove)
            last_first.callback(self._portal.close)
            if self.clock is not None:
                last_first.callback(self.clock.close)
            if self.models is not None:
                last_first.callback(self._portal.call, self.models.stop)
            last_first.callback(self._stop)
            client, self._client = self._client, None
            if client is not None:
                self._portal.call(client.close)

    def _stop(self) -> None:
        stop_stack(self.settings.home, grace=self.settings.stop_grace)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.kill()  # nothing is left to do; and its input is open elsewhere, too, if a test has forked
            self._guard.wait()
            self._guard.stdin.close()

    def _remove(self) -> None:
        for entry in self.settings.home.iterdir() if self.settings.home.is_dir() else ():
            if entry.is_dir() and entry.name != "logs":
                shutil.rmtree(entry, ignore_errors=True)
