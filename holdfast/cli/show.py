"""Shows runs: the list, one in detail, its page in the Web UI. The command line uses it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.cli.columns import Column, fitted
from holdfast.cli.screen import STATE_STYLE
from holdfast.cli.steps import render_steps
from holdfast.cli.text import (
    WHOLE,
    ago,
    call_text,
    clean,
    clock,
    cost,
    decide_lines,
    duration,
    one_line,
    output_text,
    resolve_lines,
    short,
    waiting_commands,
    waiting_line,
)
from holdfast.errors import HoldfastError, RunEnded
from holdfast.views import Answer, ApprovalView, RunStatus, RunSummary, StepDetail, WaitingCall

if TYPE_CHECKING:
    from holdfast.client import RunHandle
    from holdfast.contracts import Event

__all__ = ["Detail", "read_detail", "render_detail", "render_runs"]


def _state(state: str) -> Text:
    return Text(state.replace("_", " "), style=STATE_STYLE.get(state, "red"))


_LABEL = 8  # characters
_RUNS = (
    Column("run"),
    Column("state", least=9),
    Column("agent", least=8),
    Column("thread", drop=3, least=8),
    Column("cost", right=True, drop=2),
    Column("took", right=True, drop=5),
    Column("started", drop=4),
    Column("tokens", right=True, drop=6),
    Column("", drop=7, least=20),
)


def render_runs(found: list[RunSummary], width: int = 80) -> Table:
    """Return the table of runs, newest first; on a wide screen with tokens and errors."""
    rows: list[list[str | Text]] = []
    for run in found:
        took = (run.ended_at - run.created_at).total_seconds() if run.ended_at and run.created_at else None
        rows.append(
            [
                Text(short(run.run_id), style="bold"),
                _waiting_for(run),
                one_line(run.agent, 24),
                one_line(f"↳ {short(run.parent_run_id)}" if run.parent_run_id else run.thread, 24),
                cost(run.cost_usd, run.unpriced),
                duration(took),
                ago(run.created_at),
                f"{run.tokens:,}",
                Text(one_line(run.error or "", 200), style="dim"),
            ]
        )
    return fitted(_RUNS, rows, width)


def _waiting_for(run: RunSummary) -> Text:
    """Return the run's state, or what it waits for."""
    if run.approvals and run.in_doubt:
        return Text(f"{run.approvals + run.in_doubt} wait for you", style="bold yellow")
    if run.approvals or run.in_doubt:
        what = f"{run.approvals} to approve" if run.approvals else f"{run.in_doubt} in doubt"
        return Text(what, style="bold yellow")
    return _state(run.state)


class Detail:
    """All there is to know about a run, read once."""

    def __init__(
        self,
        status: RunStatus,
        steps: list[StepDetail],
        approvals: list[ApprovalView],
        events: list[Event],
        answer: Answer | None,
        ui: str | None,
        children: list[RunSummary] | None = None,
        waiting: list[WaitingCall] | None = None,
        trouble: list[str] | None = None,
    ) -> None:
        self.status = status
        self.steps = steps
        self.approvals = approvals
        self.events = events
        self.answer = answer
        self.ui = ui
        self.children = children or []
        self.waiting = waiting or []
        self.trouble = trouble or []

    def waiting_steps(self) -> list[tuple[int, str, str]]:
        """Return (step, tool, why) of what waits for `holdfast resolve`."""
        return [
            (step.step_no, step.tool, step.error or "it was sent, and its outcome is not known")
            for step in self.steps
            if step.state == "in_doubt"
        ]

    def as_json(self) -> dict[str, Any]:
        """Return it all as JSON-friendly values."""
        return {
            **self.status.model_dump(mode="json"),
            "output": self.answer.output if self.answer else None,
            "ui": self.ui,
            "steps_taken": [step.model_dump(mode="json") for step in self.steps],
            "approvals_asked": [approval.model_dump(mode="json") for approval in self.approvals],
            "waiting": [call.model_dump(mode="json") for call in self.waiting],
            "children": [child.model_dump(mode="json") for child in self.children],
            "trouble": self.trouble,
        }


async def read_detail(run: RunHandle, *, whole: bool = False) -> Detail:
    """Read a run as it stands now; with *whole*, long results in full."""
    status = await run.status()
    events: list[Event] = []
    answer = None
    if status.state != "accepted":
        events = await run.recorded()
    if status.ended:
        try:
            answer = await run.result(timeout=10.0)
        except (RunEnded, TimeoutError):
            answer = None
    return Detail(
        status,
        await run.trace(whole=whole),
        await run.approvals(),
        events,
        answer,
        run.ui_url(),
        await run.children(),
        await run.waiting(),
        await _trouble(run, status),
    )


async def _trouble(run: RunHandle, status: RunStatus) -> list[str]:
    """Return what holds a run up now; PostgreSQL has the rest of it also while Temporal is away."""
    if status.ended or status.state == "queued":
        return []
    try:
        return await run.trouble()
    except HoldfastError as exc:
        return [str(exc)]


