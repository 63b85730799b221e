"""Notices that a tool or a plugin's hook blocks its loop, and says which and where. Only the runner uses it."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
import time
from types import FrameType

import structlog

__all__ = ["Watchdog"]

log = structlog.get_logger(__name__)

_NOT_USER_CODE = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Watchdog(threading.Thread):
    """Asks the tool loop for a sign of life again and again; warns once each time it stays away too long."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, loop_thread: threading.Thread, blocked_after: float, whose: str
    ) -> None:
        """Watch *loop* of *whose* functions, which runs in *loop_thread*; *blocked_after* is in seconds."""
        self._whose = whose
        super().__init__(name="holdfast-tool-watchdog", daemon=True)
        self._loop = loop
        self._loop_thread = loop_thread
        self._blocked_after = blocked_after
        self._stopped = threading.Event()
        self._pulse = threading.Event()

    def stop(self) -> None:
        """End soon, without a further word."""
        self._stopped.set()
        self._pulse.set()

    def run(self) -> None:
        """Be the watchdog's thread."""
        while not self._stopped.wait(self._blocked_after / 4):
            self._pulse.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._pulse.set)
            except RuntimeError:  # closed
                return
            if self._pulse.wait(self._blocked_after) or self._stopped.is_set():
                continue
            tool = self._warn(asked)
            self._pulse.wait()
            if tool and not self._stopped.is_set():
                log.info(
                    "the event loop runs again",
                    loop_of=self._whose,
                    tool=tool,
                    blocked_s=round(time.monotonic() - asked, 1),
                )

    def _warn(self, asked: float) -> str | None:
        """Name the tool that holds the loop; None if none does, as on a machine that is starved of CPU."""
        task = asyncio.current_task(self._loop)
        if task is None:
            return None
        name = task.get_name()
        log.warning(
            "an event loop is blocked: no other async function on it can run",
            loop_of=self._whose,
            tool=name,
            at=self._place(),
            blocked_s=round(time.monotonic() - asked, 1),
            advice="make it a plain `def`, which runs in a thread, or await what it waits for",
        )
        return name

    def _place(self) -> str:
        """Return `file:line in function` of the innermost code that is neither Python's nor a package's."""
        frame: FrameType | None = sys._current_frames().get(self._loop_thread.ident or 0)
        inner = frame
        while frame is not None and frame.f_code.co_filename.startswith((*_NOT_USER_CODE, "<frozen")):
            frame = frame.f_back
        shown = frame or inner
        return f"{shown.f_code.co_filename}:{shown.f_lineno} in {shown.f_code.co_name}" if shown else "unknown"
