"""A run as tests look at it: its end, its calls with their arguments, its story in lines. `run_agent` makes these."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from holdfast.contracts import AgentDefinition, Event
from holdfast.errors import RunEnded
from holdfast.handles import RunHandle
from holdfast.typed.answers import read_output
from holdfast.views import ApprovalView, MessageView, RunStatus, StepView

__all__ = ["FinishedRun", "ToolCall", "cut", "line", "look", "story", "values"]

_SHOWN = 120  # characters of a value in a message
_NOT_MADE = ("invalid", "rejected", "open", "not made")


@dataclass(frozen=True)
class ToolCall:
    """One call that the model asked for, and what became of it.

    `args` are those it was made with, a person's where one changed them; text where the model sent no JSON object.
    `state` is that of its row in the ledger (`done`, `failed`, `in_doubt`, `abandoned`, `in_flight`); without a row
    `rejected` by a person, `invalid` (no such tool, or arguments that do not fit), `open`, or `not made`.
    `sends` counts how often it was sent; a `pure` tool has no such count.
    """

    step: int
    tool: str
    args: dict[str, Any] | str
    effect: str
    state: str
    sends: int = 0
    edited: bool = False
    result: str | None = None

    @property
    def made(self) -> bool:
        """Whether the tool's code was called."""
        return self.state not in _NOT_MADE

    def __str__(self) -> str:
        return f"{self.tool}({values(self.args)})"


def values(args: dict[str, Any] | str) -> str:
    """Return arguments as Python writes them, long ones cut."""
    if isinstance(args, str):
        return cut(repr(args))
    return ", ".join(f"{name}={cut(repr(value))}" for name, value in args.items())


def cut(text: str) -> str:
    """Return *text*, or as much of it as a message should have."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True)
class FinishedRun:
    """A run, read whole from the stack: one that has ended, or as `Running.look` finds it.

    `cost` is in US dollars, without the `unpriced` model calls, whose price is unknown. `steps` are rows of the
    effect ledger, model calls among them; `calls` the tool calls in the order in which the model asked.
    """

    run_id: str
    thread: str
    agent: str
    message: str
    state: str
    error: str | None
    text: str | None
    output: Any
    cost: float
    tokens: int
    rounds: int
    calls: list[ToolCall] = field(repr=False)
    steps: list[StepView] = field(repr=False)
    events: list[Event] = field(repr=False)
    approvals: list[ApprovalView] = field(repr=False)
    unpriced: int = 0

    @property
    def answer(self) -> Any:
        """The answer: text, or where the agent gives typed answers its JSON value.

        Raises:
            RunEnded: there is none; the message has the run's story.

        """
        __tracebackhide__ = True
        if self.text is None or self.state != "done":
            raise RunEnded(f"the run has no answer.\n{story(self)}", state=self.state)
        return self.output


async def look(handle: RunHandle) -> FinishedRun:
    """Read a run as it stands now."""
    status = await handle.status()
    events = await handle.recorded()
    steps = await handle.steps()
    approvals = await handle.approvals()
    definition = await handle.definition()
    replies = [event for event in events if event.kind == "replied"]
    messages = await _messages(handle, replies)
    text = None
    ended = next((event for event in reversed(events) if event.kind == "ended"), None)
    if ended is not None and ended.data.get("answer_seq"):
        body = (messages.get(int(ended.data["answer_seq"])) or _NONE).body or {}
        text = str(body.get("content") or "")
    return FinishedRun(
        run_id=handle.run_id,
        thread=handle.thread,
        agent=status.agent,
        message=status.message or "",
        state=status.state,
        error=status.error,
        text=text,
        output=read_output(definition, text) if text is not None else None,
        cost=status.cost_usd,
        unpriced=status.unpriced,
        tokens=status.tokens,
        rounds=status.rounds,
        calls=_calls(status, definition, replies, messages, steps, approvals),
        steps=steps,
        events=events,
        approvals=approvals,
    )


_NONE = MessageView(seq=0, role="", run_id="", at=datetime.min)


async def _messages(handle: RunHandle, replies: list[Event]) -> dict[int, MessageView]:
    """Return the messages that the run wrote, by their place in the thread."""
    found: dict[int, MessageView] = {}
    after = min((int(event.data["seq"]) for event in replies), default=1) - 1
    while page := await handle.messages(after=after):
        found.update({message.seq: message for message in page if message.run_id == handle.run_id})
        after = page[-1].seq
    return found


def _calls(
    status: RunStatus,
    definition: AgentDefinition | None,
    replies: list[Event],
    messages: dict[int, MessageView],
    steps: list[StepView],
    approvals: list[ApprovalView],
) -> list[ToolCall]:
    effects = {tool.name: tool.effect for tool in definition.tools} if definition is not None else {}
    rows = {row.step_no: row for row in steps}
    asked = {approval.step_no: approval for approval in approvals}
    found = []
    for event in replies:
        seq = int(event.data["seq"])
        told = ((messages.get(seq) or _NONE).body or {}).get("tool_calls") or []
        for number, call in enumerate(event.data.get("calls") or []):
            step = int(call["step"])
            row, approval = rows.get(step), asked.get(step)
            slot = messages.get(seq + 1 + number) or _NONE  # slots follow the reply, in its order
            text = told[number]["function"]["arguments"] if number < len(told) else call.get("args") or ""
            edited = approval is not None and approval.edited
            found.append(
                ToolCall(
                    step=step,
                    tool=str(call["tool"]),
                    args=approval.args if approval is not None and edited else _parsed(text),
                    effect=row.effect if row is not None else effects.get(str(call["tool"]), "once"),
                    state=_state(status, row, approval, slot),
                    sends=row.sends if row is not None else 0,
                    edited=edited,
                    result=str(slot.body.get("content")) if slot.body is not None else None,
                )
            )
    return found


def _parsed(text: str) -> dict[str, Any] | str:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _state(status: RunStatus, row: StepView | None, approval: ApprovalView | None, slot: MessageView) -> str:
    if row is not None:
        return row.state
    if approval is not None and approval.state == "rejected":
        return "rejected"
    if slot.body is None:
        return "open" if not status.ended else "not made"
    return "invalid" if str(slot.body.get("content") or "").startswith("error") else "not made"


def story(run: FinishedRun) -> str:
    """Return what happened in a run, for people: how it ended, and each call with what became of it."""
    why = f": {run.error}" if run.error else ""
    cost = f"${run.cost:.4f}" if not run.unpriced else f"${run.cost:.4f} + $?" if run.cost else "$?"
    head = (
        f"Run {run.run_id[:8]} of {run.agent}, {run.state}{why} "
        f"({run.rounds} round{'s' * (run.rounds != 1)}, {run.tokens} tokens, {cost})"
    )
    lines = [head, f"  asked:   {cut(run.message)!r}"]
    lines += [f"  step {call.step:>3}  {line(call)}" for call in run.calls] or ["  (the model called no tool)"]
    if run.text is not None:
        lines.append(f"  answer:  {cut(run.text)!r}")
    return "\n".join(lines)


def line(call: ToolCall) -> str:
    """Return one call in a line, with what became of it."""
    told = [call.effect, call.state]
    if call.sends > 1:
        told.append(f"sent {call.sends} times")
    if call.edited:
        told.append("arguments changed by a person")
    result = f" → {cut(call.result)!r}" if call.result is not None else ""
    return f"{call}  [{', '.join(told)}]{result}"
