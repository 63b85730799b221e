"""How the demo looks: acts, steps, ticks with where they were looked up, and the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = ["Screen"]


class Screen:
    """Writes the story down, one line after the other; on a terminal it also shows what is being waited for."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._act = 0

    def act(self, title: str, about: str) -> None:
        """Begin a part of the story."""
        self._act += 1
        head = Text(f"\n{self._act}  {title}", style="bold")
        head.append(f"  {about}", style="not bold dim")
        self.console.print(head)

    def tick(self, text: str, source: str) -> None:
        """Say what was found to be so, and where it was looked up."""
        self._line("✓", "bold green", text, source)

    def cross(self, text: str, source: str = "") -> None:
        """Say what is not so."""
        self._line("✗", "bold red", text, source)

    def struck(self, text: str, source: str = "") -> None:
        """Say what the demo itself broke on purpose."""
        self._line("⚡", "bold yellow", text, source)

    def step(self, text: str, more: str = "") -> None:
        """Say what the agent does."""
        self._line("·", "cyan", text, more)

    def say(self, text: str) -> None:
        """Write something plain."""
        self.console.print(Padding(Text(text), (0, 0, 0, 3), expand=False))

    def answer(self, text: str) -> None:
        """Show the answer; where it is read by a program, with each line whole."""
        if self.console.is_terminal:
            self.console.print(Padding(Panel(Text(text), border_style="green", title="answer"), (1, 2)))
        else:
            self.console.print(Text(f"\n{text}\n"), soft_wrap=True)

    def rows(self, rows: list[tuple[str, str]]) -> None:
        """Show commands or addresses with what they are."""
        table = Table.grid(padding=(0, 3))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(style="dim", overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.console.print(Padding(table, (0, 0, 0, 3), expand=False), soft_wrap=not self.console.is_terminal)

    def link(self, name: str, address: str) -> None:
        """Show an address on a line of its own, whole: it is to be clicked or copied."""
        text = Text(f"\n   {name}  ", style="bold")
        text.append(address, style="not bold cyan")
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show what is being waited for, if anybody watches."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(Text(f" {what}", style="cyan"), spinner="dots"):
            yield

    def _line(self, mark: str, style: str, text: str, more: str) -> None:
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=1)
        grid.add_column(overflow="fold")
        line = Text(text)
        if more:
            line.append(f"  [{more}]", style="dim")
        grid.add_row(Text(mark, style=style), line)
        self.console.print(Padding(grid, (0, 0, 0, 3), expand=False))
