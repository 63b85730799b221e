"""Tells plugins what happens in runs: in order for each run, each event at least once. The runtime has one per worker.

News of this worker's own runs come at once; what a killed worker left untold, and what others wrote, is found in
PostgreSQL. How far a plugin has heard a run is written down after it has, so a kill in between tells it again.

An event that a required plugin refuses is told again after pauses. When it was refused `event_tries` times and the
plugin takes others, it is set aside in the table `unheard`, and the run's next event is told. While the plugin takes
none, as when its own server is away, nothing is set aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from holdfast.activities.deps import Deps
from holdfast.contracts import Event
from holdfast.memory import events, listeners
from holdfast.memory.database import UNAVAILABLE
from holdfast.plugins.contract import Plugin
from holdfast.secrets import mask
from holdfast.tools.runner import NeverBegan

__all__ = ["Teller"]

_AT_ONCE = 100  # events of a run between two notes of how far it was told
_LEASES = 5  # of a step: a worker that is gone for so long is no longer the one that tells
_SOON = 0.02  # seconds: what comes together is told together

log = structlog.get_logger(__name__)


class Teller:
    """Serves all plugins of a worker that listen, each at its own pace."""

    def __init__(self, deps: Deps) -> None:
        """Tell nothing yet."""
        self._deps = deps
        self._news: dict[str, set[str]] = {plugin.name: set() for plugin in deps.hooks.of("event")}
        self._wake: dict[str, asyncio.Event] = {name: asyncio.Event() for name in self._news}

    def hear(self, run_id: str) -> None:
        """Take in that a run has news."""
        for name, news in self._news.items():
            news.add(run_id)
            self._wake[name].set()

    async def serve(self) -> None:
        """Tell until cancelled."""
        async with asyncio.TaskGroup() as group:
            for plugin in self._deps.hooks.of("event"):
                group.create_task(self._serve(plugin), name=f"tell {plugin.name}")

    async def _serve(self, plugin: Plugin) -> None:
        wake = self._wake[plugin.name]
        every = self._deps.settings.scaled(self._deps.settings.sweep_every)
        look = 0.0
        while True:
            wake.clear()
            news, self._news[plugin.name] = self._news[plugin.name], set()
            try:
                if time.monotonic() >= look:
                    async with self._deps.pool.acquire() as conn:
                        news.update(await listeners.behind(conn, plugin.name, self._deps.settings.event_look))
                    look = time.monotonic() + every
                for run_id in sorted(news):
                    await self._try(plugin, run_id)
            except (*UNAVAILABLE, NeverBegan) as exc:  # the database is away, or the plugin blocks its own loop
                log.info("a plugin is not told just now", plugin=plugin.name, error=str(exc))
            except Exception:
                log.exception("a plugin is not told just now", plugin=plugin.name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await wake.wait()
            await asyncio.sleep(_SOON)

    async def _try(self, plugin: Plugin, run_id: str) -> None:
        """Tell of a run. One that cannot be told keeps no other waiting: it is looked at again after a pause."""
        try:
            await self._tell(plugin, run_id)
        except (*UNAVAILABLE, NeverBegan):
            raise
        except Exception:
            log.exception("events of a run cannot be delivered", plugin=plugin.name, run_id=run_id)
            settings = self._deps.settings
            pause = settings.scaled(settings.sweep_every)
            async with self._deps.pool.acquire() as conn:
                await listeners.refused(conn, plugin.name, run_id, pause, settings.event_pause_max)

    async def _tell(self, plugin: Plugin, run_id: str) -> None:
        """Tell what a plugin has not heard of a run, unless another worker does."""
        lease = self._deps.settings.scaled(_LEASES * self._deps.settings.lease)
        async with self._deps.pool.acquire() as conn:
            seq = await listeners.take(conn, plugin.name, run_id, lease)
        if seq is None:
            return
        paused = whole = False
        try:
            while not whole:
                async with self._deps.pool.acquire() as conn:
                    found = await events.read(conn, run_id, after=seq, limit=_AT_ONCE)
                for event in found:
                    error = await self._deliver(plugin, run_id, event, seq, lease)
                    if error is not None and not await self._refused(plugin, run_id, event, error):
                        paused = True
                        return
                    seq = event.seq
                    async with self._deps.pool.acquire() as conn:
                        await listeners.told(conn, plugin.name, run_id, seq, lease)
                whole = len(found) < _AT_ONCE
        finally:
            if not paused:
                async with self._deps.pool.acquire() as conn:
                    await listeners.told(conn, plugin.name, run_id, seq, 0.0, whole=whole)

    async def _refused(self, plugin: Plugin, run_id: str, event: Event, error: str) -> bool:
        """Have an event told again later. True: it was refused too often, and is set aside."""
        settings = self._deps.settings
        async with self._deps.pool.acquire() as conn, conn.transaction():
            pause = settings.scaled(settings.sweep_every)
            tries, others = await listeners.refused(conn, plugin.name, run_id, pause, settings.event_pause_max)
            if tries < settings.event_tries or not others:
                return False
            await listeners.set_aside(conn, plugin.name, run_id, event.seq, error)
        log.error(
            "a plugin refused an event too often: it is set aside in the table unheard, and later events are delivered",
            plugin=plugin.name,
            run_id=run_id,
            seq=event.seq,
            kind=event.kind,
            tries=tries,
            error=error,
        )
        return True

    async def _hold(self, plugin: Plugin, run_id: str, seq: int, lease: float) -> None:
        """Stay the one that tells, for as long as a hook takes."""
        while True:
            await asyncio.sleep(lease / 3)
            with contextlib.suppress(*UNAVAILABLE):
                async with self._deps.pool.acquire() as conn:
                    await listeners.told(conn, plugin.name, run_id, seq, lease)

    async def _deliver(self, plugin: Plugin, run_id: str, event: Event, seq: int, lease: float) -> str | None:
        """Tell one event. Return why a required listener did not take it.

        Raises:
            NeverBegan: it was not asked.

        """
        holding = asyncio.create_task(self._hold(plugin, run_id, seq, lease))
        try:
            await self._deps.hooks.event(plugin, event)
        except NeverBegan:
            raise
        except Exception as exc:  # noqa: BLE001  # whatever a plugin raises is its own
            said = mask(f"{type(exc).__name__}: {exc}")
            log.warning("a plugin failed", plugin=plugin.name, hook="event", run_id=run_id, seq=event.seq, error=said)
            return said if plugin.required is True else None
        finally:
            holding.cancel()
            await asyncio.wait([holding])  # it writes the same row
        return None
