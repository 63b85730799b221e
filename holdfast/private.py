"""Makes folders that no other user of the machine may look into. Whoever makes `.holdfast` asks here."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["close_to_others", "make_private", "user_cache"]


def make_private(home: Path, *inner: str) -> Path:
    """Make *home* and, below it, a folder for each further name; all of mode 0700, also *home* if it was there.

    It holds conversations, logs and a password, and whoever comes first makes it: a tool, a worker, the command line.

    Raises:
        OSError: it cannot be made.

    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(PermissionError):  # somebody else's: it is for them to say
        if home.stat().st_mode & 0o077:
            home.chmod(0o700)
    folder = home
    for name in inner:
        folder = folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def user_cache() -> Path:
    """Return the folder in which Holdfast keeps what belongs to the user and to no project."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "holdfast"
    try:
        return Path("~/.cache/holdfast").expanduser()
    except RuntimeError:  # a user without a home
        return Path("/nonexistent/holdfast")


def close_to_others(folder: int) -> None:
    """Take an open folder's rights from all but its owner."""
    with suppress(OSError):
        if os.fstat(folder).st_mode & 0o077:
            os.fchmod(folder, 0o700)
