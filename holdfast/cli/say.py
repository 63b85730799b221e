"""Where the command line says things to a person: lines on standard error, broken between words, and rich's console."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "say", "wrapped"]

_COMMAND = re.compile(r"`[^`\n]+`")
_KEEP = "\x00"  # stands for a blank that is not to be broken at; `clean` leaves none in what is said


def console(**options: Any) -> Console:
    """Return a console that shows text as it is: rich would take `[mail]` for a style and `:key:` for a picture."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, **options)


def wrapped(text: str, width: int | None) -> str:
    """Return *text* broken between words at *width*; None is as it is.

    A command in backticks stays in one piece where it fits, so that it can be copied, and nothing is ever broken
    within a word: a path stays whole, and the terminal breaks it if it must. Indented lines stay indented.
    """
    if width is None:
        return text
    kept = _COMMAND.sub(lambda found: found[0].replace(" ", _KEEP) if len(found[0]) <= width else found[0], text)
    lines = []
    for line in kept.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        broken = textwrap.wrap(
            line,
            max(width, 1),
            subsequent_indent=indent,
            expand_tabs=False,
            replace_whitespace=False,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += broken if len(line) > width and broken else [line]
    return "\n".join(lines).replace(_KEEP, " ")


def say(line: str, *, mark: str = "") -> None:
    """Write *line* to standard error, where that is a terminal broken to its width. A *mark* goes before it in red."""
    text = wrapped(f"{mark}: {line}" if mark else line, _width())
    if mark and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        text = f"\x1b[1;31m{mark}:\x1b[0m{text[len(mark) + 1 :]}"
    sys.stderr.write(text + "\n")


def _width() -> int | None:
    if not sys.stderr.isatty():
        return None
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    except OSError:
        return None
