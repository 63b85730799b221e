"""Shows that something takes time, and how long it has taken. Commands show it before they have anything to say."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from holdfast.cli.text import clean, duration

__all__ = ["Waiting"]

_TELL = 1.0  # seconds before the time is worth a word


class Waiting:
    """A line that moves, on a terminal; elsewhere only what is `said` is written."""

    def __init__(self, console: Console, what: str) -> None:
        """Prepare; it shows between entering and leaving."""
        self._console, self._what, self._said = console, what, ""
        self._began = time.monotonic()
        self._spinner = Spinner("dots", style="cyan")  # one: a new one begins at its first picture
        self._live = Live(
            get_renderable=self._render,
            console=console,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to show."""
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live.start()

    def stop(self) -> None:
        """Remove the line."""
        self._live.stop()

    def say(self, line: str) -> None:
        """Say what it is that takes long."""
        self._said = clean(line)
        if not self._live.is_started:
            self._console.print(
                Text(f"{self._what}: {self._said}", style="dim"), soft_wrap=not self._console.is_terminal
            )

    def _render(self) -> RenderableType:
        label = Text(f" {self._what}" + (f": {self._said}" if self._said else ""), style="cyan")
        if (seconds := time.monotonic() - self._began) > _TELL:
            label.append(f"  {duration(seconds)}", style="dim")
        self._spinner.update(text=label)
        return self._spinner
