"""Shows a run's events as they come: one line each, and below them what is going on now. The command line uses it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from holdfast.advice import for_person
from holdfast.cli.below import Below
from holdfast.cli.text import WHOLE, call_text, clean, cost, duration, one_line, resolve_lines, short, size, spent
from holdfast.contracts import Event

__all__ = ["Screen"]

_TAIL = 8  # lines of a reply under way that are shown
_TROUBLE = 2000  # characters of what holds a run up
_ATTEMPT = re.compile(r"attempt \d+ ")

STATE_STYLE = {
    "done": "green",
    "running": "cyan",
    "queued": "cyan",
    "accepted": "cyan",
    "waiting": "yellow",
    "merged": "dim",
    "stopped": "yellow",
}
"""Colour of a run's state; any other is red."""


class Screen:
    """Writes to *console* (standard error, so that standard output has the answer alone)."""

    def __init__(self, console: Console, *, live: bool | None = None) -> None:
        self.console = console
        self.state: str | None = None
        self._animated = console.is_terminal if live is None else live
        self._live: Live | None = None
        self._activity = "sending"
        self._since = time.monotonic()
        self._spoken = ""
        self._running: dict[int, str] = {}
        self._rounds = 0
        self._rejected: set[int] = set()
        self._below = Below()
        self._trouble = ""
        self._told = ""
        self._spinner = Spinner("dots", style="cyan")

    # ------------------------------------------------------------------------------------ the moving part

    def start(self) -> None:
        """Begin to show what is going on, if the console is a terminal."""
        if self._animated and self._live is None:
            self._live = Live(
                get_renderable=self._render,
                console=self.console,
                transient=True,
                refresh_per_second=8,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def stop(self) -> None:
        """Remove the moving part; the lines stay."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Screen:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def activity(self, what: str) -> None:
        """Say what is going on now."""
        self._activity, self._since = what, time.monotonic()

    def trouble(self, what: str) -> None:
        """Say what holds the run up: beside the activity, and in full as a line of its own, once for all attempts."""
        told = _ATTEMPT.sub("", what)
        if what and told != _ATTEMPT.sub("", self._told):
            self._told = what
            self.line("!", one_line(what, _TROUBLE), style="yellow")
        self._trouble = what

    def whose(self, run_id: str) -> str:
        """Return the agent of a run below the one that is shown; nothing of that one itself."""
        return self._below.name(run_id) if run_id in self._below else ""

    def spoken(self, width: int, lines: int = _TAIL) -> list[str]:
        """Return the last *lines* of the reply under way, broken at *width*; none between replies."""
        if not self._spoken:
            return []
        broken = Text(self._spoken).wrap(self.console, max(width, 20))
        return [line.plain.rstrip() for line in broken[-lines:]]

    def doing(self) -> tuple[str, float, str]:
        """Return what is going on now, for how many seconds, and what holds it up."""
        return self._activity, time.monotonic() - self._since, self._trouble

    def _render(self) -> RenderableType:
        label = Text(f" {self._activity} ", style="cyan")
        label.append(duration(time.monotonic() - self._since), style="dim")
        if self._trouble:
            label.append(f"  {one_line(self._trouble, self._width(30))}", style="yellow")
        self._spinner.update(text=label)
        if not self._spoken:
            return self._spinner
        tail = Text("\n".join(self.spoken(self.console.width - 4)), style="dim")
        return Group(Padding(tail, (0, 0, 0, 2)), self._spinner)

    # ------------------------------------------------------------------------------------ the lines

    def line(self, mark: str, text: str | Text, *, style: str = "", more: str = "") -> None:
        """Write a line: a mark, a text, and something dim behind it."""
        out = text.copy() if isinstance(text, Text) else Text(text)
        if more:
            out.append(f"  {more}", style="not bold dim")
        if mark == "?":  # somebody decides on it: to fold it would drop blanks at the ends of lines
            self.console.print(Text.assemble("  ", (mark, style), " ", out), highlight=False, soft_wrap=True)
            return
        grid = Table.grid(padding=(0, 1, 0, 0))  # so that long lines are indented where they go on
        grid.add_column(width=1)
        grid.add_column(overflow="fold")
        grid.add_row(Text(mark, style=style), out)
        self.console.print(Padding(grid, (0, 0, 0, 2)), highlight=False)

    def note(self, text: str, style: str = "dim") -> None:
        """Write a remark."""
        self.console.print(Text(text, style=style), highlight=False, soft_wrap=True)  # commands stay in one piece

    def show(self, event: Event) -> None:
        """Show one event; kinds that are not known here are shown by their name."""
        self._trouble = self._told = ""
        if event.run_id in self._below:
            for mark, text, style, more in self._below.lines(event):
                self.line(mark, f"  {text}", style=style, more=more)
            return
        show: Callable[[Event, dict[str, Any]], None] = getattr(self, f"_{event.kind}", self._other)
        show(event, event.data)

    def _width(self, used: int) -> int:
        return max(self.console.width - used - 6, 20)

    def _other(self, event: Event, data: dict[str, Any]) -> None:
        self.line("·", event.kind, style="dim", more=one_line(str(data), self._width(len(event.kind))))

    def _tokens(self, _: Event, data: dict[str, Any]) -> None:
        if not self._spoken:
            self.activity("answering")
        self._spoken = clean(str(data.get("text", "")))

    def _accepted(self, event: Event, data: dict[str, Any]) -> None:
        self.state = "queued"
        self.line("●", Text(f"run {short(event.run_id)}", style="bold"), style="cyan", more=f"{data.get('agent', '')}")
        self.activity("queued")

    def _started(self, _: Event, __: dict[str, Any]) -> None:
        self.state = "running"
        self.activity("thinking")

    def _refused(self, _: Event, data: dict[str, Any]) -> None:
        self.state = "refused"
        self.line("✗", f"refused: {clean(str(data.get('error', '')))}", style="red")

    def _joined(self, _: Event, data: dict[str, Any]) -> None:
        self.line("↳", "a steering message joined", style="cyan", more=f"run {short(str(data.get('run_id', '')))}")

    def _merged(self, _: Event, data: dict[str, Any]) -> None:
        self.state = "merged"
        self.line("↳", f"joined run {short(str(data.get('into', '')))}, which is under way", style="cyan")

    def _recalled(self, _: Event, data: dict[str, Any]) -> None:
        count = data.get("count", 0)
        if count:
            self.line("◆", f"remembered {count} thing{'s' if count != 1 else ''}", style="magenta")

    def _memory_unavailable(self, _: Event, data: dict[str, Any]) -> None:
        self.line(
            "!", "memory is unavailable; going on without it", style="yellow", more=clean(str(data.get("why", "")))
        )

    def _compacted(self, _: Event, data: dict[str, Any]) -> None:
        more = f"from message {data.get('from_seq')} on, {data.get('tokens', 0):,} tokens"
        self.line("≡", "the conversation was shortened to fit the model", style="magenta", more=more)

    def _replied(self, event: Event, data: dict[str, Any]) -> None:
        self._spoken = ""
        self._rounds += 1
        calls = data.get("calls") or []
        usage = f"{data.get('tokens_in', 0):,} + {data.get('tokens_out', 0):,} tokens"
        price = cost(data.get("cost_usd", 0.0), data.get("unpriced", 0))
        told = [str(data.get("model", "")), usage, price, duration(data.get("seconds"))]
        more = " · ".join(part for part in told if part)
        text = one_line(str(data.get("text") or ""), self._width(len(more)))
        if calls:
            self.line("○", text or f"round {self._rounds}", style="blue", more=more)
        else:
            self.line("○", "answered", style="blue", more=more)
        for call in calls:
            self.line("→", call_text(call["tool"], call.get("args"), self._width(2)), style="blue")
            if call.get("error"):
                self.line("✗", f"not made: {one_line(str(call['error']), 300)}", style="red")
            else:
                self._running[call["step"]] = call["tool"]
        self._now()

    def _now(self) -> None:
        names = list(self._running.values())
        if not names:
            self.activity("thinking")
        elif len(names) <= 3:
            self.activity(", ".join(names))
        else:
            self.activity(f"{len(names)} tool calls")

    def _plugin(self, _: Event, data: dict[str, Any]) -> None:
        what, did = str(data.get("hook", "")), str(data.get("did", ""))
        style = "yellow" if did != "changed" else "magenta"
        more = one_line(str(data.get("why") or ""), self._width(40))
        self.line("◇", f"plugin {clean(str(data.get('plugin', '')))} {did} ({what})", style=style, more=more)

    def _tool_done(self, _: Event, data: dict[str, Any]) -> None:
        self._running.pop(data.get("step", 0), None)
        self._now()
        if data.get("step") in self._rejected:
            return
        tool, status = str(data.get("tool", "")), data.get("status")
        told = [duration(data.get("seconds")), size(data["bytes"]) if data.get("bytes") else ""]
        more = " · ".join(part for part in told if part)
        said = str(data.get("preview") or "")
        said = said if status == "done" else for_person(said)
        preview = one_line(said, self._width(len(tool) + len(more) + 4))
        mark, style = {"done": ("✓", "green"), "error": ("✗", "red")}.get(str(status), ("-", "yellow"))
        text = Text(tool)
        if status not in ("done", "error"):
            text.append(f" {status}")
        if preview:
            text.append(f"  {preview}", style="red" if status == "error" else "dim")
        self.line(mark, text, style=style, more=more)

    def _approval_requested(self, _: Event, data: dict[str, Any]) -> None:
        text = Text("approval needed: ", style="bold yellow")
        text.append(call_text(str(data.get("tool", "")), data.get("args"), WHOLE), style="default not bold")
        self.line("?", text, style="bold yellow", more=f"step {data.get('step')}")
        self.activity("waiting for your decision")

    def _approval_decided(self, _: Event, data: dict[str, Any]) -> None:
        by = f" by {clean(str(data['actor']))}" if data.get("actor") else ""
        if data.get("approve"):
            edited = " with edited arguments" if data.get("edited") else ""
            self.line("✓", f"{data.get('tool')} approved{by}{edited}", style="green")
        else:
            self._rejected.add(int(data.get("step", 0)))  # its result repeats the reason
            reason = f": {clean(str(data['reason']))}" if data.get("reason") else ""
            self.line("✗", f"{data.get('tool')} rejected{by}{reason}", style="yellow")
        self._now()

    def _approval_refused(self, _: Event, data: dict[str, Any]) -> None:
        self.line("!", f"the decision was refused: {clean(str(data.get('why', '')))}", style="yellow")
        self.activity("waiting for your decision")

    def _in_doubt(self, event: Event, data: dict[str, Any]) -> None:
        what = "may or may not have taken effect"
        text = Text(f"step {data.get('step')}, {data.get('tool')}: {what}", style="bold yellow")
        self.line("?", text, style="bold yellow", more=clean(str(data.get("why") or "")))
        lines = resolve_lines(event.run_id, int(data.get("step", 0)))
        longest = max(len(command) for command, _ in lines)
        for command, meaning in lines:
            self.note(f"      {command.ljust(longest)}   {meaning}")
        self.activity("waiting for your word")

    def _resolved(self, _: Event, data: dict[str, Any]) -> None:
        by = f" by {clean(str(data['actor']))}" if data.get("actor") else ""
        self.line(
            "✓",
            f"step {data.get('step')} resolved{by}: {str(data.get('outcome', '')).replace('_', ' ')}",
            style="green",
        )
        self._now()

    def _stop_requested(self, _: Event, data: dict[str, Any]) -> None:
        by = f" by {clean(str(data['actor']))}" if data.get("actor") else ""
        reason = f": {clean(str(data['reason']))}" if data.get("reason") else ""
        self.line("!", f"stop requested{by}{reason}", style="yellow")

    def _invalid(self, _: Event, data: dict[str, Any]) -> None:
        self.line("!", f"the answer does not fit: {clean(str(data.get('why', '')))}", style="yellow")
        if data.get("correction"):
            self.note(f"    asked again, correction {data['correction']} of {data.get('corrections')}")
            self.activity("thinking")

    def _child_started(self, event: Event, _: dict[str, Any]) -> None:
        mark, text, style, more = self._below.started(event)
        self.line(mark, text, style=style, more=more)

    def _child_ended(self, event: Event, _: dict[str, Any]) -> None:
        mark, text, style, more = self._below.ended(event)
        self.line(mark, text, style=style, more=more)

    def _handed_off(self, _: Event, data: dict[str, Any]) -> None:
        self.line("⇒", f"handed over to {clean(str(data.get('agent', '')))}", style="magenta")

    def _ended(self, event: Event, data: dict[str, Any]) -> None:
        self.state = str(data.get("state", "done"))
        rounds, steps = data.get("rounds", 0), data.get("steps", 0)
        told = [
            f"{rounds} round{'s' if rounds != 1 else ''}",
            f"{steps} step{'s' if steps != 1 else ''}",
            *spent(data),
        ]
        text = Text(self.state.replace("_", " "), style=STATE_STYLE.get(self.state, "red"))
        if data.get("error"):
            text.append(f": {clean(str(data['error']))}")
        self.line("■", text, style=STATE_STYLE.get(self.state, "red"), more=" · ".join(told))
