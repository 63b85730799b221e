"""The screen of the command line, drawn from recorded events."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from holdfast.cli.screen import Screen
from holdfast.cli.show import Detail, render_detail, render_runs
from holdfast.contracts import Event
from holdfast.views import Answer, ApprovalView, RunStatus, RunSummary, StepDetail, Usage

RUN = "1a80a918-8887-5bb8-92e3-b33d7b5fc885"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(number: int, kind: str, **data: Any) -> Event:
    """Make a recorded event."""
    return Event(run_id=RUN, seq=number, kind=kind, at=AT, data=data)


REPLIED = event(
    3,
    "replied",
    step=2,
    text="I look it up.",
    calls=[{"step": 3, "call_id": "c1", "tool": "order_status", "args": '{"order_id": "17"}'}],
    tokens_in=1200,
    tokens_out=56,
    cost_usd=0.0012,
    seconds=0.318,
    model="openai/gpt-5-mini",
    seq=2,
)
TOOL_DONE = event(
    4,
    "tool_done",
    step=3,
    call_id="c1",
    tool="order_status",
    status="done",
    preview='{"a":1}',
    bytes=4300,
    seconds=1.25,
)
ASKED = event(
    5,
    "approval_requested",
    step=5,
    call_id="c2",
    tool="refund",
    args='{"order_id": "17", "amount": 40}',
    args_hash="h",
)
ENDED = event(9, "ended", state="done", error=None, answer_seq=4, tokens=1256, cost_usd=0.0012, rounds=1, steps=4)


def drawn(*events: Event, width: int = 100) -> str:
    """Return what the screen writes for these events."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    screen = Screen(console, live=False)
    for item in events:
        screen.show(item)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_is_told_line_by_line() -> None:
    """Each event says who did what, how long it took and what it cost."""
    text = drawn(event(1, "accepted", agent="support"), event(2, "started"), REPLIED, TOOL_DONE, ENDED)
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines == [
        "  ● run 1a80a918  support",
        "  ○ I look it up.  openai/gpt-5-mini · 1,200 + 56 tokens · $0.0012 · 0.32 s",
        '  → order_status(order_id="17")',
        '  ✓ order_status  {"a":1}  1.2 s · 4.3 kB',
        "  ■ done  1 round · 4 steps · 1,256 tokens · $0.0012",
    ]


def test_an_approval_shows_the_call_as_it_will_be_made() -> None:
    """Who decides sees the tool and all of its arguments."""
    assert 'approval needed: refund(order_id="17", amount=40)' in drawn(ASKED)


def test_a_rejection_is_told_once() -> None:
    """The result of a rejected call repeats the reason, so it is left out."""
    rejected = event(6, "approval_decided", step=5, tool="refund", approve=False, reason="too much", actor="ann")
    result = event(7, "tool_done", step=5, tool="refund", status="error", preview="rejected: too much")
    assert drawn(ASKED, rejected, result).count("too much") == 1


def test_what_waits_for_a_person_comes_with_the_commands() -> None:
    """A call in doubt is shown with the exact lines that settle it."""
    words = ["--done", "--not-done", "--abandon"]
    text = drawn(event(4, "in_doubt", step=7, tool="refund", why="its worker was lost"))
    assert "its worker was lost" in text
    assert all(f"holdfast resolve 1a80a918 7 {word}" in text for word in words)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (event(1, "refused", error="no such agent"), "refused: no such agent"),
        (event(1, "merged", into="e159769f-9476-5d43-a2b5-205b780e0f5d"), "joined run e159769f"),
        (event(1, "joined", run_id=RUN, message_id="m"), "a steering message joined"),
        (event(1, "recalled", count=2), "remembered 2 things"),
        (event(1, "memory_unavailable", why="no worker"), "memory is unavailable"),
        (event(1, "compacted", from_seq=9, tokens=3000), "from message 9 on, 3,000 tokens"),
        (event(1, "approval_refused", step=5, call_id="c", why="no such field"), "no such field"),
        (event(1, "resolved", step=5, outcome="not_done", actor="ann"), "resolved by ann: not done"),
        (event(1, "ended", state="over_budget", error="0.50 USD are spent"), "over budget: 0.50 USD are spent"),
        (
            event(1, "ended", state="done", tokens=10, cost_usd=0.5, tokens_below=1000, cost_usd_below=1.0),
            "1,010 tokens · $1.50 · sub-agents included",
        ),
        (event(1, "invented", x=1), "invented"),
    ],
)
def test_every_kind_of_event_is_shown(item: Event, words: str) -> None:
    """No kind is silent, not even one that this version does not know."""
    assert words in drawn(item)


