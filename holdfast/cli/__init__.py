"""The command line: `holdfast …`. Only the console script imports it; commands load what they need when they run."""

from __future__ import annotations

import logging
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 it failed, 2 the input is wrong, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks, not a crash
    for name in ("asyncpg", "temporalio"):  # what a lost connection means to the command is told by the command
        logging.getLogger(name).addHandler(logging.NullHandler())
    from holdfast.cli.app import app
    from holdfast.cli.problems import report

    try:
        app(args=argv, prog_name="holdfast")
    except Exception as exc:  # noqa: BLE001  # the last place where an error can become a message
        sys.exit(report(exc))
