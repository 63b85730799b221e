"""Processes of the product as a drive has them: the nursery that bears them, and each one with its pid and files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import psutil

from tests.conformance import clock

__all__ = ["ROOT", "Birth", "Born", "Nursery", "start"]

ROOT = Path(__file__).parents[2]


@dataclass(eq=False)
class Born:
    """A process of the product."""

    pid: int
    role: str
    ready: Path
    log: Path
    clock: Path  # says by how much its wall clock is wrong
    frozen: bool = False
    leaving: bool = False  # told to stop
    deaths: int = 0  # of those in its place before it, in a row
    code: int = 0  # by which it ended, once it is reaped; minus the signal

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by a signal right now."""
        return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    @property
    def ended(self) -> bool:
        """Whether it has ended and waits to be reaped."""
        return bool(psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE)

    def owns(self, port: int) -> bool:
        """Whether it has a TCP connection from this port of its own."""
        with suppress(psutil.Error):  # it has just ended by itself
            mine = psutil.Process(self.pid).net_connections("tcp")
            return any(each.laddr.port == port for each in mine if each.laddr)
        return False

    def freeze(self) -> None:
        """Stop it with a signal: it is awake for nobody until it is woken."""
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on, unless it ended by itself just before it was frozen."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        self.frozen = False

    def signal(self, number: int) -> None:
        """Send a signal; until it is reaped its id is its own."""
        os.kill(self.pid, number)


def start(module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a program of the suite that talks over its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Birth(TypedDict):
    """What a nursery is told of a process that it shall start; `nursery` says how it reads that."""

    bear: str
    log: str
    role: str
    env: dict[str, str]
    switches: list[str]
    fork: bool


class Nursery:
    """The program that bears processes; several stages may share one, for it imports for seconds."""

    def __init__(self) -> None:
        self._process = start("tests.conformance.nursery", **clock.environment())
        self._word = asyncio.Lock()

    async def tell(self, word: Mapping[str, object]) -> dict[str, Any]:
        """Say a word and return the answer."""
        async with self._word:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(word) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(await asyncio.to_thread(self._process.stdout.readline))
            return answer

    async def close(self) -> None:
        """End it and all that live."""
        await asyncio.to_thread(self._process.communicate)  # closes its input: it ends by that
