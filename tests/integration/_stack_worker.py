"""A stand-in for a worker: tells that it is ready, notes start and stop in a journal, ends on SIGTERM.

What it does otherwise comes from STAND_IN: `refuse` (or a file of that name) exits with 3, `stubborn` ignores
SIGTERM, `parent` starts a child that ignores SIGTERM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

name, mood = sys.argv[1], os.environ.get("STAND_IN", "")
journal = Path(os.environ["HOLDFAST_HOME"]) / "journal"


def note(what: str) -> None:
    """Append one line; small appends do not mix."""
    with journal.open("a") as file:
        file.write(f"{time.monotonic():.3f} {name} {what} {os.getpid()}\n")


def end(*_: object) -> None:
    """Note the end and leave."""
    note("stop")
    sys.exit(0)


if (mood == "refuse" or (journal.parent / "refuse").exists()) and name != "memory":
    sys.stdout.write("agents.py line 3: this is no Python\n")
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mood == "stubborn" else end)
if mood == "parent":
    subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
note("ready")
Path(os.environ["HOLDFAST_READY_FILE"]).touch()
while True:
    signal.pause()
