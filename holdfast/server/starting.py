"""What a stack that is being started says of itself. Supervisor, launcher, client and doctor call it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from holdfast.server.home import lock_holder
from holdfast.server.state import read_stack

__all__ = ["now_starting", "tell_start"]


def _file(home: Path) -> Path:
    return home / "run" / "starting"


def tell_start(home: Path, line: str | None) -> None:
    """Write down what takes long now, an empty *line* if nothing does; None when all is up."""
    with contextlib.suppress(OSError):  # whoever waits learns less; the start goes on
        if line is None:
            _file(home).unlink(missing_ok=True)
        else:
            _file(home).write_text(line, encoding="utf-8")


def now_starting(home: Path) -> str | None:
    """Return what the stack that is being started here said last, or None if none is."""
    if read_stack(home) is not None or lock_holder(home) is None:
        return None
    try:
        return _file(home).read_text(encoding="utf-8")
    except OSError:  # it stops, or has not come to it yet
        return None