def test_what_a_model_says_cannot_drive_the_terminal() -> None:
    """Escape sequences in model text, tool results and errors arrive as plain characters."""
    evil = "\x1b]0;owned\x07\x1b[2J"
    text = drawn(
        event(1, "replied", step=1, text=evil, calls=[{"step": 2, "tool": "t", "args": evil}], model="m"),
        event(2, "tool_done", step=2, tool="t", status="error", preview=evil),
        event(3, "ended", state="failed", error=evil),
    )
    assert "\x1b" not in text
    assert "\x07" not in text


def test_tokens_are_shown_only_where_something_can_move() -> None:
    """Without a terminal the words under way are left out; the reply brings them."""
    assert drawn(event(2, "tokens", step=2, generation=1, text="Ord")) == ""


def summary(**more: Any) -> RunSummary:
    """Make one line of the list of runs."""
    given = {"run_id": RUN, "thread": "customer-42", "agent": "support", "state": "done", "created_at": AT}
    return RunSummary.model_validate({**given, **more})


def test_the_list_of_runs_fits_a_narrow_terminal() -> None:
    """At 80 columns no line is broken and no id is cut."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    rows = [
        summary(ended_at=AT + timedelta(seconds=3), cost_usd=0.0123),
        summary(state="waiting", approvals=2, in_doubt=1, thread="t" * 100, agent="a" * 100),
        summary(state="failed", error="x " * 200),
    ]
    console.print(render_runs(rows, console.width))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4
    assert all(line.startswith(("run ", "1a80a918")) and len(line) <= 80 for line in lines)
    assert "3 wait for you" in lines[2]


def test_a_run_in_detail_shows_ledger_and_events_together() -> None:
    """Steps have their arguments, state, result, tokens and cost; what waits has its commands."""
    model = StepDetail(
        run_id=RUN,
        step_no=2,
        kind="model",
        tool="model",
        state="done",
        model="openai/gpt-5-mini",
        tokens_in=1200,
        tokens_out=56,
        reply={"content": "I look it up", "tool_calls": [{"function": {"name": "order_status", "arguments": "{}"}}]},
    )
    call = StepDetail(
        run_id=RUN,
        step_no=3,
        kind="tool",
        tool="order_status",
        state="in_doubt",
        args={"order_id": "17"},
        error="its worker was lost",
    )
    status = RunStatus(
        run_id=RUN,
        thread="customer-42",
        agent="support",
        state="waiting",
        message="Where is order 17?",
        usage=Usage(input_tokens=1200, output_tokens=56),
        created_at=AT,
        rounds=1,
    )
    asked = ApprovalView(
        step_no=5, call_id="c2", tool="refund", args_hash="h", state="pending", args={"amount": 40}, asked_at=AT
    )
    detail = Detail(
        status,
        [model, call],
        [asked],
        [REPLIED],
        Answer(run_id=RUN, thread="customer-42", output="It is here.", text="It is here.", state="done"),
        "http://ui/x",
    )
    console = Console(file=io.StringIO(), width=120, color_system=None)
    render_detail(detail, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for expected in (
        "model openai/gpt-5-mini",
        "I look it up → order_status",
        "1,200 + 56",
        'order_status(order_id="17")',
        "in doubt",
        "step 5 waits for approval",
        "refund(amount=40)",
        "holdfast approve 1a80a918 5",
        "holdfast resolve 1a80a918 3 --not-done",
        "its worker was lost",
        "It is here.",
        "http://ui/x",
    ):
        assert expected in text
    assert detail.as_json()["steps_taken"][1]["state"] == "in_doubt"
