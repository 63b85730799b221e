"""How a conversation looks: what was said before, what a run says and does now. Only `chat` uses it."""

from __future__ import annotations

import shutil
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from holdfast.cli.screen import Screen
from holdfast.cli.text import ago, call_text, clean, duration, one_line, spent
from holdfast.contracts import Event
from holdfast.views import MessageView

__all__ = ["TalkScreen", "show_history", "show_said"]

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TAIL = 8  # lines of a reply under way


class TalkScreen(Screen):
    """Shows runs as turns of a conversation: the answer itself in full, the rest as one line each."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, live=False)
        self.tokens = 0
        self.cost_usd = 0.0
        self.unpriced = 0

    def head(self, *, busy: bool) -> list[tuple[str, str]]:
        """Return what moves above the line that is typed on, as (style, text)."""
        if not busy:
            return [("", "\n")]
        width = shutil.get_terminal_size().columns
        lines = [("fg:ansibrightblack", f"  {line}\n") for line in self.spoken(width - 4, _TAIL)]
        what, seconds, trouble = self.doing()
        sign = _SPINNER[int(seconds * 8) % len(_SPINNER)] if self._unicode() else "|/-\\"[int(seconds * 8) % 4]
        told = one_line(f"{sign} {what} {duration(seconds)}" + (f"  {trouble}" if trouble else ""), max(width - 3, 10))
        return [*lines, ("fg:ansiyellow" if trouble else "fg:ansicyan", f"  {told}\n")]

    def _unicode(self) -> bool:
        return (self.console.encoding or "").lower().startswith("utf")

    def _accepted(self, event: Event, data: dict[str, Any]) -> None:
        self._rounds = 0
        self.activity("queued")

    def _merged(self, _: Event, data: dict[str, Any]) -> None:
        pass  # told by the run it joined

    def _joined(self, _: Event, data: dict[str, Any]) -> None:
        self.line("↳", "what you said has joined the run", style="cyan")

    def _replied(self, event: Event, data: dict[str, Any]) -> None:
        if data.get("calls"):
            super()._replied(event, data)
        else:
            self._spoken = ""
            self.activity("ending")

    def answer(self, text: str) -> None:
        """Write an answer in full."""
        self.console.print()
        self.console.print(Text(clean(text.strip("\n"))), highlight=False)

    def _ended(self, event: Event, data: dict[str, Any]) -> None:
        self.tokens += int(data.get("tokens") or 0) + int(data.get("tokens_below") or 0)
        self.cost_usd += float(data.get("cost_usd") or 0.0) + float(data.get("cost_usd_below") or 0.0)
        self.unpriced += int(data.get("unpriced") or 0) + int(data.get("unpriced_below") or 0)
        if data.get("state") != "done":
            super()._ended(event, data)
            return
        self.state = "done"
        told = " · ".join(spent(data))
        self.console.print(Padding(Text(told, style="dim"), (0, 0, 0, 2)))


def show_said(console: Console, text: str, *, mark: str = ">") -> None:
    """Write what the person said."""
    console.print()
    first, *rest = Text(clean(text), style="bold").wrap(console, max(console.width - 2, 10))
    console.print(Text(f"{mark} ", style="bold") + first, highlight=False)
    for line in rest:
        console.print(Text("  ") + line, highlight=False)


def show_history(console: Console, messages: list[MessageView]) -> None:
    """Write what was said before: messages in full, tool calls as one line each, their results left out."""
    if not messages:
        return
    if messages[0].seq > 1:
        earlier = messages[0].seq - 1
        console.print(Text(f"  … {earlier:,} earlier message{'s' if earlier != 1 else ''}", style="dim"))
    for message in messages:
        body = message.body or {}
        content = _content(body)
        if message.role == "user":
            show_said(console, content)
        elif message.role == "assistant":
            for call in body.get("tool_calls") or []:
                function = call.get("function") or {}
                text = call_text(str(function.get("name")), function.get("arguments"), max(console.width - 6, 20))
                console.print(Text(f"  → {text}", style="blue"))
            if content.strip():
                console.print()
                console.print(Text(clean(content.strip("\n"))), highlight=False)
    console.print(Text(f"\n  that was {ago(messages[-1].at)}", style="dim"))


def _content(body: dict[str, Any]) -> str:
    content = body.get("content")
    if isinstance(content, list):  # the parts of a message that is not text alone
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")