def render_detail(detail: Detail, console: Console, *, lines: bool = False) -> None:
    """Write the run's page: head, steps, what waits for a person, decisions, answer.

    With *lines*, the result or error of each step has a line of its own.
    """
    status = detail.status
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", no_wrap=True, width=_LABEL)
    head.add_column(overflow="fold")
    title = Text(f"{'run':<{_LABEL}}  ", style="dim").append(status.run_id, style="not dim bold").append("  ")
    title.append(_state(status.state))
    if any(call.run_id != status.run_id for call in detail.waiting):
        title.append(", waits for you below", style="bold yellow")
    console.print(title, soft_wrap=True)
    if status.state == "accepted":
        head.add_row("", "its message was taken; no worker has stored it yet")
    head.add_row("agent", f"{status.agent}, thread {status.thread}")
    if status.message:
        head.add_row("message", one_line(status.message, 300))
    if status.parent_run_id:
        head.add_row("asked by", f"run {status.parent_run_id}")
    if status.merged_into:
        head.add_row("joined", f"run {status.merged_into}")
    if status.error:
        head.add_row("error", Text(clean(status.error), style="red"))
    for held_up in detail.trouble:
        head.add_row("held up", Text(clean(held_up), style="yellow"))
    times = f"accepted {clock(status.created_at)}"
    if status.created_at and status.ended_at:
        times += f", took {duration((status.ended_at - status.created_at).total_seconds())}"
    head.add_row("time", times)
    usage = status.usage
    rounds = f"{status.rounds} round{'s' if status.rounds != 1 else ''}"
    head.add_row(
        "spent",
        f"{cost(status.cost_usd, status.unpriced)}, "
        f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens in {rounds}",
    )
    if status.tokens_below:
        below = f"{cost(status.cost_usd_below, status.unpriced_below)}, {status.tokens_below:,} tokens"
        head.add_row("", f"{below} by the agents it asked")
    console.print(head)
    if detail.ui:  # in one piece, whatever the width: it is to be copied
        console.print(Text(f"{'Web UI':<{_LABEL}}  ", style="dim").append(detail.ui, style="cyan"), soft_wrap=True)
    if detail.steps:
        console.print()
        render_steps(detail.steps, console, lines=lines)
        name = short(status.run_id)
        hint = f"holdfast show {name} STEP shows one step in full"
        hint += "" if lines else f"; holdfast show {name} --steps shows the result under each step"
        console.print(Text(f"\n{hint}", style="dim"), soft_wrap=True)
    if detail.children:
        console.print(Text("\nasked", style="dim"))
        console.print(render_runs(detail.children, console.width))
    _waiting(detail, console)
    for approval in detail.approvals:
        if approval.state in ("approved", "rejected"):
            by = f" by {approval.actor}" if approval.actor else ""
            line = f"step {approval.step_no} {approval.tool} {approval.state}{by} at {clock(approval.decided_at)}"
            line += f": {approval.reason}" if approval.reason else ""
            console.print(Text(f"\n{clean(line)}", style="dim"))
            if approval.edited:
                for label, args in (("asked for", approval.asked_args), ("allowed  ", approval.args)):
                    text = Text(f"  {label}  {call_text(approval.tool, args, WHOLE)}", style="dim")
                    console.print(text, soft_wrap=True)
    for event in detail.events:
        if event.kind == "resolved":
            by = f" by {event.data['actor']}" if event.data.get("actor") else ""
            word = str(event.data.get("outcome", "")).replace("_", " ")
            line = f"step {event.data.get('step')} resolved{by} at {clock(event.at)}: {word}"
            console.print(Text(f"\n{clean(line)}", style="dim"))
        if event.kind == "stop_requested":
            by = f" by {event.data['actor']}" if event.data.get("actor") else ""
            reason = f": {event.data['reason']}" if event.data.get("reason") else ""
            console.print(Text(f"\n{clean(f'stop requested{by} at {clock(event.at)}{reason}')}", style="dim"))
    if detail.answer is not None:
        console.print()
        console.print(Text(clean(output_text(detail.answer.output))))


def _waiting(detail: Detail, console: Console) -> None:
    run_id = detail.status.run_id
    for approval in detail.approvals:
        if approval.state == "pending":
            console.print(Text(f"\nstep {approval.step_no} waits for approval", style="bold yellow"))
            console.print(
                Text(f"  {call_text(approval.tool, approval.args, WHOLE)}"), soft_wrap=True
            )  # else blanks are lost
            for command in decide_lines(run_id, approval.step_no):
                console.print(Text(f"  {command}", style="dim"), soft_wrap=True)
    for number, tool, why in detail.waiting_steps():
        console.print(Text(f"\nstep {number}, {tool}, is in doubt: {clean(why)}", style="bold yellow"))
        lines = resolve_lines(run_id, number)
        longest = max(len(command) for command, _ in lines)
        for command, meaning in lines:
            console.print(Text(f"  {command.ljust(longest)}   {meaning}", style="dim"), soft_wrap=True)
    for call in detail.waiting:
        if call.run_id != run_id:
            console.print(Text(f"\n{waiting_line(call, run_id)}", style="bold yellow"), soft_wrap=True)
            for command in waiting_commands(call):
                console.print(Text(f"  {command}", style="dim"), soft_wrap=True)


async def watch_end(run: RunHandle, seconds: float) -> RunStatus:
    """Return how the run stands once it has ended, or after so long."""
    try:
        async with asyncio.timeout(seconds):
            async for _ in run.events():
                pass
    except TimeoutError:
        pass
    return await run.status()
