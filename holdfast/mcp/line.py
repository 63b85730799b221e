"""Keeps one session with a server up, in a task of its own on the tool loop. Only `rack.py` uses it.

The protocol library binds a session to the task that opened it, so one task opens, holds and closes it; calls come from
other tasks and wait for it here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from holdfast.errors import ToolNotStarted
from holdfast.mcp.away import tell_away
from holdfast.mcp.link import CannotConnect, Link, open_link
from holdfast.mcp.server import Endpoint
from holdfast.settings import Settings

__all__ = ["Line"]

log = structlog.get_logger(__name__)

_FIRST_PAUSE = 0.25
_SHORT_PAUSE = 1.0  # a call that waits cuts a longer pause to this
_LONGEST_PAUSE = 30.0
_CLOSING = 5.0  # seconds for a server to end
_TRIES = 2  # failed tries that a call sees before it gives up

Sighted = Callable[[Link], Awaitable[None]]


class Line:
    """A server of this worker."""

    def __init__(self, endpoint: Endpoint, settings: Settings, *, longest_call: float, sighted: Sighted) -> None:
        """Connect to nothing yet. *sighted* is awaited with each new session before anybody may use it."""
        self.endpoint = endpoint
        self.problem: str | None = None
        """Why there is no session, after a failed try."""
        self._settings = settings
        self._longest_call = longest_call
        self._sighted = sighted
        self._link: Link | None = None
        self._failures = 0
        self._stopping = False
        self._changed = asyncio.Event()  # replaced at each change
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._holds: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._keep(), name=f"MCP server {self.endpoint.name}")

    async def tried(self) -> None:
        """Wait until the first try has ended, well or not."""
        while self._link is None and self.problem is None:
            await self._changed.wait()

    async def close(self) -> None:
        """End the session and the server's process."""
        self._stopping = True
        tell_away(self._settings.home, self.endpoint.name, None)
        if self._task is None:
            return
        if self._link is not None:
            self._link.over.set()
        else:
            self._task.cancel()
        ending = {self._task, *self._holds}
        _, left = await asyncio.wait(ending, timeout=_CLOSING)
        for task in left:
            log.warning("an MCP server does not end", server=self.endpoint.name)
            task.cancel()

    async def link(self, patience: float) -> Link:
        """Return the session, waiting for it up to *patience* seconds, or until connecting has failed twice.

        Raises:
            ToolNotStarted: there is none.

        """
        seen = self._failures
        try:
            async with asyncio.timeout(patience):
                while self._link is None or self._link.over.is_set():
                    if self._failures >= seen + _TRIES or self._stopping:
                        break
                    self._wanted.set()
                    await self._changed.wait()
        except TimeoutError:
            pass
        link = self._link
        if link is None or link.over.is_set():
            why = self.problem or "it is still starting"
            raise ToolNotStarted(f"MCP server {self.endpoint.name!r} cannot be reached: {why}. Nothing was sent.")
        return link

    # ------------------------------------------------------------------------------------ the task

    async def _keep(self) -> None:
        """Hold one session after the other. One that is over may have answers to come: it ends beside the next."""
        pause = _FIRST_PAUSE
        while not self._stopping:
            ready: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
            hold = asyncio.create_task(self._hold(ready), name=f"MCP session {self.endpoint.name}")
            self._holds.add(hold)
            hold.add_done_callback(self._holds.discard)
            try:
                both: set[asyncio.Future[Any]] = {hold, ready}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if ready.done():
                    link = ready.result()
                    self._tell(link)
                    pause = _FIRST_PAUSE
                    tell_away(self._settings.home, self.endpoint.name, None)
                    log.info(
                        "an MCP server is connected", server=self.endpoint.name, tools=len(link.offers), **link.said
                    )
                    await link.over.wait()
            except asyncio.CancelledError:
                hold.cancel()
                raise
            self._lost(await self._reason(hold, connected=ready.done()))
            if self._stopping:
                break
            log.warning(
                "an MCP server is away", server=self.endpoint.name, why=self.problem, again_in_s=round(pause, 1)
            )
            tell_away(self._settings.home, self.endpoint.name, self.problem)
            await self._rest(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _hold(self, ready: asyncio.Future[Link]) -> None:
        """Open a session, hold it until it is over and its calls are done, and close it."""
        link: Link | None = None
        try:
            async with open_link(self.endpoint, self._settings, longest_call=self._longest_call) as link:
                await self._sighted(link)
                ready.set_result(link)
                await link.over.wait()
                if not self._stopping:
                    await link.idle(self._longest_call)
        finally:
            if link is not None:
                link.over.set()

    async def _reason(self, hold: asyncio.Task[None], *, connected: bool) -> str:
        """Say why a session ended, or never began."""
        if connected:
            await asyncio.sleep(0)  # a session that broke has raised by now; one that drains goes on
            if not hold.done() or hold.cancelled() or hold.exception() is None:
                return "its session has ended"
        error = None if hold.cancelled() else hold.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, CannotConnect):
            return str(error)
        return f"{type(error).__name__}: {error}" if error is not None else "it was cancelled"

    async def _rest(self, pause: float) -> None:
        """Wait before the next try, less long if somebody waits for it."""
        self._wanted.clear()
        await asyncio.sleep(min(pause, _SHORT_PAUSE))
        if pause > _SHORT_PAUSE:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause - _SHORT_PAUSE):
                    await self._wanted.wait()

    def _tell(self, link: Link) -> None:
        self._link, self.problem, self._failures = link, None, 0
        self._turn()

    def _lost(self, why: str) -> None:
        self._link, self.problem = None, why
        self._failures += 1
        self._turn()

    def _turn(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
