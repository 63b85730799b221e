"""Assertions on runs: what counts as a call, and what a failure tells."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import RunEnded
from holdfast.testing import FinishedRun, ToolCall, assert_called, effects, steps


def finished(*calls: ToolCall, **more: Any) -> FinishedRun:
    """Return a run with these calls."""
    given: dict[str, Any] = {
        "run_id": "0d9be9d2-13e5-5b63-8f44-1f5cf35b8a3f",
        "thread": "t",
        "agent": "support",
        "message": "My money back",
        "state": "done",
        "error": None,
        "text": "Done.",
        "output": "Done.",
        "cost": 0.01,
        "tokens": 10,
        "rounds": 2,
        "steps": [],
        "events": [],
        "approvals": [],
    }
    return FinishedRun(calls=list(calls), **{**given, **more})


LOOK = ToolCall(3, "order_status", {"order_id": "17"}, "pure", "done", result="damaged")
PAID = ToolCall(5, "refund", {"order_id": "17", "amount": 40.0}, "once", "done", sends=1, result="refunded")
REJECTED = ToolCall(7, "refund", {"order_id": "18", "amount": 9.0}, "once", "rejected")
DOUBT = ToolCall(9, "pay", {"times": 2}, "verifiable", "in_doubt", sends=2)
FAILED = ToolCall(11, "pay", {"times": 1}, "once", "failed", sends=1)


def test_calls_that_reached_the_tool_count() -> None:
    """Arguments not named may be anything; what was rejected was not called; comparisons are those of the test."""
    run = finished(LOOK, PAID, REJECTED, DOUBT, FAILED)
    assert assert_called(run, "refund") == [PAID]
    assert assert_called(run, "refund", amount=pytest.approx(40.0000001)) == [PAID]
    assert_called(run, "refund", times=0, order_id="18")
    assert_called(run, "pay", times=2)
    assert_called(run, "pay", times=None)
    assert_called(run, "pay", where={"times": 2})
    assert_called(run, "nothing", times=0)


def test_effects_are_what_may_have_changed_something() -> None:
    """A call in doubt may; a pure, a rejected or a failed one did not."""
    assert effects(finished(LOOK, PAID, REJECTED, DOUBT, FAILED)) == [PAID, DOUBT]
    assert steps(finished()) == []


@pytest.mark.parametrize(
    ("tool", "more", "said"),
    [
        ("refund", {"amount": 20.0}, "refund(amount=20.0) was called 0 times, expected once."),
        ("refund", {"amount": 20.0}, "Step 5 does not count: amount was 40.0, expected 20.0."),
        ("refund", {"currency": "EUR"}, "Step 5 does not count: currency was not given (expected 'EUR')."),
        ("refund", {"times": 2}, "refund was called once, expected 2 times."),
        ("refund", {"times": 2}, "Step 7 does not count: it never reached the tool (rejected)."),
        ("order_status", {"times": 0}, "order_status was called once, expected 0 times."),
        ("mail", {}, "It called order_status, refund."),
        ("mail", {"times": None}, "mail was called 0 times, expected at least once."),
        ("mail", {}, "step   5  refund(order_id='17', amount=40.0)  [once, done] → 'refunded'"),
    ],
)
def test_a_failure_tells_what_did_happen(tool: str, more: dict[str, Any], said: str) -> None:
    """Each call with what became of it, and why it does not count."""
    with pytest.raises(AssertionError) as failed:
        assert_called(finished(LOOK, PAID, REJECTED), tool, **more)
    assert said in str(failed.value)


def test_a_run_without_answer_tells_why() -> None:
    """Whoever asks for the answer reads the run's state and story."""
    run = finished(state="over_budget", error="0.20 of 0.10 USD spent", text=None, output=None, rounds=1)
    with pytest.raises(
        RunEnded, match=r"(?s)over_budget: 0\.20 of 0\.10 USD spent \(1 round, .*called no tool"
    ) as ended:
        _ = run.answer
    assert ended.value.state == "over_budget"


def test_long_values_are_cut() -> None:
    """A message stays readable with a call of 10 MB."""
    run = finished(ToolCall(1, "write", {"text": "x" * 10_000_000}, "once", "done", result="y" * 10_000_000))
    with pytest.raises(AssertionError) as failed:
        assert_called(run, "write", text="short")
    assert len(str(failed.value)) < 1500
