"""Lines for a person, at the width of the terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

import holdfast.cli
from holdfast.cli.say import console, wrapped


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("no run has that id", None, ["no run has that id"]),
        ("no run has that id", 40, ["no run has that id"]),
        ("no run has that id", 10, ["no run has", "that id"]),
        ("see /a/very/long/path.py, line 3", 12, ["see", "/a/very/long/path.py,", "line 3"]),
        ("stop it with `holdfast down` first", 24, ["stop it with", "`holdfast down` first"]),
        ("`holdfast run support --thread x` does", 12, ["`holdfast", "run support", "--thread x`", "does"]),
        ("wrong:\n  one two three\n\n  four", 10, ["wrong:", "  one two", "  three", "", "  four"]),
        ("", 10, [""]),
    ],
)
def test_a_line_breaks_between_words_and_not_within_a_command(text: str, width: int | None, lines: list[str]) -> None:
    """What is longer than the terminal stays whole, an indent goes on, and no width means as it is."""
    assert wrapped(text, width).split("\n") == lines


def test_what_stands_in_brackets_is_text() -> None:
    """Neither a message nor a path is taken for a style, and no other console is made."""
    out = io.StringIO()
    console(file=out, width=80).print("to [mail] in [/etc/x] :key:")
    assert out.getvalue() == "to [mail] in [/etc/x] :key:\n"
    modules = Path(holdfast.cli.__file__).parent.glob("*.py")
    made = [module.name for module in modules if re.search(r"\bConsole\(", module.read_text(encoding="utf-8"))]
    assert made == ["say.py"]
