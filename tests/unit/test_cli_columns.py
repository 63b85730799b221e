"""Tables that fit: what goes, what is cut, and that nothing else is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from holdfast.cli.columns import Column, fitted
from holdfast.cli.waiting import Waiting

COLUMNS = (Column("id"), Column("what", least=6), Column("cost", right=True, drop=1), Column("when", drop=2))
ROWS = [("1a80a918", "order_status(17)", "$0.10", "3 min ago"), ("2", "x", "", "")]


def lines(width: int) -> list[str]:
    """Draw the table."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(fitted(COLUMNS, ROWS, width))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "heads", "shown"),
    [
        (80, ["id", "what", "cost", "when"], "1a80a918  order_status(17)  $0.10  3 min ago"),
        (44, ["id", "what", "cost", "when"], "1a80a918  order_status(17)  $0.10  3 min ago"),
        (40, ["id", "what", "cost", "when"], "1a80a918  order_statu…  $0.10  3 min ago"),
        (33, ["id", "what", "cost"], "1a80a918  order_status(17)  $0.10"),
        (20, ["id", "what"], "1a80a918  order_sta…"),
        (5, ["id", "what"], "1a80…"),
    ],
)
def test_what_matters_least_goes_first(width: int, heads: list[str], shown: str) -> None:
    """An id is never cut while anything else can be; the rest of the line is for the widest."""
    drawn = lines(width)
    assert len(drawn) == 3
    assert all(len(line) <= width for line in drawn)
    if width > 5:
        assert drawn[0].split() == heads
        assert drawn[1] == shown


def test_what_takes_long_is_said_without_a_terminal_too() -> None:
    """A log has a line for it and nothing that moves."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    with Waiting(console, "starting a stack") as waiting:
        waiting.say("building \x1b[31mthe server")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "starting a stack: building \ufffd[31mthe server\n"
