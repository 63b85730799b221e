"""Renews the leases of all calls that a worker has in hand, in one statement; the runtime serves it, calls hold it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

import structlog

from holdfast.errors import StorageError
from holdfast.memory import ledger, model_leases
from holdfast.memory.database import UNAVAILABLE, OwnConnection, connect
from holdfast.settings import Settings

__all__ = ["Leases"]

T = TypeVar("T")

_STILL = 5  # leases for which the worker's loop may stand still before its calls are given up

log = structlog.get_logger(__name__)


class Leases:
    """The calls in hand. They are renewed from a thread and a connection of their own, which wait for nothing else.

    Not for a pool that others have emptied, and not for the worker's event loop: parsing what a thousand queued runs
    brought held it for as long as a lease, and the calls in hand were taken for lost. A loop that stands still for
    several leases is another matter: its calls come to no end, and whoever takes them over must not wait for ever. Only
    bodies of tools that still run keep their leases then.

    A statement for each call and beat would be the most a busy worker asks of PostgreSQL, and on a starved machine the
    first thing that comes too late: then calls are in doubt whose owner is alive.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held: dict[str, int] = {}
        self._models: dict[str, str] = {}
        self._bodies: dict[tuple[str, int], Future[Any]] = {}
        self._conn: OwnConnection | None = None
        self._pulse = 0.0  # when the worker's loop was last seen to run, on the monotonic clock
        self._closed = False

    def hold(self, key: str, fence: int) -> AbstractContextManager[None]:
        """Keep the lease of this claim for as long as the block runs."""
        return _kept(self._held, key, fence)

    def hold_body(self, key: str, fence: int, body: Future[Any]) -> None:
        """Keep the lease of this claim as long as its tool's *body* runs, past any deadline, and until `let_go`.

        Also while the worker's loop stands still: a thread that runs may still take effect.
        """
        self._bodies[key, fence] = body

    def let_go(self, key: str, fence: int) -> None:
        """The body has ended, and what it came to is recorded."""
        self._bodies.pop((key, fence), None)

    def hold_model(self, key: str, owner: str) -> AbstractContextManager[None]:
        """Keep the lease of this model call for as long as the block runs."""
        return _kept(self._models, key, owner)

    async def serve(self, settings: Settings, name: str) -> None:
        """Renew with each beat until cancelled. A claim that is no longer ours is renewed in vain, and nothing else.

        Where the process lives on without its worker, so may a tool's body that hangs: its lease is renewed as long.
        """
        loop = asyncio.new_event_loop()
        renewing = loop.create_task(self._keep_renewing(settings, name))
        self._pulse = time.monotonic()
        thread = threading.Thread(target=_run, args=(loop, renewing), name="holdfast-leases", daemon=True)
        thread.start()
        try:
            while True:
                await asyncio.sleep(settings.scaled(settings.beat))
                self._pulse = time.monotonic()
        finally:
            self._closed = True
            if self._running():
                log.warning(
                    "tool bodies are still running; this process keeps renewing the leases of their calls",
                    calls=len(self._running()),
                )
            else:
                with suppress(RuntimeError):  # it has ended by itself
                    loop.call_soon_threadsafe(renewing.cancel)
                await asyncio.shield(asyncio.to_thread(thread.join))

    async def _keep_renewing(self, settings: Settings, name: str) -> None:
        """Renew, on the loop of the thread."""
        lease = settings.scaled(settings.lease)
        try:
            while self._running() or not self._closed:
                try:
                    await self._renew(settings, name, lease)
                except (*UNAVAILABLE, StorageError) as exc:
                    log.info(
                        "leases were not renewed",
                        calls=len(self._held) + len(self._bodies) + len(self._models),
                        error=repr(exc),
                    )
                    self._drop()
                except Exception:  # tried again, whatever it is
                    log.exception(
                        "leases were not renewed", calls=len(self._held) + len(self._bodies) + len(self._models)
                    )
                    self._drop()
                await asyncio.sleep(settings.scaled(settings.beat))
        finally:
            self._drop()

    async def _renew(self, settings: Settings, name: str, lease: float) -> None:
        async with asyncio.timeout(2 * lease):  # a connection may be dead without a word
            if self._conn is None:  # also with nothing in hand: the first claim shall not wait for it
                self._conn = await connect(settings.database_url or "", name=name)
            # Copied, because the worker's loop goes on changing them.
            bodies, held, models = self._bodies.copy(), set(self._held.copy().items()), self._models.copy()
            if not self._closed and time.monotonic() - self._pulse < _STILL * lease:
                held |= bodies.keys()
            else:
                held, models = self._running(), {}
            if held:
                await ledger.renew(self._conn, held, lease)
            if models:
                await model_leases.renew(self._conn, models, lease)

    def _running(self) -> set[tuple[str, int]]:
        """Return the claims whose bodies have not ended, seen from any thread."""
        return {claim for claim, body in self._bodies.copy().items() if not body.done()}

    def _drop(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Be the thread."""
    try:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
    finally:
        loop.close()


@contextmanager
def _kept(held: dict[str, T], key: str, claim: T) -> Iterator[None]:
    held[key] = claim
    try:
        yield
    finally:
        if held.get(key) == claim:  # else another attempt of this worker has taken it over
            del held[key]
