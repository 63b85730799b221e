"""Shows the steps of a run: as a table, with a line of result under each, or one of them in full. `show` uses it."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from holdfast.cli.columns import Column, fitted
from holdfast.cli.text import call_text, clean, cost, decide_lines, duration, one_line, resolve_lines, size
from holdfast.views import SentRequest, StepDetail

__all__ = ["render_step", "render_steps"]

_STYLE = {
    "done": "green",
    "running": "cyan",
    "retrying": "cyan",
    "asking": "cyan",
    "not_begun": "dim",
    "rejected": "yellow",
    "to_approve": "bold yellow",
    "in_doubt": "bold yellow",
    "abandoned": "yellow",
    "interrupted": "yellow",
}
_COLUMNS = (
    Column("step", right=True),
    Column("what"),
    Column("state"),
    Column("result", drop=2, least=26),
    Column("cost", right=True, drop=3),
    Column("time", right=True, drop=4),
    Column("tokens", right=True, drop=5),
    Column("class", drop=6),
)
_NARROW = 60  # columns of a terminal
_ARGS = 160  # characters of arguments in a table


def render_steps(steps: list[StepDetail], console: Console, *, lines: bool) -> None:
    """Write the table of steps; with *lines*, what came of each stands under it on a line of its own."""
    narrow = console.width < _NARROW
    what = Column("what", least=16 if narrow else 30)
    columns = [what if column.head == "what" else column for column in _COLUMNS]
    columns = [column for column in columns if not (lines and column.head == "result")]
    table = fitted(columns, [_row(step, lines=lines) for step in steps], console.width)
    if not lines:
        console.print(table)
        return
    head, *rows = console.render_lines(table, pad=False)
    _write(console, head)
    for step, row in zip(steps, rows, strict=True):
        _write(console, row)
        said = one_line(_said(step), max(console.width - 8, 20))
        if said:
            console.print(Text(f"      {said}", style=_tone(step)))


def _write(console: Console, line: list[Segment]) -> None:
    console.print(Segments([*line, Segment.line()]), end="")


def _row(step: StepDetail, *, lines: bool) -> list[str | Text]:
    tokens = f"{step.tokens_in:,} + {step.tokens_out:,}" if step.tokens_in is not None else ""
    cells: list[str | Text] = [str(step.step_no), _what(step), _state(step)]
    if not lines:
        cells.append(Text(one_line(_said(step), 200), style=_tone(step)))
    spent = cost(step.cost_usd, step.unpriced) if step.cost_usd is not None else ""
    effect = step.ledger.effect if step.ledger is not None else ""
    return [*cells, spent, duration(step.seconds), tokens, effect]


def _state(step: StepDetail) -> Text:
    return Text(step.state.replace("_", " "), style=_STYLE.get(step.state, "red"))


def _tone(step: StepDetail) -> str:
    return "red" if step.error and step.state != "rejected" else "dim"


def _what(step: StepDetail) -> str:
    if step.kind == "tool":
        return call_text(step.tool, step.edited_args if step.edited_args is not None else step.args, _ARGS)
    return f"{step.tool} {step.model}" if step.model else step.tool


def _said(step: StepDetail) -> str:
    """Return what came of a step: its error, its result, what the model said or called."""
    if step.error:
        return step.error
    if step.reply is None:
        return step.result or ""
    text = _content(step.reply)
    calls = ", ".join(str(call["function"]["name"]) for call in step.reply.get("tool_calls") or [])
    return f"{text} → {calls}" if text and calls else text or (f"→ {calls}" if calls else "")


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # the parts of a message that is not text alone
        return "\n".join(str(part.get("text", part)) if isinstance(part, dict) else str(part) for part in content)
    return "" if content is None else str(content)


# -------------------------------------------------------------------------------------------------------- one in full


def render_step(step: StepDetail, console: Console) -> None:
    """Write all of one step: what went in, what came out, nothing cut."""
    title = Text(f"step {step.step_no}  {step.tool}", style="bold")
    title.append("  ").append(_state(step))
    told = [step.model or "", f"agent {step.agent}" if step.agent else ""]
    if step.tokens_in is not None:
        told.append(f"{step.tokens_in:,} + {step.tokens_out:,} tokens")
    told += [cost(step.cost_usd, step.unpriced) if step.cost_usd is not None else "", duration(step.seconds)]
    if step.ledger is not None and step.kind == "tool":
        told.append(step.ledger.effect)
        told.append(f"sent {step.ledger.sends} times" if step.ledger.sends > 1 else "")
    title.append("  " + " · ".join(part for part in told if part), style="not bold dim")
    console.print(title)
    if step.kind == "model":
        _model(step, console)
    else:
        _tool(step, console)


def _tool(step: StepDetail, console: Console) -> None:
    if step.asked_by is not None:
        console.print(Text(f"asked for by step {step.asked_by}, call {clean(step.call_id or '')}", style="dim"))
    if step.child is not None:
        console.print(Text(f"run {step.child} answers it: holdfast show {step.child[:8]}", style="dim"))
    if step.edited_args is not None:
        _part(console, "arguments, as changed by a person", _json(step.edited_args))
        _part(console, "arguments, as chosen by the model", _json(step.args))
    elif step.args is not None:
        _part(console, "arguments", _json(step.args))
    if step.error:
        _part(console, "reason" if step.state == "rejected" else "error", step.error, style="red")
    if step.result is not None:
        _part(console, f"result, {size(len(step.result.encode()))}", _pretty(step.result))
    commands = decide_lines(step.run_id, step.step_no) if step.state == "to_approve" else []
    if step.state == "in_doubt":
        found = resolve_lines(step.run_id, step.step_no)
        longest = max(len(command) for command, _ in found)
        commands = [f"{command.ljust(longest)}   {meaning}" for command, meaning in found]
    if commands:
        _part(console, "waits for a person", "\n".join(commands))
    if step.read_as is not None:
        _part(console, f"what the model was given instead, {size(len(step.read_as.encode()))}", step.read_as)


def _model(step: StepDetail, console: Console) -> None:
    if step.request is None:
        console.print(Text("no request is recorded for this step: nothing was sent", style="dim"))
    else:
        _request(step.request, console)
    if step.reply is not None:
        _part(console, "reply", _message(step.reply))
    if step.error:
        _part(console, "error", step.error, style="red")


def _request(request: SentRequest, console: Console) -> None:
    if request.verified:
        console.print(Text(f"the request as it was sent: sha256 {request.hash}, verified", style="dim"), soft_wrap=True)
    else:
        text = (
            "This is not exactly what was sent: its hash differs from the one stored when it was sent, sha256 "
            f"{request.hash}."
        )
        why = "The data in the database or the code of Holdfast has changed since."
        console.print(Text(f"{text} {why}", style="bold red"))
    _part(console, "settings", _json({"model": request.model, **request.settings}))
    for message in request.messages:
        name = str(message.get("role"))
        name += f", result of {message['tool_call_id']}" if message.get("tool_call_id") else ""
        _part(console, name, _message(message))
    for tool in request.tools:
        _part(console, f"tool {tool.get('function', {}).get('name', '')}", _json(tool.get("function", tool)))


def _message(message: dict[str, Any]) -> str:
    parts = [_content(message)] if _content(message) else []
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        parts.append(f"→ {function.get('name')} {call.get('id')}\n{_pretty(str(function.get('arguments') or ''))}")
    return "\n".join(parts) or "(empty)"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _pretty(text: str) -> str:
    """Return JSON with line breaks, other text as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return _json(value) if isinstance(value, dict | list) else text


def _part(console: Console, head: str, text: str, *, style: str = "") -> None:
    """Write a headed part. Its text is not cut, and broken by the terminal alone, so that it can be copied."""
    console.print(Text(f"\n{clean(head)}", style="bold cyan"))
    console.print(Text(clean(text), style=style), soft_wrap=True)
