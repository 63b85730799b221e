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
    mark = f"{home}{os.sep}run{os.sep}"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get("HOLDFAST_READY_FILE", "").startswith(mark):
                found.append(process)
    return found


def end_leftovers(home: Path) -> list[str]:
    """End the children of a dead supervisor with their descendants; return the names of those that still ran.

    Children are known from `stack.json` by pid and create time. A supervisor killed before it could write a child
    down is covered by the mark in the child's environment.
    """
    info = read_state(home)
    asked: list[psutil.Process] = []
    victims: dict[int, psutil.Process] = {}
    names = []
    for child in info.children if info is not None else []:
        if is_alive(child):
            names.append(child.name)
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(child.pid)
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
