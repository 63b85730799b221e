"""Runs what could take all time or memory in a process of its own, which is killed when it does. Query tools use it.

Regular expressions, JSON and SQL queries and markup come from models and strangers. Some inputs keep C code busy for
ever, with the interpreter's lock held; in the worker's own process that would stop its heartbeats.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from holdfast.errors import ToolError
from holdfast.tools.builtin.processes import run_process

__all__ = ["CONFINED_SECONDS", "confined"]

CONFINED_SECONDS = 20.0
_MEMORY = 1024 * 1024 * 1024  # bytes of address space
_OUTPUT = 4 * 1024 * 1024
_CHILD = Path(__file__).with_name("confined_child.py")


async def confined(job: str, data: bytes = b"", *, timeout: float = CONFINED_SECONDS, **args: Any) -> Any:
    """Run a *job* of `confined_child` on *data* and return its JSON result.

    Raises:
        ToolError: the input does not fit, or the job needed more than *timeout* seconds or a gigabyte of memory.

    """
    head = {"job": job, "args": args, "memory": _MEMORY, "seconds": int(timeout) + 1, "output": _OUTPUT}
    done = await run_process(
        [sys.executable, "-I", str(_CHILD)],
        cwd="/",
        env={"LANG": "C.UTF-8"},
        timeout=timeout,
        most=_OUTPUT + 1024,
        stdin=json.dumps(head).encode() + b"\n" + data,
    )
    if done.timed_out:
        raise ToolError(
            f"this took longer than {timeout:g} s and was stopped: ask for something simpler, or less of it"
        )
    try:
        answer = json.loads(done.out)
    except ValueError:
        raise ToolError(f"this ended with {done.code}, without a result: ask for something simpler") from None
    if "error" in answer:
        raise ToolError(str(answer["error"]))
    return answer["result"]
