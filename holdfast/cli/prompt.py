"""Asks a person in the terminal without stopping the event loop. Only the command line uses it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import sys
import termios
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

__all__ = ["Said", "ask_approval", "ask_line", "can_ask", "me", "read_line"]


@dataclass(frozen=True, slots=True)
class Said:
    """The answer: approve, or reject with a reason the model will see, or change the arguments first."""

    approve: bool
    reason: str | None = None
    edit: bool = False


def me() -> str:
    """Return who decides: the name this person logged in by."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "terminal"


def can_ask() -> bool:
    """Whether a person sits at the terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def read_line() -> str | None:
    """Return the next line typed, without its end, or None at the end of input (Ctrl-D).

    The terminal hands over whole lines. Nothing blocks, so the question can be dropped by cancelling this, and Ctrl-C
    works as everywhere.
    """
    loop = asyncio.get_running_loop()
    fd = sys.stdin.fileno()
    heard: asyncio.Future[bytes] = loop.create_future()

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(fd, 65536)
            if not heard.done():
                heard.set_result(data)

    loop.add_reader(fd, readable)
    try:
        data = await heard
    finally:
        loop.remove_reader(fd)
    return data.decode(errors="replace").rstrip("\r\n") if data else None


def _forget_typed() -> None:
    """Drop what was typed before a question is shown: it is no answer to it."""
    with contextlib.suppress(OSError, termios.error, ValueError):  # no terminal: a pipe has what was meant for it
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


async def ask_line(console: Console, question: str, *, typed_ahead: bool = False) -> str | None:
    """Put a question and return what was typed after it was shown, or before with *typed_ahead*; None at the end."""
    if not typed_ahead:
        _forget_typed()
    console.print(Text(question, style="bold"), end="")
    line = await read_line()
    if line is None:
        console.print()
    return line


async def ask_approval(console: Console, call: str) -> Said | None:
    """Ask for a decision on a call; None if the person leaves it open (Ctrl-D)."""
    while True:
        line = await ask_line(console, f"    approve {call}? [y]es, [n]o, [e]dit, or type the reason to reject it: ")
        if line is None:
            return None
        word = line.strip()
        if word.lower() in ("y", "yes"):
            return Said(True)
        if word.lower() in ("e", "edit"):
            return Said(True, edit=True)
        if word.lower() in ("n", "no"):
            reason = await ask_line(console, "    reason (the model will see it; Enter for none): ", typed_ahead=True)
            return Said(False, (reason or "").strip() or "rejected by the user")
        if len(word) >= 3:
            return Said(False, word[:2000])
