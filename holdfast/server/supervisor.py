"""Starts, watches and stops all processes of one stack. `holdfast dev` and the detached server run it.

Order of start: PostgreSQL and Temporal together, migrations and search attributes, then memory and agent workers.
Order of stop: agent workers, memory, Temporal, PostgreSQL.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final, TypeAlias

import psutil

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.memory.connections import held_at_most
from holdfast.search_attributes import ensure_search_attributes
from holdfast.server.binary import ensure_binary
from holdfast.server.idle import is_in_use
from holdfast.server.leftovers import end_leftovers
from holdfast.server.lock import folder_lock
from holdfast.server.ports import choose_ports, wanted_ports
from holdfast.server.postgres import EmbeddedPostgres
from holdfast.server.processes import ChildProcess, ProcessSpec
from holdfast.server.reload import Reloader
from holdfast.server.rolling import Roll, Rolled
from holdfast.server.signals import signals
from holdfast.server.starting import tell_start
from holdfast.server.state import ProcessInfo, StackInfo, environment_for, write_state
from holdfast.server.temporal import EmbeddedTemporal
from holdfast.settings import Settings

__all__ = ["Supervisor", "WorkerSpecs", "default_workers", "run_stack"]

_log = logging.getLogger("holdfast.server")

WorkerSpecs: TypeAlias = Callable[[StackInfo, Settings], Sequence[ProcessSpec]]
Migrate: TypeAlias = Callable[[str], Awaitable[object]]

_MEMORY_ENDS: Final = 10.0  # seconds; what it does may be done again

# Shares of `stop_grace` by which each group must be gone. Temporal itself takes 1.3 s to end.
_STOP_BY: Final = {"worker": 0.70, "memory": 0.78, "temporal": 0.93, "postgres": 0.98}


def default_workers(info: StackInfo, settings: Settings) -> list[ProcessSpec]:
    """Return the memory process (unless a Qdrant server is used: then any worker serves its queue) and the workers."""
    environment = {**os.environ, **environment_for(info, settings)}
    runtime = (sys.executable, "-P", "-m", "holdfast.runtime")  # -P: nothing is imported from the current folder
    specs = []
    if settings.qdrant_url is None:
        specs.append(ProcessSpec("memory", (*runtime, "memory"), environment, role="memory"))
    for number in range(1, settings.workers + 1):
        specs.append(ProcessSpec(f"agents-{number}", (*runtime, "agents"), environment))  # noqa: PERF401  # reads better
    return specs


async def _migrate(database_url: str) -> None:
    from holdfast.memory.database import migrate

    await migrate(database_url)


class Supervisor:
    """The processes of one stack. The caller holds the folder's lock."""

    def __init__(
        self,
        settings: Settings,
        *,
        detached: bool = False,
        workers: WorkerSpecs = default_workers,
        migrate: Migrate = _migrate,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare nothing yet. *workers* and *migrate* are seams for tests; *notify* hears lines for a person."""
        paths = {"home": settings.home.absolute(), "agents": settings.agents.absolute()}
        self.settings = settings.model_copy(update=paths)
        self.home: Path = self.settings.home
        self.info: StackInfo | None = None
        self._detached = detached
        self._worker_specs = workers
        self._migrate = migrate
        self._notify_person = notify
        self._children: list[ChildProcess] = []
        self._starting = False
        self._rolling = Roll(self)

    @property
    def workers(self) -> list[ChildProcess]:
        """The agent workers, those that drain included."""
        return [child for child in self._children if child.spec.role == "worker"]

    def notify(self, line: str) -> None:
        """Log a line and pass it to whoever watches, or waits for the start."""
        _log.info(line)
        if self._starting:
            tell_start(self.home, line)
        if self._notify_person is not None:
            self._notify_person(line)

    async def start(self) -> StackInfo:
        """Start everything and return where it is, once all of it is ready.

        Raises:
            StackError: a server is missing, a port is busy, or a process did not start; the message has its log's end.
            ConfigurationError: a worker refused its configuration.
            StorageError: the migrations failed.

        """
        self._starting = True
        tell_start(self.home, "")
        ended = await asyncio.to_thread(end_leftovers, self.home)
        if ended:
            self.notify(f"the last supervisor here was killed; ended what it left running: {', '.join(ended)}")
        ports = choose_ports(self.home, wanted_ports(self.settings))
        servers = await self._servers(ports)
        for spec in servers:
            self._add(spec)
        assert self.info is not None
        timeout = self.settings.scaled(self.settings.start_timeout)
        await _all(child.wait_ready(timeout=timeout) for child in self._children)
        await self._migrate(self.info.database_url)
        if self.settings.temporal_address is not None:
            names = await ensure_search_attributes(self.info.temporal_address, self.info.namespace)
            if names:
                self.notify(f"registered search attributes: {', '.join(names)}")
        for spec in self._worker_specs(self.info, self.settings):
            self._add(spec)
        await _all(child.wait_ready(timeout=timeout) for child in self._children)
        self._update(ready=True)
        self._starting = False
        tell_start(self.home, None)
        return self.info

    async def _servers(self, ports: dict[str, int]) -> list[ProcessSpec]:
        """Write down where everything will be, and return the servers to start."""
        settings, specs = self.settings, []
        environment = dict(os.environ)
        address, ui = settings.temporal_address, settings.temporal_ui
        database_url = settings.database_url
        if database_url is None:
            postgres = EmbeddedPostgres(self.home, ports["postgres_port"])
            database_url = postgres.url
            # A rolling restart has twice the workers for a while; 50 are for clients and their runs.
            wanted = 2 * settings.workers * held_at_most(settings, "agents") + held_at_most(settings, "memory") + 50
            specs.append(postgres.spec(environment, connections=max(200, wanted)))
        if address is None:
            temporal = EmbeddedTemporal(
                self.home,
                await ensure_binary(settings, self.notify),
                port=ports["temporal_port"],
                ui_port=ports["ui_port"],
                namespace=settings.temporal_namespace,
            )
            address, ui = temporal.address, temporal.ui
            specs.append(temporal.spec(environment))
        self.info = StackInfo(
            temporal_address=address,
            temporal_ui=ui,
            namespace=settings.temporal_namespace,
            database_url=database_url,
            qdrant_url=settings.qdrant_url,
            home=self.home,
            agents=settings.agents,
            embedded_temporal=settings.temporal_address is None,
            embedded_postgres=settings.database_url is None,
            supervisor=ProcessInfo(
                name="supervisor", pid=os.getpid(), create_time=psutil.Process().create_time(), state="ready"
            ),
            children=[],
            detached=self._detached,
            started_at=datetime.now(UTC),
            ready=False,
        )
        write_state(self.info)
        return specs

    def _add(self, spec: ProcessSpec) -> ChildProcess:
        child = ChildProcess(spec, self.settings, on_change=self._update, notify=self.notify)
        self._children.append(child)
        child.start()
        return child

    def _update(self, *, ready: bool | None = None) -> None:
        """Write down the present pids and states."""
        if self.info is not None:
            children = [child.info for child in self._children if child.info is not None]
            self.write(children=children, ready=self.info.ready if ready is None else ready)

    def write(self, **changes: object) -> None:
        """Write *changes* down in `stack.json`."""
        if self.info is not None:
            self.info = self.info.model_copy(update=changes)
            try:
                write_state(self.info)
            except OSError as exc:  # a full disk must not end the supervision of what runs
                _log.error("stack.json could not be written: %s", exc)

    async def stop(self) -> None:
        """Stop everything in order, within `stop_grace` seconds; remove `stack.json`."""
        began = time.monotonic()
        grace = self.settings.stop_grace
        if self.info is not None:
            self._update(ready=False)
        for group, share in _STOP_BY.items():
            members = [child for child in self._children if group in (child.spec.role, child.spec.name)]
            left = began + share * grace - time.monotonic()
            await asyncio.gather(*(child.stop(timeout=left) for child in members))
        await self._rolling.close()
        self.info = None
        (self.home / "stack.json").unlink(missing_ok=True)

    async def roll(
        self, may_go_on: Callable[[], bool] = lambda: True, *, first: Callable[[], Awaitable[None]] | None = None
    ) -> Rolled:
        """Replace the agent workers by new ones; see `Roll`."""
        return await self._rolling.roll(may_go_on, first)

    def add_worker(self, old: ProcessSpec) -> ChildProcess:
        """Start a worker like *old*, under a name that no other has."""
        taken = {child.spec.name for child in self._children}
        name = next(name for number in count(1) if (name := f"agents-{number}") not in taken)
        return self._add(replace(old, name=name))

    async def renew_memory(self) -> bool:
        """Replace the memory process, if there is one; return whether it does not refuse the agents file.

        It carries out `remember` and `recall` for all agents, so it needs nothing of the agents file but its plugins.
        Only one process at a time can have its folder open, so the old one ends before the new one has loaded anything.
        Call this only when an agent worker has loaded the same files: a process that refuses them is not started again.
        """
        renewed = True
        for old in [child for child in self._children if child.spec.role == "memory"]:
            self.notify("the memory process is restarted to load the plugins of the agents file")
            await self.drop(old, timeout=_MEMORY_ENDS)
            try:
                await self._add(old.spec).wait_ready(timeout=self.settings.scaled(self.settings.start_timeout))
            except ConfigurationError as exc:
                renewed = False
                self.notify(
                    "the memory process is down: it refused the files that an agent worker has loaded. `recall` fails, "
                    "and what agents remember is kept until it runs. Correct the agents file: once you save it, the "
                    f"memory process is started again.\n{exc}"
                )
            except HoldfastError as exc:  # it is started again and again
                self.notify(f"the memory process is not ready yet: {str(exc).splitlines()[0]}")
        return renewed

    async def drop(self, child: ChildProcess, *, timeout: float) -> None:
        """Stop a worker, kill it after *timeout* seconds, and forget it."""
        await child.stop(timeout=timeout)
        if child in self._children:
            self._children.remove(child)
        self._update()

    async def until_idle(self) -> None:
        """Return after `idle_exit` seconds without an open run and without a client."""
        assert self.info is not None
        pause = min(5.0, self.settings.idle_exit / 4)
        used = time.monotonic()
        while time.monotonic() - used < self.settings.idle_exit:
            await asyncio.sleep(pause)
            if await is_in_use(self.info.database_url):
                used = time.monotonic()


async def run_stack(
    settings: Settings,
    *,
    on_ready: Callable[[StackInfo], None],
    detached: bool = False,
    notify: Callable[[str], None] | None = None,
    workers: WorkerSpecs = default_workers,
    migrate: Migrate = _migrate,
) -> None:
    """Run a stack in the foreground until SIGINT or SIGTERM (or, if *detached*, until it is idle).

    SIGHUP restarts the agent workers one after the other; if it came because the terminal was closed, it stops all.
    *on_ready* is called once, *notify* with lines a person may want to see (restarts, a failed worker).

    Raises:
        StackBusy: another stack runs in this folder.
        StackError, ConfigurationError, StorageError: as `Supervisor.start`.

    """
    with folder_lock(settings.home.absolute()):
        supervisor = Supervisor(settings, detached=detached, workers=workers, migrate=migrate, notify=notify)
        with signals() as (stopping, rolling):
            try:
                await _run(supervisor, on_ready, stopping, rolling, detached=detached)
            finally:
                await supervisor.stop()


async def _run(
    supervisor: Supervisor,
    on_ready: Callable[[StackInfo], None],
    stopping: asyncio.Event,
    rolling: asyncio.Event,
    *,
    detached: bool,
) -> None:
    stop = asyncio.create_task(stopping.wait())
    tasks: set[asyncio.Task[object]] = set()
    try:
        reloader = _reloader(supervisor, rolling)
        start = asyncio.create_task(supervisor.start())
        await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            return
        on_ready(start.result())
        if reloader is not None:
            supervisor.write(agents_version=reloader.version)
            tasks.add(asyncio.create_task(reloader.watch(), name="watch the agents file"))
        idle = asyncio.create_task(supervisor.until_idle() if detached else asyncio.Event().wait())
        tasks.add(idle)
        while not stopping.is_set():
            roll = asyncio.create_task(_roll_when_asked(supervisor, rolling, reloader))
            tasks.add(roll)
            await asyncio.wait([stop, idle, roll], return_when=asyncio.FIRST_COMPLETED)
            if idle.done():
                supervisor.notify(f"idle for {supervisor.settings.idle_exit:.0f} s: stopping")
                idle.result()
                return
    finally:
        for task in (*tasks, stop):
            task.cancel()
        await asyncio.gather(*tasks, stop, return_exceptions=True)


def _reloader(supervisor: Supervisor, rolling: asyncio.Event) -> Reloader | None:
    """Return what watches the agents file, before any worker has loaded it; None if nobody wants it."""
    settings = supervisor.settings
    if not settings.reload:
        return None

    def environment() -> dict[str, str]:
        assert supervisor.info is not None
        return {**os.environ, **environment_for(supervisor.info, settings)}

    return Reloader(
        settings,
        environment,
        roll=rolling.set,
        notify=supervisor.notify,
        told=lambda version, why: supervisor.write(agents_refused=version, agents_error=why),
    )


async def _roll_when_asked(supervisor: Supervisor, rolling: asyncio.Event, reloader: Reloader | None) -> None:
    await rolling.wait()
    rolling.clear()
    try:
        if reloader is None:
            await supervisor.roll()
        else:
            changed, version = reloader.changed or reloader.memory_is_old, reloader.rolling()

            async def loads() -> None:
                """Hear that a new worker is ready: the memory process may load the same files."""
                if reloader.memory_is_old:
                    reloader.memory_is_old = False  # before: an edit during the restart may make it old again
                    if not await supervisor.renew_memory():
                        reloader.memory_is_old = True
                supervisor.write(agents_version=version)

            rolled = await supervisor.roll(reloader.unchanged, first=loads if changed else None)
            if rolled == "done":
                reloader.loaded()
            else:
                reloader.not_loaded(rolled)
    except Exception:  # noqa: BLE001  # the stack goes on whatever became of a restart
        _log.exception("the rolling restart failed")


async def _all(waits: Iterator[Awaitable[None]]) -> None:
    """Wait for all; the first failure ends the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
