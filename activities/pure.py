"""One call of a `pure` tool: it changes nothing, so it is not claimed, and the first attempt that ends is right."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import structlog

from holdfast.activities.calls import ToolAttempt
from holdfast.activities.claims import TryAgain
from holdfast.activities.hooks import see_call, see_result
from holdfast.activities.outcome import Outcome, commit_pure, recorded_outcome, shown
from holdfast.contracts import ToolOutcome
from holdfast.errors import ToolError, ToolResultInvalid
from holdfast.memory import ledger
from holdfast.tools.runner import NeverBegan

__all__ = ["run_pure"]

log = structlog.get_logger(__name__)


async def run_pure(attempt: ToolAttempt) -> ToolOutcome:
    """Run the tool and record what it came to; or return what is on record."""
    deps, at, inp, step = attempt.deps, attempt.at, attempt.inp, attempt.step
    async with deps.pool.acquire() as conn:
        done = await ledger.stored(conn, step.key)
    if done is not None:
        return await recorded_outcome(deps, at, inp, step.key, done[0])
    outcome = await see_call(attempt)
    if outcome is None:
        outcome = await see_result(attempt, await _outcome(attempt))
    return await commit_pure(deps, at, inp, step, outcome)


async def _outcome(attempt: ToolAttempt) -> Outcome:
    """Return what the tool came to.

    Raises:
        TryAgain: it was not started, which is no try of the tool's: overload costs time.
        Exception: it failed, and may be tried again.

    """
    started = time.monotonic()
    try:
        outcome = await Outcome.of(await attempt.runner.text(attempt.tool, await _value(attempt)))
    except TryAgain:
        raise
    except (ToolError, ToolResultInvalid) as exc:
        outcome = await Outcome.of(f"error: {exc}", status="error")
    except Exception as exc:
        said = shown(repr(exc))
        # Not Temporal's count of attempts: it has the outages in it.
        tries = await attempt.deps.insist(lambda conn: ledger.fail_pure(conn, attempt.step, attempt.at.owner, said))
        if tries is None or tries < attempt.declared.attempts:
            raise
        name = attempt.tool.name
        log.warning("a tool failed for good", tool=name, error=said)
        outcome = await Outcome.of(f"error: {name} failed {tries} times: {type(exc).__name__}: {exc}", status="error")
    outcome.seconds = time.monotonic() - started
    return outcome


async def _value(attempt: ToolAttempt) -> Any:
    runner, tool = attempt.runner, attempt.tool
    try:
        async with runner.seat(tool, within=attempt.seat_within) as seat:
            ctx = replace(attempt.ctx, deadline=time.monotonic() + attempt.declared.timeout)
            return await runner.run(tool, attempt.args, ctx, deadline=ctx.deadline, seat=seat)
    except NeverBegan as exc:
        raise TryAgain(str(exc)) from exc
