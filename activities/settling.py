"""How a call with an effect is settled: the row, the thread's slot and the event in one transaction."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog
from temporalio.service import RPCError

from holdfast.activities.body import Body
from holdfast.activities.calls import ToolAttempt
from holdfast.activities.claims import TryAgain, emit_doubt
from holdfast.activities.hooks import see_result
from holdfast.activities.outcome import Outcome, fill
from holdfast.contracts import ToolOutcome
from holdfast.errors import FencedOut, ToolResultInvalid
from holdfast.memory import ledger, runs, threads
from holdfast.memory.database import Connection
from holdfast.tools.outcomes import Outcome as Proof
from holdfast.tools.outcomes import classify

__all__ = ["Settling"]

log = structlog.get_logger(__name__)


class Settling:
    """What one attempt at a call knows of it, and writes down about it."""

    def __init__(self, attempt: ToolAttempt) -> None:
        self._attempt = attempt
        self._deps = deps = attempt.deps
        self._at = attempt.at
        self._inp = attempt.inp
        self._declared = declared = attempt.declared
        self._tool = attempt.tool
        lifetime = deps.settings.key_lifetime if declared.key_lifetime is None else declared.key_lifetime
        self._step = replace(
            attempt.step, settle=deps.settings.scaled(declared.settle), resend=max(lifetime - declared.timeout, 0.0)
        )
        self._fence = 0
        self._sends = 0
        self._unproven = False  # a request of a lost owner may have landed: that this one failed proves nothing
        self._body = Body(deps.leases, self._step.key, 0)

    async def _seen(self, outcome: Outcome) -> Outcome:
        return await see_result(self._attempt, outcome)

    async def _error(self, text: str) -> Outcome:
        """Return what the model reads of a call that failed."""
        return await self._seen(await Outcome.of(text, status="error"))

    async def _succeeded(self, value: Any) -> ToolOutcome:
        return await self._complete(await self._outcome(value))

    async def _outcome(self, value: Any) -> Outcome:
        try:
            outcome = await Outcome.of(await self._attempt.runner.text(self._tool, value))
        except ToolResultInvalid as exc:  # the effect stands all the same
            outcome = await Outcome.of(f"error: {exc}", status="error")
        return await self._seen(outcome)

    def _proof(self, exc: Exception) -> Proof:
        """Return what *exc* proves; the accepted definition and the loaded code must both declare `single_request`."""
        if self._unproven:
            return "unknown"
        single = self._declared.single_request and self._tool.definition.single_request
        return classify(exc, self._step.effect, single_request=single)

    async def _release(self, why: str | None = None) -> None:
        async with self._deps.pool.acquire() as conn:
            await ledger.release(conn, self._step.key, self._fence, why)

    async def _complete(self, outcome: Outcome) -> ToolOutcome:
        """Mark the row done and fill the slot, in one transaction."""
        outcome.seconds = time.monotonic() - self._attempt.started

        async def settle(conn: Connection) -> tuple[str | None, int | None]:
            before, seq = await self._complete_in(conn, outcome)
            if before is None:
                await ledger.late(conn, self._step.key, self._fence, self._at.owner, {"text": outcome.text[:2000]})
            return before, seq

        before, seq = await self._deps.insist(settle)
        if before is None:
            raise FencedOut(
                f"{self._tool.name}: another attempt has taken over this call, and that attempt's outcome counts"
            )
        await self._tell(before, seq)
        return outcome.contract()

    async def _complete_in(self, conn: Connection, outcome: Outcome) -> tuple[str | None, int | None]:
        result = outcome.contract().model_dump(mode="json")
        before = await ledger.complete(conn, self._step.key, self._fence, self._step.args_hash, result)
        return before, await self._fill_in(conn, outcome, before) if before is not None else None

    async def _fill_in(self, conn: Connection, outcome: Outcome, before: str) -> int | None:
        if before == "in_doubt":  # locks in one order, as everybody: the call, its thread, its run, its slot
            await threads.hold_for_writer(conn, self._at.tenant, self._at.thread, self._inp.writer, self._inp.scope)
            await runs.resume(conn, self._step.run_id)
        return await fill(conn, self._deps, self._at, self._inp, outcome)

    async def _fail(self, outcome: Outcome) -> ToolOutcome:
        """Mark the row failed for good: proved that nothing took effect. The model reads why."""
        outcome.seconds = time.monotonic() - self._attempt.started

        async def settle(conn: Connection) -> tuple[str | None, int | None]:
            result, step = outcome.contract().model_dump(mode="json"), self._step
            before = await ledger.fail_for_good(conn, step.key, self._fence, step.args_hash, outcome.text, result)
            return before, await self._fill_in(conn, outcome, before) if before is not None else None

        before, seq = await self._deps.insist(settle)
        if before is None:
            raise TryAgain("another attempt has taken over this call")
        await self._tell(before, seq)
        return outcome.contract()

    async def _doubt(self, why: str) -> ToolOutcome:
        async def settle(conn: Connection) -> tuple[bool, int | None]:
            held = await ledger.doubt(conn, self._step.key, self._fence, why)
            return held, await emit_doubt(conn, self._step, why) if held else None

        held, seq = await self._deps.insist(settle)
        if not held:
            raise TryAgain("another attempt has taken over this call")
        if seq is not None:
            self._deps.notifier.poke(self._step.run_id, seq)
        log.warning("a call is in doubt", tool=self._tool.name, why=why)
        return ToolOutcome(status="in_doubt", preview=self._tool.name)

    async def _tell(self, before: str, seq: int | None) -> None:
        """Wake whoever waits for this call: readers of events, and the workflow if it was in doubt."""
        if seq is not None:
            self._deps.notifier.poke(self._step.run_id, seq)
        if before == "in_doubt":
            with suppress(RPCError):  # the workflow also looks by itself
                handle = self._deps.client.get_workflow_handle(self._at.workflow_id)
                await handle.signal("settled", self._step.step_no)
