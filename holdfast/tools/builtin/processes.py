"""Starts a program, bounds what it says, and ends it with all it started. Shell and confined tools use it.

A guarded program runs below `guard.py`, which ends it also when this process is killed or frozen. Otherwise a call that
is in doubt might still take effect after a person has looked.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import cast

__all__ = ["GUARD", "Finished", "run_process"]

GUARD = str(Path(__file__).parents[1] / "guard.py")

_LINGER = 1.0  # seconds that what a program left behind may still hold its output open


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended: `code` is negative for a signal. `sizes` counts all it wrote, kept or not."""

    code: int
    out: bytes
    err: bytes
    sizes: tuple[int, int]
    seconds: float
    timed_out: bool = False


class _Capture(asyncio.SubprocessProtocol):
    """Keeps the first bytes of each stream and reads on, so that the program never waits for a full pipe."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept = {1: bytearray(), 2: bytearray()}
        self.sizes = {1: 0, 2: 0}
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.sizes[fd] += len(data)
        room = self.most - len(self.kept[fd])
        if room > 0:
            self.kept[fd] += data[:room]

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


def _end_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def run_process(
    argv: Sequence[str],
    *,
    cwd: str | Path,
    env: Mapping[str, str],
    timeout: float,
    most: int,
    stdin: bytes | None = None,
    guarded: bool = False,
) -> Finished:
    """Run *argv*, no shell between, in a process group of its own, and return how it ended.

    The group is killed after *timeout* seconds, and when the awaiting task is cancelled. Up to *most* bytes are kept of
    each stream.

    Raises:
        OSError: it could not be started; nothing has run.

    """
    if not guarded:
        return await _run(argv, (), cwd, env, timeout, most, stdin)
    ours, theirs = socket.socketpair()
    with ours, theirs:  # theirs is open here as well, but only what closes ours ends the program
        number = theirs.fileno()
        guard = [sys.executable, "-I", "-S", GUARD, "run", str(number), str(timeout + _LINGER), *argv]
        done = await _run(guard, (number,), cwd, env, timeout, most, stdin)
        ours.setblocking(False)
        with suppress(BlockingIOError):
            if failed := ours.recv(64):
                raise OSError(int(failed), os.strerror(int(failed)))
        return done


async def _run(
    argv: Sequence[str],
    passed: Sequence[int],
    cwd: str | Path,
    env: Mapping[str, str],
    timeout: float,
    most: int,
    stdin: bytes | None,
) -> Finished:
    started = time.monotonic()
    transport, protocol = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Capture(most),
        *argv,
        stdin=DEVNULL if stdin is None else PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
        close_fds=True,
        pass_fds=passed,
    )
    pid = transport.get_pid()
    timed_out = False
    try:
        if stdin is not None:
            pipe = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
            pipe.write(stdin)
            pipe.close()  # once all is written
        try:
            async with asyncio.timeout(timeout):
                await protocol.exited.wait()
        except TimeoutError:
            timed_out = True
            _end_group(pid)
            await protocol.exited.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                await protocol.closed.wait()
    finally:
        if not protocol.closed.is_set():
            _end_group(pid)  # cancelled, or children of it hold its output open
        transport.close()
    code = transport.get_returncode()
    return Finished(
        code=-signal.SIGKILL if code is None else code,
        out=bytes(protocol.kept[1]),
        err=bytes(protocol.kept[2]),
        sizes=(protocol.sizes[1], protocol.sizes[2]),
        seconds=time.monotonic() - started,
        timed_out=timed_out,
    )
