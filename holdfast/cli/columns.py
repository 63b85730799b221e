"""Tables that fit the terminal: what matters least goes first, and one column takes what room is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

__all__ = ["Column", "fitted"]

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, and how it may be made to fit."""

    head: str
    right: bool = False
    drop: int = 0  # where there is no room, the column with the highest number goes first; 0 stays
    least: int | None = None  # it may be cut to so many characters; None: it is whole, or not there

    def natural(self, cells: Sequence[str | Text]) -> int:
        """Return how wide it is uncut."""
        return max([cell_len(self.head), *(cell_len(str(cell)) for cell in cells)])


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int) -> Table:
    """Return a table of at most *width*, a line for each row."""
    kept = list(range(len(columns)))
    wide = [column.natural([row[at] for row in rows]) for at, column in enumerate(columns)]

    def needed() -> int:
        bounds = [min(wide[at], columns[at].least or wide[at]) for at in kept]
        return sum(bounds) + _GAP * (len(kept) - 1)

    while needed() > width and (loose := [at for at in kept if columns[at].drop]):
        kept.remove(max(loose, key=lambda at: columns[at].drop))
    room = max(width - needed(), 0)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False)
    for at in kept:
        column = columns[at]
        size = wide[at]
        if column.least is not None and column.least < size:
            size = min(size, column.least + room)
            room -= size - column.least
        justify = "right" if column.right else "left"
        table.add_column(column.head, justify=justify, no_wrap=True, width=size, overflow="ellipsis")  # type: ignore[arg-type]  # a word of rich's
    for row in rows:
        table.add_row(*(row[at] for at in kept))
    return table
