"""Shows runs: the list, one in detail, its page in the Web UI. The command line uses it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.cli.columns import Column, fitted
from holdfast.cli.screen import STATE_STYLE
from holdfast.cli.text import ago, call_text, clean, clock, cost, duration, one_line, output_text, resolve_lines, short
from holdfast.errors import RunEnded
from holdfast.views import Answer, ApprovalView, RunStatus, RunSummary, StepView

if TYPE_CHECKING:
    from holdfast.client import RunHandle
    from holdfast.contracts import Event

__all__ = ["Detail", "read_detail", "render_detail", "render_runs"]

_LEDGER_STYLE = {
    "done": "green",
    "in_flight": "cyan",
    "in_doubt": "bold yellow",
    "retry_ok": "cyan",
    "abandoned": "yellow",
}


def _state(state: str) -> Text:
    return Text(state.replace("_", " "), style=STATE_STYLE.get(state, "red"))


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
                cost(run.cost_usd),
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
        steps: list[StepView],
        approvals: list[ApprovalView],
        events: list[Event],
        answer: Answer | None,
        ui: str | None,
        children: list[RunSummary] | None = None,
    ) -> None:
        self.status = status
        self.steps = steps
        self.approvals = approvals
        self.events = events
        self.answer = answer
        self.ui = ui
        self.children = children or []

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
            "children": [child.model_dump(mode="json") for child in self.children],
        }


async def read_detail(run: RunHandle) -> Detail:
    """Read a run as it stands now."""
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
    return Detail(status, await run.steps(), await run.approvals(), events, answer, run.ui_url(), await run.children())


def render_detail(detail: Detail, console: Console) -> None:
    """Write the run's page: head, steps, what waits for a person, decisions, answer."""
    status = detail.status
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    title = Text(status.run_id, style="bold")
    title.append("  ")
    title.append(_state(status.state))
    head.add_row("run", title)
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
    times = f"accepted {clock(status.created_at)}"
    if status.created_at and status.ended_at:
        times += f", took {duration((status.ended_at - status.created_at).total_seconds())}"
    head.add_row("time", times)
    usage = status.usage
    rounds = f"{status.rounds} round{'s' if status.rounds != 1 else ''}"
    head.add_row(
        "spent",
        f"{cost(status.cost_usd)}, {usage.input_tokens:,} + {usage.output_tokens:,} tokens in {rounds}",
    )
    if status.tokens_below:
        below = f"{cost(status.cost_usd_below)}, {status.tokens_below:,} tokens"
        head.add_row("", f"{below} by the agents it asked")
    if detail.ui:
        head.add_row("Web UI", Text(detail.ui, style="cyan"))
    console.print(head)
    if detail.steps or detail.events:
        console.print()
        console.print(_steps(detail, console.width))
    if detail.children:
        console.print(Text("\nasked", style="dim"))
        console.print(render_runs(detail.children, console.width))
    _waiting(detail, console)
    for approval in detail.approvals:
        if approval.state in ("approved", "rejected"):
            by = f" by {approval.actor}" if approval.actor else ""
            line = f"step {approval.step_no} {approval.tool} {approval.state}{by} at {clock(approval.decided_at)}"
            line += ", with edited arguments" if approval.edited else ""
            line += f": {approval.reason}" if approval.reason else ""
            console.print(Text(f"\n{clean(line)}", style="dim"))
    if detail.answer is not None:
        console.print()
        console.print(Text(clean(output_text(detail.answer.output))))


def _waiting(detail: Detail, console: Console) -> None:
    run_id = detail.status.run_id
    for approval in detail.approvals:
        if approval.state == "pending":
            console.print(Text(f"\nstep {approval.step_no} waits for approval", style="bold yellow"))
            console.print(Text(f"  {call_text(approval.tool, approval.args, 2000)}"))
            console.print(Text(f"  holdfast approve {short(run_id)} {approval.step_no}", style="dim"))
            console.print(Text(f"  holdfast reject {short(run_id)} {approval.step_no} --reason '…'", style="dim"))
    for number, tool, why in detail.waiting_steps():
        console.print(Text(f"\nstep {number}, {tool}, is in doubt: {clean(why)}", style="bold yellow"))
        lines = resolve_lines(run_id, number)
        longest = max(len(command) for command, _ in lines)
        for command, meaning in lines:
            console.print(Text(f"  {command.ljust(longest)}   {meaning}", style="dim"), soft_wrap=True)


_STEPS = (
    Column("step", right=True),
    Column("what", least=28),
    Column("class", drop=2),
    Column("state"),
    Column("fence", right=True, drop=4),
    Column("tokens", right=True, drop=3),
    Column("cost", right=True, drop=1),
    Column("time", right=True, drop=5),
)


def _steps(detail: Detail, width: int) -> Table:
    """Return the ledger's rows beside what the events say of them: arguments, tokens, cost, time."""
    calls: dict[int, Any] = {}
    told: dict[int, dict[str, Any]] = {}
    for event in detail.events:
        if event.kind == "replied":
            told[int(event.data["step"])] = event.data
            calls.update({int(call["step"]): call for call in event.data.get("calls") or []})
        elif event.kind == "tool_done":
            told[int(event.data["step"])] = event.data
    for approval in detail.approvals:
        if approval.edited and approval.step_no in calls:  # what was called, not what was asked for
            calls[approval.step_no] = {**calls[approval.step_no], "args": approval.args}
    pending = {approval.step_no for approval in detail.approvals if approval.state == "pending"}
    shown: set[int] = set()
    rows: list[tuple[int, tuple[Any, ...]]] = []
    for step in detail.steps:
        shown.add(step.step_no)
        data = told.get(step.step_no, {})
        what = _what(step.tool, calls.get(step.step_no), data)
        state = Text(step.state.replace("_", " "), style=_LEDGER_STYLE.get(step.state, "red"))
        if data.get("status") == "error":
            state.append(" error", style="red")
        tokens = f"{data['tokens_in']:,} + {data['tokens_out']:,}" if "tokens_in" in data else ""
        spent = cost(data["cost_usd"]) if "cost_usd" in data else ""
        cells = (what, step.effect, state, str(step.fence), tokens, spent, duration(data.get("seconds")))
        rows.append((step.step_no, cells))
    for number, call in calls.items():  # asked for by the model, not in the ledger: waiting, rejected or not begun
        if number not in shown:
            data = told.get(number, {})
            state = Text(str(data.get("status", "not made" if call.get("error") else "not begun")), style="dim")
            if number in pending:
                state = Text("to approve", style="bold yellow")
            rows.append((number, (_what(call["tool"], call, data), "", state, "", "", "", "")))
    return fitted(_STEPS, [(str(number), *cells) for number, cells in sorted(rows, key=lambda row: row[0])], width)


def _what(tool: str, call: Any, data: dict[str, Any]) -> str:
    if call is not None:
        return call_text(tool, call.get("args"), 160)
    return f"{tool} {data['model']}" if data.get("model") else tool


async def watch_end(run: RunHandle, seconds: float) -> RunStatus:
    """Return how the run stands once it has ended, or after so long."""
    try:
        async with asyncio.timeout(seconds):
            async for _ in run.events():
                pass
    except TimeoutError:
        pass
    return await run.status()
