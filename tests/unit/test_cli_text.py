"""Numbers, times and calls as the command line writes them."""

from __future__ import annotations

import shlex

import pytest

from holdfast.cli.text import call_text, clean, cost, duration, one_line, resolve_lines, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.123, "0.12 s"),
        (3.44, "3.4 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (125.4, "2 m 05 s"),
        (3725, "1 h 02 m"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    """A duration has the digits that matter and never sixty seconds."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"), [(0, "$0"), (0.00001, "<$0.0001"), (0.0012, "$0.0012"), (0.5, "$0.5000"), (12.345, "$12.35")]
)
def test_costs(usd: float, text: str) -> None:
    """A small cost is never rounded to nothing."""
    assert cost(usd) == text


@pytest.mark.parametrize(("count", "text"), [(45, "45 B"), (4300, "4.3 kB"), (10_000_000, "10.0 MB")])
def test_sizes(count: int, text: str) -> None:
    """Sizes are in decimal units."""
    assert size(count) == text


def test_calls_are_written_as_in_python_however_they_come() -> None:
    """Arguments may be a dict, JSON text, or JSON text that was cut."""
    assert call_text("f", {"a": "x", "b": 2}) == 'f(a="x", b=2)'
    assert call_text("f", '{"a": [1]}') == "f(a=[1])"
    assert call_text("f", '{"a": "cut in the mid') == 'f(a="cut in the mid…'
    assert call_text("f", '{"b": [1, 2], "a": "cut in the mid') == 'f(b=[1, 2], a="cut in the mid…'
    assert call_text("f", '{"a": 12') == "f(a=12, …"
    assert call_text("f", '{"a') == 'f({"a'
    assert call_text("f", None) == "f()"


def test_control_characters_are_taken_out() -> None:
    """Line breaks and tabs stay; what could move a cursor does not."""
    assert clean("a\tb\r\nc\x1b[2J\x9b") == "a\tb\nc\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}"
    assert one_line("a\n  b", 3) == "a b"
    assert one_line("abcdef", 4) == "abc…"


def test_resolve_lines_can_be_pasted_into_a_shell() -> None:
    """Each command line splits into words as meant."""
    for command, _ in resolve_lines("1a80a918-x", 3):
        assert shlex.split(command)[:4] == ["holdfast", "resolve", "1a80a918", "3"]
