"""Lines about the agents that a run asks, beside its own: what they ask in turn, and what waits for a person."""

from __future__ import annotations

from typing import Any

from holdfast.advice import for_person
from holdfast.cli.text import WHOLE, call_text, clean, cost, one_line, short
from holdfast.contracts import Event

__all__ = ["Below"]

Line = tuple[str, str, str, str]  # mark, text, style, what stands dim behind it

_SHOWN = 100  # characters of a call or a result


class Below:
    """Knows the runs below the one that is watched by what their askers' events say of them."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._names

    def name(self, run_id: str) -> str:
        """Return how the lines call a run below: its agent, with those between."""
        return self._names.get(run_id, short(run_id))

    def started(self, event: Event) -> Line:
        """Take in that a run was asked for, and return the line that says so."""
        data = event.data
        agent = clean(str(data.get("agent", "")))
        before = self._names.get(event.run_id)
        self._names[str(data.get("run_id"))] = f"{before} / {agent}" if before else agent
        return "↓", f"asked {agent}", "magenta", f"run {short(str(data.get('run_id', '')))}"

    def ended(self, event: Event) -> Line:
        """Return the line about the end of a run that was asked for."""
        data = event.data
        good = data.get("state") == "done"
        told = f"{data.get('tokens', 0):,} tokens · {cost(data.get('cost_usd', 0.0), data.get('unpriced', 0))}"
        said = "answered" if good else f"gave no answer: {clean(str(data.get('state')))}"
        return "↑", f"{clean(str(data.get('agent', '')))} {said}", "magenta" if good else "yellow", told

    def lines(self, event: Event) -> list[Line]:
        """Return what is shown of an event of a run below: calls, failures, and what waits for a person."""
        data = event.data
        who = self.name(event.run_id)
        if event.kind == "replied":
            lines: list[Line] = []
            for call in data.get("calls") or []:
                lines.append(("→", f"{who}  {call_text(call['tool'], call.get('args'), _SHOWN)}", "dim", ""))
                if call.get("error"):
                    lines.append(("✗", f"{who}  not made: {one_line(str(call['error']), _SHOWN)}", "red", ""))
            return lines
        if event.kind == "approval_requested":
            text = f"{who}: approval needed: {call_text(str(data.get('tool', '')), data.get('args'), WHOLE)}"
            return [("?", text, "bold yellow", f"step {data.get('step')}")]
        if event.kind == "approval_decided":
            said = "approved" if data.get("approve") else "rejected"
            by = f" by {clean(str(data['actor']))}" if data.get("actor") else ""
            mark, style = ("✓", "green") if data.get("approve") else ("✗", "yellow")
            return [(mark, f"{who}: {clean(str(data.get('tool', '')))} {said}{by}", style, "")]
        if event.kind == "in_doubt":
            text = f"{who}: step {data.get('step')}, {data.get('tool')}: waits for your word"
            return [("?", text, "bold yellow", f"holdfast show {short(event.run_id)}")]
        if event.kind == "tool_done" and data.get("status") != "done":
            return [("✗", f"{who}  {data.get('tool')}  {_preview(data)}", "red", "")]
        if event.kind == "child_started":
            return [_within(who, self.started(event))]
        if event.kind == "child_ended":
            return [_within(who, self.ended(event))]
        if event.kind == "handed_off":
            return [("⇒", f"{who}: handed over to {clean(str(data.get('agent', '')))}", "magenta", "")]
        if event.kind == "ended" and data.get("error"):
            return [("■", f"{who}: {clean(str(data['error']))}", "yellow", "")]
        return []


def _within(who: str, line: Line) -> Line:
    return line[0], f"{who}  {line[1]}", line[2], line[3]


def _preview(data: dict[str, Any]) -> str:
    return one_line(for_person(str(data.get("preview") or "")), _SHOWN)
