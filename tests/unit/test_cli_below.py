"""Lines about agents that are asked: who did what at which level, and what waits for a person there."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from holdfast.cli.screen import Screen
from holdfast.contracts import Event


def event(run_id: str, kind: str, /, **data: Any) -> Event:
    """Return an event."""
    return Event(run_id=run_id, seq=1, kind=kind, at=datetime.now(UTC), data=data)


def shown(*events: Event) -> str:
    """Return what the screen shows of these events."""
    console = Console(file=io.StringIO(), record=True, width=110)
    screen = Screen(console, live=False)
    for each in events:
        screen.show(each)
    return console.export_text()


def test_a_tree_is_shown_with_names_of_who_speaks() -> None:
    """A child's calls are led by its name, a grandchild's by both; its plain replies and results are left out."""
    text = shown(
        event("top", "accepted", agent="boss"),
        event("top", "child_started", run_id="one", agent="middle", thread="t1", step=2),
        event("one", "accepted", agent="middle"),
        event("one", "replied", calls=[{"step": 3, "tool": "leaf", "args": '{"message": "look"}'}], text="hidden"),
        event("one", "child_started", run_id="two", agent="leaf", thread="t2", step=3),
        event("two", "replied", calls=[{"step": 4, "tool": "pey", "args": "{}", "error": "there is no tool 'pey'"}]),
        event("two", "approval_requested", step=4, tool="pay", args='{"amount": 3}'),
        event("two", "approval_decided", step=4, tool="pay", approve=True, actor="ann"),
        event("two", "tool_done", step=4, tool="pay", status="error", preview="refused"),
        event("two", "ended", state="failed", error="no model"),
        event("one", "child_ended", run_id="two", agent="leaf", state="failed", tokens=5, cost_usd=0.0),
        event("one", "ended", state="done"),
        event("top", "child_ended", run_id="one", agent="middle", state="done", tokens=1200, cost_usd=0.5),
        event("top", "handed_off", agent="billing", before="boss"),
    )
    for part in (
        "↓ asked middle",
        'middle  leaf(message="look")',
        "middle  asked leaf",
        "middle / leaf: approval needed: pay(amount=3)",
        "middle / leaf  not made: there is no tool 'pey'",
        "middle / leaf: pay approved by ann",
        "middle / leaf  pay  refused",
        "middle / leaf: no model",
        "leaf gave no answer: failed",
        "↑ middle answered",
        "1,200 tokens",
        "handed over to billing",
    ):
        assert part in text, text
    assert "hidden" not in text


def test_the_next_run_on_the_same_screen_is_no_child() -> None:
    """What nobody was seen to ask is shown as a run of its own."""
    text = shown(event("a" * 8, "accepted", agent="boss"), event("b" * 8, "accepted", agent="boss"))
    assert text.count("run ") == 2
