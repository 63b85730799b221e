"""Wall clocks that jump: libfaketime under the nursery, and a file for each process that says by how much.

The monotonic clock stays as it is, as it does when an administrator or NTP sets a machine's time. libfaketime comes as
a compiled library in a wheel for Linux on x86-64; elsewhere the clock jumps are not done, and the drive says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["MISSING", "SEEN", "environment", "jump"]

MISSING = "clock jumps: libfaketime is not installed, or does not work on this machine"
SEEN = 2.0  # seconds until a process has read its file again: libfaketime looks once in a second that has passed
_DAYS = 1000


@cache
def environment() -> dict[str, str]:
    """Return the variables under which a program obeys `FAKETIME_TIMESTAMP_FILE`, also one set after a fork; or none.

    Whether it works is tried: the wheel is tagged for any machine.
    """
    spec = find_spec("libfaketime")
    if spec is None or not spec.submodule_search_locations:
        return {}
    library = Path(next(iter(spec.submodule_search_locations))) / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    found = {
        "LD_PRELOAD": str(library),
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "NO_FAKE_STAT": "1",
        "FAKETIME_CACHE_DURATION": "0",  # whole seconds; none at all would open the file at each look at the clock
    }
    tried = subprocess.run(
        [sys.executable, "-S", "-c", "import time; print(time.time())"],
        env={**os.environ, **found, "FAKETIME": f"+{_DAYS}d"},
        capture_output=True,
        text=True,
        check=False,
    )
    works = tried.returncode == 0 and float(tried.stdout or 0) > time.time() + (_DAYS - 1) * 86400
    return found if works else {}


def jump(file: Path, seconds: float) -> None:
    """Let the clock of the process that looks at *file* differ by so much from now on; 0 sets it right again."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{seconds:+.3f}\n", encoding="utf-8")
    fresh.replace(file)  # at once: of an empty file libfaketime makes an end of the process
