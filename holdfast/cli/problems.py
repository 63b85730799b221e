"""Turns every error into one message on standard error and an exit code. Only the command line uses it."""

from __future__ import annotations

import json
import os
import sys
import traceback

from holdfast.errors import ConfigurationError, HoldfastError, InvalidInput, RunEnded
from holdfast.secrets import mask

__all__ = ["explain", "report", "tell_json"]


def explain(exc: BaseException) -> tuple[str, int]:
    """Return what to tell the user, and the exit code: 2 for wrong input or settings, else 1."""
    if isinstance(exc, InvalidInput | ConfigurationError):
        return str(exc), 2
    if isinstance(exc, HoldfastError):
        return str(exc), 1
    module = type(exc).__module__.partition(".")[0]
    what = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    if module == "asyncpg":
        return f"PostgreSQL refused the request ({what}). `holdfast doctor` shows what is missing.", 1
    if module == "temporalio":
        return f"Temporal refused the request ({what}). `holdfast doctor` shows what is missing.", 1
    if isinstance(exc, TimeoutError | OSError):
        return f"{what}. `holdfast doctor` shows what is missing.", 1
    return f"unexpected {what}. Set HOLDFAST_DEBUG=1 to see where it comes from.", 1


def tell_json(kind: str, message: str, code: int) -> None:
    """Write an error for a script: one line of JSON on standard error."""
    error = {"type": kind, "message": message, "exit_code": code}
    sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")


def report(exc: BaseException, *, as_json: bool = False) -> int:
    """Say what went wrong and return the exit code. With HOLDFAST_DEBUG=1 the traceback comes first.

    With *as_json* the last line of standard error is `{"error": {"type", "message", "exit_code"}}`.
    """
    if isinstance(exc, BrokenPipeError):  # `holdfast runs | head`: whoever read has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # or the interpreter complains at exit
        return 1
    if os.environ.get("HOLDFAST_DEBUG", "") not in ("", "0"):
        sys.stderr.write(mask("".join(traceback.format_exception(exc))))
    text, code = explain(exc)
    text = mask(text)
    if as_json:
        kind = type(exc).__name__ if isinstance(exc, HoldfastError) else "StackError" if "doctor" in text else "Error"
        tell_json(kind, text, code)
        return code
    mark = "stopped" if isinstance(exc, RunEnded) and exc.state == "stopped" else "error"
    from holdfast.cli.say import say
    from holdfast.cli.text import clean

    say(clean(text), mark=mark)
    return code
