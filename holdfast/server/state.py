"""What is written down about a running stack, and how others find it. CLI, client and supervisor read it."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from holdfast.errors import StackError
from holdfast.private import make_private
from holdfast.settings import Settings

__all__ = [
    "ProcessInfo",
    "StackInfo",
    "environment_for",
    "is_alive",
    "make_home",
    "read_stack",
    "read_state",
    "settings_environment",
    "settings_for",
    "write_state",
]

_SAME_START = 2.0  # seconds: create times are computed from the boot time, which clock corrections shift a little


class ProcessInfo(BaseModel):
    """One process of the stack. Pid and create time together name it: pids are used again."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    pid: int
    create_time: float
    stop_signal: int = 15
    state: Literal["starting", "ready", "waiting", "failed", "stopped", "draining"] = "starting"
    error: str | None = None


class StackInfo(BaseModel):
    """Where the parts of one running stack are. It holds the database's password: the file is for its owner only."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    temporal_address: str
    temporal_ui: str | None
    namespace: str
    database_url: str
    qdrant_url: str | None
    home: Path
    agents: Path
    embedded_temporal: bool
    embedded_postgres: bool
    supervisor: ProcessInfo
    children: list[ProcessInfo]
    detached: bool
    started_at: datetime
    ready: bool
    agents_version: str | None = None
    """Hash of the agents file that all workers which take work have loaded; None where changes are not looked for."""
    agents_refused: str | None = None
    """Hash of a later agents file that does not load, and in `agents_error` why."""
    agents_error: str | None = None


def is_alive(info: ProcessInfo) -> bool:
    """Say whether this very process still runs (a zombie does not)."""
    try:
        process = psutil.Process(info.pid)
        return abs(process.create_time() - info.create_time) < _SAME_START and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def make_home(home: Path) -> None:
    """Make the folder of a stack, closed to other users: it holds conversations, logs and a password.

    Raises:
        StackError: it cannot be written.

    """
    try:
        for folder in ("logs", "run"):
            make_private(home, folder)
        (home / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as exc:
        raise StackError(f"The folder {home} cannot be written: {exc}. Set HOLDFAST_HOME to another folder.") from exc


def write_state(info: StackInfo) -> None:
    """Write `{home}/stack.json` so that a reader sees all of it or none."""
    path = info.home / "stack.json"
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(info.model_dump_json(indent=1))
    fresh.replace(path)


def read_state(home: Path) -> StackInfo | None:
    """Return what the last supervisor wrote, alive or not, ready or not; None if there is nothing readable."""
    try:
        return StackInfo.model_validate_json((home / "stack.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return None


def read_stack(home: Path) -> StackInfo | None:
    """Return the stack of this folder if its supervisor lives and everything was started; else None."""
    info = read_state(home.absolute())
    return info if info is not None and info.ready and is_alive(info.supervisor) else None


def settings_for(settings: Settings, info: StackInfo) -> Settings:
    """Return *settings* pointing at the stack *info*."""
    offline = settings.offline
    if offline is None and info.embedded_temporal:
        offline = True  # the offline planner stands in for a missing key on the embedded stack only
    return settings.model_copy(
        update={
            "home": info.home,
            "agents": info.agents,
            "temporal_address": info.temporal_address,
            "temporal_ui": info.temporal_ui,
            "temporal_namespace": info.namespace,
            "database_url": info.database_url,
            "qdrant_url": info.qdrant_url,
            "offline": offline,
        }
    )


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return all settings that have a value as `HOLDFAST_*` variables: a child process then loads the same."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    return {
        f"HOLDFAST_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None and name != "ready_file"  # that one is each process's own
    }


def environment_for(info: StackInfo, settings: Settings) -> dict[str, str]:
    """Return the `HOLDFAST_*` variables for a process that works on the stack *info*."""
    return settings_environment(settings_for(settings, info))
