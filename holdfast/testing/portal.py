"""An event loop in a thread of its own, so that tests of any kind, sync or async, use one client. The stack has one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from holdfast.errors import HoldfastError

__all__ = ["Portal"]

T = TypeVar("T")


class Portal:
    """Runs coroutines for whoever calls, from whatever thread, beside whatever loop runs there."""

    def __init__(self) -> None:
        """Start the thread; `close` ends it."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast-testing", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run *work* on the loop, wait for it, and return or raise what it does. Ctrl-C cancels it."""
        __tracebackhide__ = True
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result()
        except (HoldfastError, TimeoutError) as exc:  # written for the test's author, whose own line is what counts
            raise exc.with_traceback(None) from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End what is left on the loop, and the thread."""

        async def wind_up() -> None:
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            await self._loop.shutdown_default_executor()

        self.call(wind_up)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
