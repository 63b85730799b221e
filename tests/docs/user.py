"""Somebody who reads the first pages: a folder, a shell, no key, no settings."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdfast.server import StackInfo, read_stack
from tests.kit import PATIENCE

__all__ = ["HOLDFAST", "User"]

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
_KEYS = ("_API_KEY", "_TOKEN")


class User:
    """Somebody in a folder; what they type is this checkout's `holdfast`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HOLDFAST_", "TEMPORAL_")) and not name.endswith(_KEYS)
        }
        self.environment["PATH"] = f"{Path(HOLDFAST).parent}{os.pathsep}{self.environment['PATH']}"
        scale = os.environ.get("HOLDFAST_TIME_SCALE")
        if scale is not None:
            self.environment["HOLDFAST_TIME_SCALE"] = scale

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder; it must succeed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def holdfast(self, *words: str) -> list[dict[str, Any]]:
        """Run a holdfast command that writes JSON lines."""
        return [json.loads(line) for line in self.run(HOLDFAST, *words).stdout.splitlines()]

    @contextmanager
    def beside(self, text: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run console text in another terminal, and press Ctrl-C there at the end, if it still runs."""
        process = subprocess.Popen(
            ["bash", "-euc", text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=2 * PATIENCE)
            assert b"Traceback" not in out, out.decode()

    def waiting(self, thread: str) -> str:
        """Return the id of the run that waits for a person on a thread, or nothing."""
        found = self.holdfast("runs", "--state", "waiting", "--thread", thread, "--json")
        return str(found[0]["run_id"]) if found else ""

    @property
    def stack(self) -> StackInfo:
        """The stack of the folder."""
        info = read_stack(self.folder / ".holdfast")
        assert info is not None
        return info
