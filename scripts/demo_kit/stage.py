"""What the demo stands on: a stack and an outside recorder of its own, which it leaves as it found them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import Settings
from holdfast.server import StackInfo, settings_for, start_detached, stop_stack
from holdfast.settings import load_settings

__all__ = ["KEPT", "Stage", "get", "set_up"]

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".holdfast" / "demo"
"""Where the stack of `--keep` lives: `HOLDFAST_HOME` for the commands that follow."""

_HOLD = 30.0  # seconds the recorder holds its first answer back: long enough for any kill to land
_PASSED_ON = ("HOLDFAST_MODEL", "HOLDFAST_API_BASE", "HOLDFAST_TIME_SCALE", "HOLDFAST_TEMPORAL_BINARY")


@dataclass
class Stage:
    """Where everything is."""

    settings: Settings
    info: StackInfo
    recorder: str
    files: Path
    took: float

    async def recorded(self) -> dict[str, Any]:
        """Return what the recorder has: `reports`, and `looks`, who looked one up."""
        return await get(f"{self.recorder}/reports")


async def get(address: str) -> dict[str, Any]:
    """Return the JSON at an address."""

    def fetch() -> dict[str, Any]:
        with urllib.request.urlopen(address, timeout=10) as response:
            found: dict[str, Any] = json.load(response)
            return found

    return await asyncio.to_thread(fetch)


@contextmanager
def set_up(files: Path, *, keep: bool) -> Iterator[Stage]:
    """Start the recorder and the stack; on the way out stop both and remove the data, unless all is to be kept."""
    for name in [name for name in os.environ if name.startswith(("HOLDFAST_", "TEMPORAL_")) and name not in _PASSED_ON]:
        del os.environ[name]  # servers that are in use elsewhere are none of the demo's business
    began = time.monotonic()
    home = KEPT if keep else Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    if keep:
        stop_stack(home)
    recorder, port = _start_recorder()
    kept = started = False
    try:
        address = f"http://127.0.0.1:{port}"
        os.environ.update(DEMO_RECORDER=address, DEMO_FILES=str(files))
        settings = load_settings(
            home=home,
            agents=Path(__file__).with_name("agents.py"),
            idle_exit=3600.0 if keep else 60.0,  # should the demo itself be killed, its stack does not stay
        )
        info = start_detached(settings)
        started = True
        yield Stage(settings_for(settings, info), info, address, files, time.monotonic() - began)
        if keep:
            _watch(address, info.supervisor.pid)
            kept = True
    finally:
        if not kept:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave half of it running
            _stop(home, started=started)
            recorder.terminate()
            recorder.wait()
            if not keep:
                shutil.rmtree(home, ignore_errors=True)


def _start_recorder() -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, str(Path(__file__).with_name("recorder.py")), "--hold", str(_HOLD)]
    process = subprocess.Popen(
        [*command, "--watch", str(os.getpid())], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout:
        return process, int(process.stdout.readline())


def _watch(address: str, pid: int) -> None:
    """Let the recorder live as long as the stack does."""
    request = urllib.request.Request(f"{address}/watch", data=json.dumps({"pid": pid}).encode(), method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def _stop(home: Path, *, started: bool) -> None:
    """Stop the stack; also one that was interrupted so early that it has not yet written down where it is."""
    if stop_stack(home) or started:
        return
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline and not stop_stack(home):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((home / "lock").read_text()), signal.SIGTERM)
        time.sleep(0.1)
