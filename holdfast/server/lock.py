"""The lock that makes one supervisor the owner of a folder. Supervisor and `stop_stack` hold it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from holdfast.errors import StackBusy, StackError
from holdfast.server.home import make_home

__all__ = ["folder_lock"]


_DYING: Final = 5.0  # seconds: a killed process keeps its locks until the last of its threads has ended


def _acquire(descriptor: int, home: Path) -> None:
    deadline = time.monotonic() + _DYING
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            if time.monotonic() > deadline or _lives(holder):
                holder = holder or "unknown"
                raise StackBusy(
                    f"A Holdfast stack already runs in {home} (pid {holder}). Use it (`holdfast run` finds it), "
                    f"or stop it with `holdfast down` or `kill {holder}`, or choose another folder with HOLDFAST_HOME."
                ) from None
            time.sleep(0.02)
        else:
            return


def _lives(holder: str) -> bool:
    try:
        return psutil.Process(int(holder)).status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.Error):  # it has not written its pid yet, or is gone
        return False


@contextlib.contextmanager
def folder_lock(home: Path) -> Iterator[None]:
    """Hold `{home}/lock`. The kernel frees it when its holder dies in whatever way, so it cannot become stale.

    Raises:
        StackBusy: another process holds it; the message names its pid and how to stop it.
        StackError: the folder cannot be written, or is another user's.

    """
    make_home(home)
    try:
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise StackError(f"The lock of {home} cannot be opened: {exc}. Set HOLDFAST_HOME to another folder.") from exc
    try:
        _acquire(descriptor, home)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
