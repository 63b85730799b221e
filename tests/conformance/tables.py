"""What the sections of the conformance page are made of: tables and paragraphs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

__all__ = ["MISSING", "table", "wrapped"]

MISSING = "Not part of this campaign."


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def wrapped(*said: str) -> str:
    """Return a paragraph."""
    return textwrap.fill(" ".join(said), 120, break_long_words=False, break_on_hyphens=False)
