"""Lines for a person, at the width of the terminal."""

from __future__ import annotations

import pytest

from holdfast.cli.say import wrapped


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
