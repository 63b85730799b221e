"""How the command line writes numbers, times and tool calls. Pure functions."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.views import WaitingCall

from holdfast.visible import visible

__all__ = [
    "WHOLE",
    "ago",
    "call_text",
    "clean",
    "clock",
    "cost",
    "decide_lines",
    "duration",
    "one_line",
    "output_text",
    "resolve_lines",
    "short",
    "size",
    "spent",
    "waiting_commands",
    "waiting_line",
]

WHOLE = 10**9
"""Width of a call that somebody decides on: nothing of it is left out."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Return *text* without control characters: what a model or tool says must not drive the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def one_line(text: str, width: int = 100) -> str:
    """Return *text* on one line of at most *width* characters."""
    flat = " ".join(clean(text).split())
    return _cut(flat, width)


def short(run_id: str) -> str:
    """Return the beginning of a run id, enough to type."""
    return run_id[:8]


def duration(seconds: float | None) -> str:
    """Return `0.12 s`, `3.4 s`, `2 m 05 s`, `1 h 02 m`."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m"


def cost(usd: float, unpriced: int = 0) -> str:
    """Return an amount of US dollars, small ones with the digits that matter.

    `$?` stands for *unpriced* model calls, whose price is not known: alone, or beside what is known.
    """
    if unpriced:
        return f"{cost(usd)} + $?" if usd else "$?"
    if usd == 0:
        return "$0"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}" if usd >= 0.0001 else "<$0.0001"


def spent(data: dict[str, Any]) -> list[str]:
    """Return what a run has spent by the words of its last event, with what the agents spent that it asked."""
    below = int(data.get("tokens_below") or 0)
    told = [
        f"{int(data.get('tokens') or 0) + below:,} tokens",
        cost(
            float(data.get("cost_usd") or 0.0) + float(data.get("cost_usd_below") or 0.0),
            int(data.get("unpriced") or 0) + int(data.get("unpriced_below") or 0),
        ),
    ]
    return [*told, "sub-agents included"] if below else told


def size(count: int) -> str:
    """Return a number of bytes: `45 B`, `2.1 kB`, `10 MB`."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1_000_000:.1f} MB"


def clock(at: datetime | None) -> str:
    """Return the local time of day, with the date if it is not today."""
    if at is None:
        return ""
    local = at.astimezone()
    return local.strftime("%H:%M:%S" if local.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M")


def ago(at: datetime | None) -> str:
    """Return how long ago something was: `12 s ago`, `3 h ago`."""
    if at is None:
        return ""
    seconds = max((datetime.now(UTC) - at).total_seconds(), 0.0)
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def output_text(output: Any) -> str:
    """Return an answer as text: a typed one as JSON."""
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2, default=str)


def call_text(tool: str, args: Any, width: int = 100) -> str:
    """Return a tool call as it would be written in Python; *args* are a dict, or JSON text that may be cut.

    Characters that would not be seen, or would reorder the others, stand as their escapes.
    """
    if isinstance(args, str):
        try:
            args = json.loads(args)
        except ValueError:
            return _cut(clean(_escaped(f"{tool}({_cut_args(args)}")), width)
    if isinstance(args, dict):
        inside = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in args.items())
    else:
        inside = "" if args is None else json.dumps(args, ensure_ascii=False)
    return _cut(clean(_escaped(f"{tool}({inside})")), width)


def _escaped(text: str) -> str:
    """Return *text* on one line with all its blanks: two of them are another argument than one."""
    return visible(text).replace("\n", " ").replace("\t", "\\t")  # JSON has line breaks between values alone


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def _cut_args(text: str) -> str:
    """Return JSON text of arguments that was cut somewhere, as far as it goes, in the form of a call."""
    decoder, parts, at = json.JSONDecoder(), [], 1
    try:
        while text.startswith("{"):
            at += len(text[at:]) - len(text[at:].lstrip(" \n\t,"))
            name, at = decoder.raw_decode(text, at)
            at = text.index(":", at) + 1
            at += len(text[at:]) - len(text[at:].lstrip())
            parts.append(f"{name}={text[at:]}…")
            value, at = decoder.raw_decode(text, at)
            parts[-1] = f"{name}={json.dumps(value, ensure_ascii=False)}"
    except ValueError:
        pass
    if parts and not parts[-1].endswith("…"):
        parts.append("…")
    return ", ".join(parts) or text


def decide_lines(run_id: str, step: int) -> list[str]:
    """Return the commands that decide on a call."""
    return [
        f"holdfast approve {short(run_id)} {step}",
        f"holdfast reject {short(run_id)} {step} --reason '…'",
    ]


def waiting_line(call: WaitingCall, run_id: str) -> str:
    """Return what waits for a person, seen from the run with this id: another one's call is said to be that one's."""
    where = f"step {call.step_no}"
    if call.run_id != run_id:
        where += f" of run {short(call.run_id)} ({call.agent}), which it asked,"
    if call.kind == "approval":
        return clean(f"{where} waits for approval: {call_text(call.tool, call.args, WHOLE)}")
    return clean(
        f"{where.rstrip(',')}, {call.tool}, is in doubt: {call.error or 'it was sent, and its outcome is unknown'}"
    )


def waiting_commands(call: WaitingCall) -> list[str]:
    """Return the commands that settle what waits."""
    if call.kind == "approval":
        return decide_lines(call.run_id, call.step_no)
    return [command for command, _ in resolve_lines(call.run_id, call.step_no)]


def resolve_lines(run_id: str, step: int) -> list[tuple[str, str]]:
    """Return the commands that settle a step, each with what it means."""
    base = f"holdfast resolve {short(run_id)} {step}"
    return [
        (f"{base} --done {shlex.quote('its result')}", "it took effect, and this is what it returned"),
        (f"{base} --not-done", "it did not take effect: make the call"),
        (f"{base} --abandon", "go on without it"),
    ]
