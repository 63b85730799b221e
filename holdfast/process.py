"""How a worker process is asked to stop, and known to work. Only the runtime uses it."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from holdfast.settings import Settings

__all__ = ["stay_ready", "stop_on_signals"]


def stop_on_signals(stop: asyncio.Event) -> None:
    """Drain on SIGTERM or SIGINT; a second SIGINT ends the process at once, as by default."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    for number, heard in ((signal.SIGTERM, stop.set), (signal.SIGINT, interrupted)):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: the caller sets `stop`
            loop.add_signal_handler(number, heard)


async def stay_ready(settings: Settings) -> None:
    """Keep the file by which others know that this process polls: its time tells a check that the loop still turns."""
    while settings.ready_file is not None:
        try:
            settings.ready_file.touch()
            await asyncio.sleep(settings.sweep_every)  # not scaled: a check's patience is not, either
        except asyncio.CancelledError:
            settings.ready_file.unlink(missing_ok=True)
            raise
