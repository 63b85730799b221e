"""Ends what a killed supervisor left running. The next supervisor and `stop_stack` call it, holding the lock."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil

from holdfast.server.state import is_alive, read_state

__all__ = ["end_leftovers"]

_TEMPER = 3.0  # seconds that the servers have to end by themselves before they are killed


def _marked(home: Path) -> list[psutil.Process]:
    """Find processes that carry our mark (the ready file of this home in their environment), or descend from such."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and _is_marked(process, home):
                found.append(process)
    return found


def _is_marked(process: psutil.Process, home: Path) -> bool:
    return process.environ().get("HOLDFAST_READY_FILE", "").startswith(f"{home}{os.sep}run{os.sep}")


def _recognised(process: psutil.Process, home: Path) -> bool:
    """Whether a process that `stack.json` names is of this stack: a file can name any process.

    It carries our mark; PostgreSQL writes its title over its environment, and is known by the folder it works in.
    """
    with contextlib.suppress(psutil.Error, OSError):
        if _is_marked(process, home):
            return True
    with contextlib.suppress(psutil.Error, OSError):
        data = (home / "postgres" / "data").resolve()
        return process.name().startswith("postgres") and Path(process.cwd()) == data
    return False


def end_leftovers(home: Path) -> list[str]:
    """End the children of a dead supervisor with their descendants; return the names of those that still ran.

    Children are known from `stack.json` by pid and create time, and by what `_recognised` finds. A supervisor killed
    before it could write a child down is covered by the mark in the child's environment.
    """
    info = read_state(home)
    asked: list[psutil.Process] = []
    victims: dict[int, psutil.Process] = {}
    names = []
    for child in info.children if info is not None else []:
        if is_alive(child):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(child.pid)
                if not _recognised(process, home):
                    continue
                names.append(child.name)
                victims |= {each.pid: each for each in [process, *process.children(recursive=True)]}
                if child.name in ("postgres", "temporal"):  # their own way out saves them a recovery
                    process.send_signal(signal.Signals(child.stop_signal))
                    asked.append(process)
    victims |= {process.pid: process for process in _marked(home)}
    servers = {process.pid for process in asked}
    for process in victims.values():
        if process.pid not in servers and not _descends(process, servers):
            with contextlib.suppress(psutil.Error):
                process.kill()
    psutil.wait_procs(asked, timeout=_TEMPER)
    for process in victims.values():
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(list(victims.values()), timeout=_TEMPER)
    (home / "stack.json").unlink(missing_ok=True)
    return names


def _descends(process: psutil.Process, ancestors: set[int]) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(parent.pid in ancestors for parent in process.parents())
    return False
