"""What the Temporal Web UI shows of a thread beside its history: how it stands, and how to decide what waits."""

from __future__ import annotations

import json

from temporalio import workflow

from holdfast.contracts import Call, Carry, Run
from holdfast.visible import fitted, visible

__all__ = ["render", "show"]

_ARGS = 4000  # characters of one call's arguments
_MOST = 16_000  # characters in all, so that a query's answer stays small
_SHOWN = 5  # calls that wait, with how to decide each
_ASKED = ("approval", "in_doubt")


def show(carry: Carry, remark: str = "") -> None:
    """Set the current details. They are no part of the history, and cost nothing there."""
    workflow.set_current_details(render(carry, remark))


def render(carry: Carry, remark: str = "") -> str:
    """Return the details as Markdown."""
    run = carry.current
    parts = [f"**{visible(remark)}**"] if remark else []
    if run is None:
        parts.append(f"idle; this workflow ends soon unless a message arrives. {_last(carry)}".strip())
    else:
        parts += _run(run)
    if carry.queue:
        parts.append(f"{len(carry.queue)} messages wait behind it")
    text = "\n\n".join(parts)
    return text if len(text) <= _MOST else text[:_MOST] + "\n\n… more: `holdfast show`"


def _last(carry: Carry) -> str:
    last = carry.last
    return f"The last run, `{last.run_id}`, ended: {last.state}" if last is not None else ""


def _run(run: Run) -> list[str]:
    asked = f": {visible(run.preview)}" if run.preview else ""
    usd = "$?" if run.unpriced and not run.cost_usd else f"{run.cost_usd:.4f} USD" + " + $?" * bool(run.unpriced)
    spent = f"round {run.rounds}, {run.tokens} tokens, {usd}"
    parts = [f"run `{run.run_id}` of **{run.agent}**{asked}", spent]
    waiting = [call for call in run.calls if call.state in _ASKED]
    parts += [_how_to_decide(run, call) for call in waiting[:_SHOWN]]
    if len(waiting) > _SHOWN:
        parts.append(f"{len(waiting) - _SHOWN} more wait: `holdfast show {run.run_id[:8]}`")
    if run.calls:
        parts.append("\n".join(_line(call) for call in run.calls))
    return parts


def _line(call: Call) -> str:
    failed = f", failed: {visible(call.failed)}" if call.failed else ""
    return f"- step {call.step_no} `{call.tool}`: {call.state.replace('_', ' ')}{failed}"


def _how_to_decide(run: Run, call: Call) -> str:
    about = {"run_id": run.run_id}
    if call.state == "approval":
        head = f"### Step {call.step_no}, `{call.tool}`, waits for approval"
        name = "decide"
        named = {"call_id": str(call.step_no)}
        words = [{"approve": True, **about, **named}, {"approve": False, **about, **named, "reason": "why not"}]
    else:
        head = f"### Step {call.step_no}, `{call.tool}`, is in doubt: it is unknown whether it took effect"
        name = "resolve"
        step = {"step_no": call.step_no}
        words = [{**about, **step, "outcome": "done", "result": "what it returned"}]
        words += [{**about, **step, "outcome": outcome} for outcome in ("not_done", "abandon")]
    args = call.args if call.args is not None else call.shown
    shown = _fenced(fitted(visible(args), _ARGS)) if args else f"Arguments: `holdfast show {run.run_id[:8]}`"
    lines = "\n".join(json.dumps(word) for word in words)
    return f"{head}\n\n{shown}\n\nSend the signal `{name}` with one of these as its input:\n\n{_fenced(lines)}"


def _fenced(text: str) -> str:
    """Return *text* as a block of code that nothing in it can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}json\n{text}\n{fence}"
