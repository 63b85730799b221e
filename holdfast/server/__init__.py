"""The embedded stack: Temporal, PostgreSQL, the memory process and agent workers under one supervisor.

CLI, client and tests call the names exported here; they load on first use, so that importing this package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.server.checks import Check, doctor
    from holdfast.server.launch import start_detached, stop_stack
    from holdfast.server.processes import ProcessSpec
    from holdfast.server.starting import now_starting
    from holdfast.server.state import ProcessInfo, StackInfo, environment_for, read_stack, settings_for
    from holdfast.server.supervisor import run_stack

__all__ = [
    "Check",
    "ProcessInfo",
    "ProcessSpec",
    "StackInfo",
    "doctor",
    "environment_for",
    "now_starting",
    "read_stack",
    "run_stack",
    "settings_for",
    "start_detached",
    "stop_stack",
]

_HOMES = {
    "Check": "checks",
    "ProcessInfo": "state",
    "ProcessSpec": "processes",
    "StackInfo": "state",
    "doctor": "checks",
    "environment_for": "state",
    "now_starting": "starting",
    "read_stack": "state",
    "run_stack": "supervisor",
    "settings_for": "state",
    "start_detached": "launch",
    "stop_stack": "launch",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'holdfast.server' has no attribute {name!r}")
    return getattr(import_module(f"holdfast.server.{home}"), name)
