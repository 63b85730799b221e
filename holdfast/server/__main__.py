"""The detached server: `python -m holdfast.server --report FILE --log FILE`. Only `start_detached` runs it."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.log import PrintableFormatter
from holdfast.server.supervisor import WorkerSpecs, default_workers, run_stack
from holdfast.settings import load_settings

__all__ = ["main"]


def main(argv: list[str] | None = None, *, workers: WorkerSpecs = default_workers) -> int:
    """Leave a server behind in this session, tell its pid on standard output, and return."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.server", description=__doc__)
    parser.add_argument("--report", type=Path, required=True, help="where to write what kept the stack from starting")
    parser.add_argument("--log", type=Path, required=True, help="where to write the log")
    chosen = parser.parse_args(argv)
    pid = os.fork()  # no thread was started yet
    if pid:
        sys.stdout.write(f"{pid}\n")
        return 0
    _leave_terminal(chosen.log)
    try:
        settings = load_settings()
        asyncio.run(run_stack(settings, on_ready=lambda _: None, detached=True, workers=workers))
    except HoldfastError as exc:
        logging.getLogger("holdfast.server").error("%s: %s", type(exc).__name__, exc)
        fresh = chosen.report.with_suffix(".new")
        fresh.write_text(json.dumps({"error": type(exc).__name__, "message": str(exc)}), encoding="utf-8")
        fresh.replace(chosen.report)
        return 1
    return 0


def _leave_terminal(log: Path) -> None:
    """Send all output to the log, and take signals as a program started by itself would."""
    sys.stdout.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
