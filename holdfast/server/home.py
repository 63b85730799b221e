"""The folder of a stack: made closed to other users, believed only if it is ours. Light: completion imports it."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from holdfast.errors import StackError
from holdfast.private import make_private
from holdfast.trust import doubt

__all__ = ["check_home", "lock_holder", "make_home"]


def check_home(home: Path) -> None:
    """Refuse the folder of a stack that another user may write to.

    Raises:
        StackError: it is another user's, or open to others; the message says what to do.

    """
    why = doubt(home, private=True)
    if why is not None:
        raise StackError(why)


def make_home(home: Path) -> None:
    """Make the folder of a stack, closed to other users: it holds conversations, logs and a password.

    Raises:
        StackError: it cannot be written, or is another user's.

    """
    try:
        check_home(home)
        for folder in ("logs", "run"):
            make_private(home, folder)
        with suppress(FileExistsError):
            descriptor = os.open(home / ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("*\n")
    except OSError as exc:
        raise StackError(f"The folder {home} cannot be written: {exc}. Set HOLDFAST_HOME to another folder.") from exc


def lock_holder(home: Path) -> int | None:
    """Return the pid of the process that holds the lock now: a supervisor, also one that is still starting."""
    try:
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        return int(holder) if holder.isdigit() else None
    except OSError:  # no file that can be locked
        return None
    else:
        return None
    finally:
        os.close(descriptor)
