"""What the workflow decides by itself after each model call: budget and loop guard, pure functions of its state."""

from __future__ import annotations

import hashlib

from holdfast.contracts import Run

__all__ = ["LOOP_LIMIT", "budget_spent", "count_repeat"]

LOOP_LIMIT = 3  # the same calls with the same arguments, so often running, end a run


def budget_spent(run: Run) -> str | None:
    """Say which limit is reached, or None while another round may begin."""
    budget = run.budget
    if budget.rounds is not None and run.rounds >= budget.rounds:
        return f"{run.rounds} of {budget.rounds} rounds are used"
    if budget.tokens is not None and run.tokens >= budget.tokens:
        return f"{run.tokens} of {budget.tokens} tokens are used"
    if budget.usd is not None and run.cost_usd >= budget.usd > 0:
        return f"{run.cost_usd:.4f} of {budget.usd:.4f} USD are spent"
    if budget.usd == 0 and run.cost_usd > 0:
        return f"{run.cost_usd:.4f} USD are spent and the budget is 0"
    return None


def count_repeat(run: Run) -> str | None:
    """Count how often the round under way repeats the last one; say so when it is once too often."""
    signature = hashlib.sha256("\n".join(f"{call.tool} {call.args_hash}" for call in run.calls).encode()).hexdigest()
    run.loop_count = run.loop_count + 1 if signature == run.loop_hash else 1
    run.loop_hash = signature
    if run.loop_count < LOOP_LIMIT:
        return None
    tools = ", ".join(sorted({call.tool for call in run.calls}))
    return f"{tools} was called with the same arguments {run.loop_count} times running"
