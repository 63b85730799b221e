"""Tells watching clients that a run has news: only (run, seq), in transactions of its own, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from holdfast.memory.database import UNAVAILABLE, Pool
from holdfast.memory.events import CHANNEL

__all__ = ["Notifier"]

log = structlog.get_logger(__name__)


class Notifier:
    """Coalesces notifications for a few milliseconds. A lost one costs a reader a second: readers also poll."""

    def __init__(self, pool: Pool, *, every: float = 0.02) -> None:
        self._pool = pool
        self._every = every
        self._news: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.heard_by: list[Callable[[str], None]] = []
        """Told of each run with news, in this process."""

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._serve(), name="notifier")

    async def close(self) -> None:
        """Stop sending."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def poke(self, run_id: str, seq: int) -> None:
        """Say that a run's record has grown to *seq*, or with the same seq again that tokens came."""
        self._news[run_id] = max(seq, self._news.get(run_id, 0))
        self._wake.set()
        for hear in self.heard_by if seq else ():
            hear(run_id)

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._every)
            self._wake.clear()
            news, self._news = self._news, {}
            try:
                await self._pool.execute(
                    "select pg_notify($1, payload) from unnest($2::text[]) payload",
                    CHANNEL,
                    [f"{run_id}:{seq}" for run_id, seq in news.items()],
                )
            except UNAVAILABLE as exc:
                log.debug("notification not sent; readers poll", error=str(exc))
            except Exception:
                log.exception("notification not sent; readers poll")
