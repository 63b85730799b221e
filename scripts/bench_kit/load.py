"""A loaded machine: busy processes beside what is measured. `resume` and `starved` use it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

__all__ = ["Load"]

# It ends by itself when its parent is gone.
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(1_000_000))\n"


class Load:
    """So many busy processes at ordinary priority. Use as `async with`; they rest until `go`.

    Each has a session of its own, as the processes of the product have: Linux shares the processor out by session
    first, and busy processes in one session would count as one.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._processes: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> Self:
        """Start them at rest."""
        for _ in range(self.count):
            self._processes.append(_busy())
        self.rest()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()

    def rest(self) -> None:
        """Leave the processors to the others."""
        self._signal(signal.SIGSTOP)

    async def go(self) -> None:
        """Be busy, and return when it has begun to tell."""
        if self.count:
            self._signal(signal.SIGCONT)
            await asyncio.sleep(1.0)

    def _signal(self, number: int) -> None:
        for process in self._processes:
            os.kill(process.pid, number)


def _busy() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-S", "-c", _BUSY]
    return subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
