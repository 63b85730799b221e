"""A stack with stand-in workers, run by the tests of the supervisor: `dev` in the foreground, else detached."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.server import ProcessSpec, StackInfo, environment_for, run_stack
from holdfast.server.__main__ import main as detach
from holdfast.settings import Settings, load_settings

WORKER = Path(__file__).with_name("_stack_worker.py")


def stand_ins(info: StackInfo, settings: Settings) -> Sequence[ProcessSpec]:
    """Return a memory process and the workers, all of them the stand-in."""
    environment = {**os.environ, **environment_for(info, settings)}
    command = (sys.executable, "-S", str(WORKER))
    names = [f"agents-{number}" for number in range(1, settings.workers + 1)]
    memory = ProcessSpec("memory", (*command, "memory"), environment, role="memory")
    return [memory, *(ProcessSpec(name, (*command, name), environment) for name in names)]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run in the foreground, or leave a detached server behind."""
    if sys.argv[1] != "dev":
        return detach(sys.argv[1:], workers=stand_ins)
    try:
        asyncio.run(
            run_stack(load_settings(), on_ready=lambda _: _say("READY"), notify=_say, workers=stand_ins),
        )
    except HoldfastError as exc:
        _say(f"{type(exc).__name__}: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
