"""Starts a stack in a session of its own, and stops one. CLI and client call it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from holdfast import errors
from holdfast.errors import HoldfastError, StackBusy, StackError
from holdfast.server.home import lock_holder, make_home
from holdfast.server.leftovers import end_leftovers
from holdfast.server.lock import folder_lock
from holdfast.server.processes import kill_tree, log_tail
from holdfast.server.starting import now_starting
from holdfast.server.state import StackInfo, is_alive, read_stack, read_state, settings_environment
from holdfast.settings import Settings

__all__ = ["start_detached", "stop_stack"]

_POLL: Final = 0.05
_DYING: Final = 2.0  # seconds in which a killed supervisor's lock is released
_MARGIN: Final = 5.0  # seconds beyond `stop_grace` before a supervisor that does not end is killed
_BUILDING: Final = 1500.0  # seconds: the first start may download or build the Temporal server


def start_detached(
    settings: Settings,
    *,
    hear: Callable[[str], None] = lambda _: None,
    command: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> StackInfo:
    """Return the running stack of this folder, or start one that outlives us and return it once it is ready. Blocks.

    *hear* is told what takes long. *command* replaces `python -m holdfast.server` (a seam for tests); *environment*
    goes before our own variables.

    Raises:
        StackError, ConfigurationError, StorageError: what kept it from starting, as `run_stack` raises it.

    """
    home = settings.home.absolute()
    running = read_stack(home)
    if running is not None:
        return running
    make_home(home)
    log = home / "logs" / "supervisor.log"
    report = home / "run" / f"start-{uuid.uuid4().hex}.json"
    inherited = {name: value for name, value in os.environ.items() if name != "HOLDFAST_READY_FILE"}
    paths = {"home": home, "agents": settings.agents.absolute()}
    variables = {**inherited, **(environment or {}), **settings_environment(settings.model_copy(update=paths))}
    # The command forks and leaves at once, so that the server is nobody's child and never a zombie of ours.
    launched = subprocess.run(
        [*(command or (sys.executable, "-P", "-m", "holdfast.server")), "--report", str(report), "--log", str(log)],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    if launched.returncode != 0:
        raise StackError(f"The stack could not be started: {launched.stderr.strip() or launched.stdout.strip()}")
    try:
        return _wait_ready(home, int(launched.stdout.split()[-1]), report, log, hear)
    finally:
        report.unlink(missing_ok=True)


def _wait_ready(home: Path, pid: int, report: Path, log: Path, hear: Callable[[str], None]) -> StackInfo:
    try:
        ours: psutil.Process | None = psutil.Process(pid)
    except psutil.NoSuchProcess:
        ours = None
    deadline = time.monotonic() + _BUILDING
    heard = ""
    while time.monotonic() < deadline:
        info = read_stack(home)
        if info is not None:  # ours, or that of another who started at the same moment
            return info
        said = now_starting(home)
        if said and said != heard:
            heard = said
            hear(said)
        if ours is None or not _runs(ours):
            failure = _failure(report, log)
            if not isinstance(failure, StackBusy):
                raise failure
            other = read_state(home)
            if (other is None or not is_alive(other.supervisor)) and _lock_is_free(home):
                raise failure
        time.sleep(_POLL)
    raise StackError(f"The stack was not ready within {_BUILDING:.0f} s. The end of {log}:\n{log_tail(log)}")


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _holds_lock(process: psutil.Process, home: Path) -> bool:
    """Whether this process has the lock's file open: the pid in the file alone may be an older one's, used again."""
    lock = home / "lock"
    try:
        return any(Path(each.path).samefile(lock) for each in process.open_files())
    except psutil.NoSuchProcess:
        raise
    except (psutil.Error, OSError):
        return False


def _lock_is_free(home: Path) -> bool:
    try:
        with folder_lock(home):
            return True
    except StackBusy:
        return False


def _failure(report: Path, log: Path) -> HoldfastError:
    """Return the error that the server reported, as the same class; without a report, the end of its log."""
    try:
        said = json.loads(report.read_text(encoding="utf-8"))
        kind = getattr(errors, said["error"], StackError)
        return kind(said["message"]) if issubclass(kind, HoldfastError) else StackError(said["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return StackError(f"The stack ended while it was starting. The end of {log}:\n{log_tail(log)}")


def _supervisor(pid: int, home: Path) -> psutil.Process:
    """Return the process that holds the lock of *home*; one that was killed may take a moment to let go of it."""
    process, until = psutil.Process(pid), time.monotonic() + _DYING
    while not _holds_lock(process, home):
        if lock_holder(home) != pid:
            raise psutil.NoSuchProcess(pid)
        if time.monotonic() > until:
            raise StackError(
                f"{home / 'lock'} is held by a process other than pid {pid}, which it names, so no signal was "
                "sent. Try again; if this persists, find the process that holds it with `fuser` and end it."
            )
        time.sleep(_POLL)
    return process


def stop_stack(home: Path, *, grace: float = 10.0) -> bool:
    """Stop the stack of this folder and whatever a killed supervisor left; say whether anything ran. Blocks.

    Only processes that are known to be of this stack are sent a signal: what holds the folder's lock, and what carries
    the folder's mark. *grace* is the `stop_grace` of that stack, in seconds; a supervisor that takes much longer is
    killed.

    Raises:
        StackError: the folder is another user's, or the pid in its lock is not the process that holds it.

    """
    home = home.absolute()
    info = read_state(home)
    pid = lock_holder(home)
    if info is None and pid is None:
        return False
    ran = False
    if pid is not None:
        ran = True
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = _supervisor(pid, home)
            supervisor.terminate()
            deadline = time.monotonic() + grace + _MARGIN
            while _runs(supervisor) and time.monotonic() < deadline:
                time.sleep(_POLL)
            if _runs(supervisor):
                kill_tree(supervisor.pid)
    try:
        with folder_lock(home):
            return bool(end_leftovers(home)) or ran
    except StackBusy:  # somebody started it anew at this moment
        return ran
