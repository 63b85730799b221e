"""The MCP servers of a drive: what they list, their processes under the workers, one of the stage's own by HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from holdfast.server.ports import listens
from tests.kit import until

__all__ = ["TOOL", "Office", "Offices"]

PROGRAM = Path(__file__).with_name("office.py")
TOOL = "once_shifty"  # what changes
_GUARD = "guard.py"


@dataclass(frozen=True)
class Office:
    """A server that a worker has started, with the guard between them. The server may not be there yet, or no more."""

    worker: int
    guard: int
    server: int | None


class Offices:
    """Of one stage. `open` before the first worker is born."""

    def __init__(self, folder: Path) -> None:
        self.listing = folder / "listing"
        self.changing = asyncio.Lock()  # for whoever changes it: one at a time
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._desk: asyncio.subprocess.Process | None = None
        self._recorder = ""

    @property
    def environment(self) -> dict[str, str]:
        """What the agents file wants to know."""
        return {
            "CONFORMANCE_OFFICE": str(PROGRAM),
            "CONFORMANCE_LISTING": str(self.listing),
            "CONFORMANCE_DESK": f"http://127.0.0.1:{self._port}/mcp",
        }

    async def open(self, recorder: str) -> None:
        """Write the first listing, and start the server that is reached by HTTP."""
        self._recorder = recorder
        self.listing.write_text("1\n", encoding="utf-8")
        await self._start()

    async def close(self) -> None:
        """End that server."""
        if self._desk is not None:
            with suppress(ProcessLookupError):
                self._desk.kill()
            await self._desk.wait()

    async def kill_desk(self) -> None:
        """Kill -9 the server that is reached by HTTP, and start it again."""
        await self.close()
        await self._start()

    async def change(self) -> None:
        """Have every server list the next edition: none goes on that has read the last one."""
        edition = int(self.listing.read_text(encoding="utf-8")) + 1
        await asyncio.to_thread(self.listing.write_text, f"{edition}\n", encoding="utf-8")
        written = time.time()
        await self.kill_desk()

        def old() -> bool:
            found = [each.server for each in self.under() if each.server is not None]
            alive = [pid for pid in found if _born(pid) <= written + 0.1]
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return bool(alive)

        await until(lambda: not old(), "every server of the last edition is gone")

    def under(self) -> list[Office]:
        """Return those that workers have started, and that run."""
        found: list[Office] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and self._ours(process) and _is_guard(process):
                    server = next((child.pid for child in process.children()), None)
                    found.append(Office(process.ppid(), process.pid, server))
        return found

    def left(self) -> list[str]:
        """Return the processes that are there, guards and servers, as a person would tell them."""
        found: list[str] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = self._desk is not None and process.pid == self._desk.pid
                if not mine and process.status() != psutil.STATUS_ZOMBIE and self._ours(process):
                    found.append(f"{'guard' if _is_guard(process) else 'server'} {process.pid}")
        return found

    def _ours(self, process: psutil.Process) -> bool:
        return str(self.listing) in process.cmdline()

    async def _start(self) -> None:
        await until(lambda: not listens(self._port), "the port of the HTTP server is free")
        self._desk = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(PROGRAM), "desk", self._recorder, str(self.listing)),
            *("http", str(self._port)),
            stderr=asyncio.subprocess.DEVNULL,  # a caller that was killed is no news here
            start_new_session=True,
        )
        await until(lambda: listens(self._port), "the HTTP server listens")


def _is_guard(process: psutil.Process) -> bool:
    return any(Path(word).name == _GUARD for word in process.cmdline()[:4])


def _born(pid: int) -> float:
    with suppress(psutil.Error):
        return float(psutil.Process(pid).create_time())
    return 0.0
