"""What signals mean to a stack in the foreground. Only the supervisor takes them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

__all__ = ["signals"]


def _terminal_is_gone() -> bool:
    """Tell a closed terminal from a SIGHUP that somebody sent: asking a terminal that is gone fails."""
    try:
        os.tcgetpgrp(sys.__stdin__.fileno() if sys.__stdin__ is not None else 0)
    except (OSError, ValueError):
        return True
    return False


@contextlib.contextmanager
def signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Turn SIGINT and SIGTERM into the first event, SIGHUP into the second. Off the main thread: neither."""
    stopping, rolling = asyncio.Event(), asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping, rolling
        return
    loop = asyncio.get_running_loop()
    ignores_hang_up = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # started by nohup
    had_terminal = sys.__stdin__ is not None and not sys.__stdin__.closed and sys.__stdin__.isatty()

    def hang_up() -> None:
        if not (had_terminal and _terminal_is_gone()):
            rolling.set()
        elif not ignores_hang_up:
            stopping.set()

    loop.add_signal_handler(signal.SIGINT, stopping.set)
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        yield stopping, rolling
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
