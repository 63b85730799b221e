"""The command line: `holdfast …`. Only the console script imports it; commands load what they need when they run."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn

__all__ = ["main"]


def main(argv: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 it failed, 2 the input is wrong, 3 it waits for a person, 130 interrupted.

    Without *argv* this is the whole process, and it ends at once, whatever threads the libraries keep: a command that
    had done its work was once seen to end with SIGSEGV, in the interpreter's own shutdown.
    """
    code = _run(argv)
    if argv is not None:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it may be gone
            stream.flush()
    os._exit(code)


def _run(argv: list[str] | None) -> int:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who began us: `holdfast runs >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123  # until we end
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks, not a crash
    for name in ("asyncpg", "temporalio"):  # what a lost connection means to the command is told by the command
        logging.getLogger(name).addHandler(logging.NullHandler())
    from typer.exceptions import TyperException

    from holdfast.cli.app import app
    from holdfast.cli.problems import report, tell_json

    as_json = "--json" in (sys.argv[1:] if argv is None else argv)
    try:
        # A script is told of a wrong option as of everything else; a person gets the usage with it.
        code = app(args=argv, prog_name="holdfast", standalone_mode=not as_json)
        return code if isinstance(code, int) else 0
    except TyperException as exc:
        tell_json("UsageError", exc.format_message(), exc.exit_code)
        return exc.exit_code
    except SystemExit as exc:
        if isinstance(exc.code, int) or exc.code is None:
            return exc.code or 0
        sys.stderr.write(f"{exc.code}\n")
        return 1
    except Exception as exc:  # noqa: BLE001  # the last place where an error can become a message
        return report(exc, as_json=as_json)
