"""Claims a call in the ledger: the first thing done for every call with an effect, also for one whose tool is gone."""

from __future__ import annotations

import asyncio

from temporalio.exceptions import ApplicationError

from holdfast.activities.deps import Deps, Here
from holdfast.activities.outcome import Outcome, commit_outcome, recorded_outcome
from holdfast.advice import DO_NOT_REPEAT
from holdfast.contracts import RunState, ToolOutcome, ToolStep
from holdfast.errors import StaleWriter
from holdfast.memory import events, ledger, runs
from holdfast.memory.database import Connection
from holdfast.memory.ledger import Claim, Step

__all__ = ["TryAgain", "emit_doubt", "settled_by", "take"]

_ABANDONED = (
    "abandoned: it is unknown whether this call took effect, and a person decided to continue without it. "
    + DO_NOT_REPEAT
)


class TryAgain(ApplicationError):
    """Temporal shall try this call again; the ledger knows how it stands."""

    def __init__(self, why: str) -> None:
        super().__init__(why, type="TryAgain")


async def emit_doubt(conn: Connection, step: Step, why: str) -> int:
    """Say that a call is in doubt, and that its run waits for a person; return the event's number."""
    await runs.set_state(conn, step.run_id, RunState.WAITING)
    return await events.emit(conn, step.run_id, "in_doubt", step=step.step_no, tool=step.tool, why=why)


async def take(deps: Deps, at: Here, inp: ToolStep, step: Step) -> Claim:
    """Claim the call, waiting out another owner's lease; the claim is any kind but `wait` and `over`.

    Raises:
        TryAgain: this worker is stopping and claims nothing more.
        StaleWriter: the run has ended, and what is recorded of the call is no outcome.

    """
    lease = deps.settings.scaled(deps.settings.lease)
    while True:
        if deps.draining.is_set():
            raise TryAgain("the worker is stopping and claims nothing more")
        seq = None
        async with deps.pool.acquire() as conn, conn.transaction():
            claim = await ledger.claim(conn, step, at.owner, lease)
            if claim.newly is not None:
                seq = await emit_doubt(conn, step, claim.newly)
        if seq is not None:
            deps.notifier.poke(step.run_id, seq)
        if claim.kind == "over":
            raise StaleWriter(f"run {step.run_id} has ended, so {step.tool} is not called for it any more")
        if claim.kind != "wait":
            return claim
        await asyncio.sleep(min(max(claim.seconds, 0.05), lease))


async def settled_by(deps: Deps, at: Here, inp: ToolStep, step: Step, claim: Claim) -> ToolOutcome | None:
    """Return what the claim says has become of the call, or None if it is this attempt's to make."""
    if claim.kind == "done":
        return await recorded_outcome(deps, at, inp, step.key, claim.result or {})
    if claim.kind == "abandoned":
        return await commit_outcome(deps, at, inp, Outcome(_ABANDONED, status="abandoned"))
    if claim.kind == "in_doubt":
        return ToolOutcome(status="in_doubt", preview=step.tool)
    return None
