"""Which MCP servers of this folder's workers are away, and why: workers write it, the command line reads it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

__all__ = ["away", "tell_away"]

_PREFIX = "mcp-away-"


def tell_away(home: Path, server: str, why: str | None) -> None:
    """Write down that a server cannot be reached, or with None that it can."""
    path = home / "run" / f"{_PREFIX}{server}-{os.getpid()}.json"
    with contextlib.suppress(OSError):  # no folder of a stack here: the log has it
        if why is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(json.dumps({"server": server, "pid": os.getpid(), "why": why}), encoding="utf-8")


def away(home: Path) -> dict[str, str]:
    """Return why servers are away, by name, as the workers that live now say."""
    found: dict[str, str] = {}
    for path in sorted((home / "run").glob(f"{_PREFIX}*.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            os.kill(said["pid"], 0)
            found[str(said["server"])] = str(said["why"])
        except (OSError, ValueError, KeyError, TypeError):  # its worker is gone
            with contextlib.suppress(OSError):
                path.unlink()
    return found
