"""The client's lines to PostgreSQL and Temporal, which outlive a restart of either. Only client and handles use it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from holdfast.errors import HoldfastError, StackError, StorageError
from holdfast.memory.database import UNAVAILABLE, Connection, connect, open_pool
from holdfast.memory.events import CHANNEL
from holdfast.settings import Settings

if TYPE_CHECKING:
    from holdfast.memory.database import Pool
    from holdfast.wire import Wire

__all__ = ["Elsewhere", "Link", "NotRunning"]

T = TypeVar("T")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Elsewhere(HoldfastError):
    """The thread's workflow runs on another task queue. Never leaves the client."""


class NotRunning(HoldfastError):
    """No workflow of this thread runs. Never leaves the client."""


class Link:
    """A small pool and one listening connection to PostgreSQL, and a connection to Temporal."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        assert settings.database_url is not None
        self.settings = settings
        self.tenant: str = settings.tenant
        self.patience: float = settings.scaled(settings.client_patience)
        self._pool = pool
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self._listener = _Listener(settings.database_url)

    @classmethod
    async def open(cls, settings: Settings, *, temporal: bool, patience: float) -> Link:
        """Connect to the addresses in *settings*, both of which must be set; to Temporal at once, or when it is needed.

        A server that does not answer is tried for *patience* seconds: more than 0 where a supervisor restarts it.

        Raises:
            StackError, StorageError: a server does not answer; the message says which, and what to check.

        """
        assert settings.database_url is not None
        url = settings.database_url
        pool = await _insist(lambda: open_pool(url, size=4, name="holdfast-client"), patience)
        link = cls(settings, pool)
        try:
            if temporal:
                await _insist(link.wire, patience)
        except BaseException:
            pool.terminate()
            raise
        return link

    async def wire(self) -> Wire:
        """Return the connection to Temporal.

        Raises:
            StackError: it does not answer.

        """
        async with self._connecting:
            if self._wire is None:
                from holdfast.wire import Wire

                self._wire = await Wire.open(self.settings)
            return self._wire

    async def close(self) -> None:
        """Close all connections. Streams still open end with an error."""
        await self._listener.close()
        try:
            await asyncio.wait_for(self._pool.close(), timeout=2.0)
        except UNAVAILABLE:
            self._pool.terminate()

    # ------------------------------------------------------------------------------------ PostgreSQL

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run *work*, again if the connection is lost: it must be a question, or safe to repeat.

        Raises:
            StackError: PostgreSQL did not come back within `client_patience`.

        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self.patience, _FIRST_PAUSE
        while True:
            try:
                async with self._pool.acquire(timeout=10.0) as conn:
                    return await work(conn)
            except UNAVAILABLE as exc:
                if isinstance(exc, ValueError):  # the driver's word for a parameter of the wrong type: our mistake
                    raise
                if self._pool.is_closing():
                    raise StackError("This client is closed. Connect a new one.") from exc
                if loop.time() + pause > deadline:
                    raise StackError(
                        f"PostgreSQL has not answered for {self.patience:.0f} s ({exc or type(exc).__name__}). "
                        "What runs is not lost: check that the server is up (`holdfast doctor`) and ask again."
                    ) from exc
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def woken(self, run_id: str) -> contextlib.AbstractContextManager[asyncio.Event]:
        """Give an event that is set when something is written down about the run. It may be missed: poll as well."""
        return self._listener.woken(run_id)


async def _insist(connect_: Callable[[], Awaitable[T]], patience: float) -> T:
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await connect_()
        except (StackError, StorageError):
            if asyncio.get_running_loop().time() >= deadline:
                raise
        await asyncio.sleep(0.2)


class _Listener:
    """One connection that hears of new events of all runs, and wakes whoever waits for one. Best effort."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._wakers: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def woken(self, run_id: str) -> Iterator[asyncio.Event]:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_listening(), name="listen for events")
        waker = asyncio.Event()
        self._wakers.setdefault(run_id, set()).add(waker)
        try:
            yield waker
        finally:
            wakers = self._wakers[run_id]
            wakers.discard(waker)
            if not wakers:
                del self._wakers[run_id]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _heard(self, _conn: object, _pid: int, _channel: str, payload: object) -> None:
        run_id = str(payload).partition(":")[0]
        for waker in self._wakers.get(run_id, ()):
            waker.set()

    async def _keep_listening(self) -> None:
        while True:
            with contextlib.suppress(HoldfastError, *UNAVAILABLE):
                conn = await connect(self._url, name="holdfast-client-listen")
                gone = asyncio.Event()
                conn.add_termination_listener(lambda _conn, gone=gone: gone.set())
                try:
                    await conn.add_listener(CHANNEL, self._heard)
                    await gone.wait()
                finally:
                    conn.terminate()
            await asyncio.sleep(_LONGEST_PAUSE)
