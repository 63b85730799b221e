"""What the shell offers at Tab: agents, runs, threads of this folder. Silent, and quick, when it cannot know."""

from __future__ import annotations

import ast
import asyncio
import json
import os
from pathlib import Path
from typing import Any, Literal

__all__ = ["agents", "runs", "states", "threads"]

_MOST = 50
_PATIENCE = 1.0  # seconds: a shell that hangs at Tab is worse than one that offers nothing
_STATES = ("queued", "running", "waiting", "done", "failed", "stopped", "over_budget", "looping", "merged", "refused")


def agents(incomplete: str) -> list[tuple[str, str]]:
    """Offer agents: those that workers have loaded, else those that the agents file seems to define."""
    return _fitting(_asked("agents") or [(name, "") for name in _in_file()], incomplete)


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Offer the newest runs."""
    return _fitting(_asked("runs"), incomplete)


def threads(incomplete: str) -> list[tuple[str, str]]:
    """Offer the newest threads."""
    return _fitting(_asked("threads"), incomplete)


def states(incomplete: str) -> list[tuple[str, str]]:
    """Offer the states of a run."""
    return _fitting([(state, "") for state in _STATES], incomplete)


def _fitting(found: list[tuple[str, str]], incomplete: str) -> list[tuple[str, str]]:
    return [pair for pair in found if pair[0].startswith(incomplete)][:_MOST]


def _asked(what: Literal["agents", "runs", "threads"]) -> list[tuple[str, str]]:
    url = os.environ.get("HOLDFAST_DATABASE_URL") or _url_of_the_stack()
    if not url:
        return []
    try:
        from holdfast.memory.completion import offered

        return asyncio.run(offered(url, what, os.environ.get("HOLDFAST_TENANT", "default"), timeout=_PATIENCE))
    except Exception:  # noqa: BLE001  # whatever it is, the person is typing and wants no error now
        return []


def _url_of_the_stack() -> str | None:
    """Read where PostgreSQL is; the settings themselves take longer to load than a person waits for Tab."""
    home = Path(os.environ.get("HOLDFAST_HOME", ".holdfast"))
    try:
        info: dict[str, Any] = json.loads((home / "stack.json").read_text(encoding="utf-8"))
        return str(info["database_url"]) if info.get("ready") else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _in_file() -> list[str]:
    """Return the names of agents written out in the agents file; it is read, never run."""
    try:
        tree = ast.parse(Path(os.environ.get("HOLDFAST_AGENTS", "agents.py")).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Agent":
            values = [keyword.value for keyword in node.keywords if keyword.arg == "name"] or node.args[:1]
            found += [value.value for value in values if isinstance(value, ast.Constant)]
    return [name for name in found if isinstance(name, str)]
