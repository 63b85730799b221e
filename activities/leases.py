"""Renews the leases of all calls that a worker has in hand, in one statement; the runtime serves it, calls hold it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import structlog

from holdfast.errors import StorageError
from holdfast.memory import ledger, model_leases
from holdfast.memory.database import UNAVAILABLE, OwnConnection, connect
from holdfast.settings import Settings

__all__ = ["Leases"]

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Leases:
    """The calls in hand. They are renewed on a connection of their own: it waits for no pool that others have emptied.

    A statement for each call and beat would be the most a busy worker asks of PostgreSQL, and on a starved machine the
    first thing that comes too late: then calls are in doubt whose owner is alive.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held: dict[str, int] = {}
        self._models: dict[str, str] = {}
        self._conn: OwnConnection | None = None

    def hold(self, key: str, fence: int) -> AbstractContextManager[None]:
        """Keep the lease of this claim for as long as the block runs."""
        return _kept(self._held, key, fence)

    def hold_model(self, key: str, owner: str) -> AbstractContextManager[None]:
        """Keep the lease of this model call for as long as the block runs."""
        return _kept(self._models, key, owner)

    async def serve(self, settings: Settings, name: str) -> None:
        """Renew with each beat until cancelled. A claim that is no longer ours is renewed in vain, and nothing else."""
        lease = settings.scaled(settings.lease)
        try:
            while True:
                try:
                    await self._renew(settings, name, lease)
                except (*UNAVAILABLE, StorageError) as exc:
                    log.info("leases were not renewed", calls=len(self._held) + len(self._models), error=repr(exc))
                    self._drop()
                except Exception:  # such as a server that is read-only while another takes its place: tried again
                    log.exception("leases were not renewed", calls=len(self._held) + len(self._models))
                    self._drop()
                await asyncio.sleep(settings.scaled(settings.beat))
        finally:
            self._drop()

    async def _renew(self, settings: Settings, name: str, lease: float) -> None:
        async with asyncio.timeout(2 * lease):  # a connection may be dead without a word
            if self._conn is None:  # also with nothing in hand: the first claim shall not wait for it
                self._conn = await connect(settings.database_url or "", name=name)
            if self._held:
                await ledger.renew(self._conn, self._held, lease)
            if self._models:
                await model_leases.renew(self._conn, self._models, lease)

    def _drop(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


@contextmanager
def _kept(held: dict[str, T], key: str, claim: T) -> Iterator[None]:
    held[key] = claim
    try:
        yield
    finally:
        if held.get(key) == claim:  # else another attempt of this worker has taken it over
            del held[key]
