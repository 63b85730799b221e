"""The body of a claimed call: whether it still runs, also after it was given up, and how it ended."""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

from holdfast.activities.leases import Leases
from holdfast.tools.threads import Ended

__all__ = ["Body"]


class Body:
    """Holds the lease of its call from its begin until `let_go`: as long as it may take effect, nobody else may."""

    def __init__(self, leases: Leases, key: str, fence: int) -> None:
        """Hold nothing yet."""
        self._leases = leases
        self._claim = key, fence
        self._future: Future[Ended[Any]] | None = None
        self._since = datetime.now(UTC)

    def begin(self, future: Future[Ended[Any]]) -> None:
        """Take note that the body begins; *future* is done when it has ended."""
        self._future = future
        self._since = datetime.now(UTC)
        self._leases.hold_body(*self._claim, future)

    def let_go(self) -> None:
        """Hold the lease no longer."""
        self._leases.let_go(*self._claim)

    @property
    def runs(self) -> bool:
        """Whether it has begun and not ended."""
        return self._future is not None and not self._future.done()

    @property
    def words(self) -> str:
        """What a person is told about a body that is still running."""
        where = f"worker process {os.getpid()} on {socket.gethostname()}"
        since = f"{self._since:%Y-%m-%d %H:%M:%S} UTC"
        return f"its body is still running in {where}, since {since}; to end it, stop that worker"

    async def ended(self, within: float | None = None) -> Ended[Any] | None:
        """Return how it ended; None if it runs on after *within* seconds, or never began."""
        if self._future is None:
            return None
        if not self._future.done():
            await asyncio.wait({asyncio.wrap_future(self._future)}, timeout=within)
        if not self._future.done() or self._future.cancelled():
            return None
        return self._future.result()
