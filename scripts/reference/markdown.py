"""What the pages of the reference share: tables, and the line that says who wrote them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["code", "escaped", "fill", "table"]

_GENERATED = "<!-- Written by `python -m scripts.reference`; do not edit. -->"


def fill(page: str, **parts: str) -> str:
    """Return the text of a page that lies beside this file, with *parts* in their places."""
    text = Path(__file__).with_name(f"{page}.md").read_text(encoding="utf-8")
    for name, part in {"generated": _GENERATED, **parts}.items():
        text = text.replace(f"{{{{{name}}}}}", part)
    return text


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; cells are Markdown."""
    titles = list(head)
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def code(text: str) -> str:
    """Return *text* as code within a table."""
    return f"`{escaped(text)}`" if text else ""


def escaped(text: str) -> str:
    """Return *text* for a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")
