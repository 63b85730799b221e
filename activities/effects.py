"""One call with an effect, through the ledger: claim, guard and send, complete, or say that it is in doubt.

The protocol is the design's section 4. Whatever happens here, the effect takes place once or the call is surfaced.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import structlog
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from holdfast.activities.attempts import only_believed_lost, watch
from holdfast.activities.claims import TryAgain, emit_doubt, settled_by, take
from holdfast.activities.deps import Deps, Here
from holdfast.activities.hooks import see_call, see_result
from holdfast.activities.outcome import Outcome, fill
from holdfast.contracts import ToolDefinition, ToolOutcome, ToolStep
from holdfast.errors import FencedOut, ToolError, ToolNotStarted, ToolResultInvalid
from holdfast.memory import ledger, runs, threads
from holdfast.memory.database import STRUCK, UNAVAILABLE, Connection
from holdfast.memory.ledger import Claim, Step
from holdfast.secrets import mask
from holdfast.tools.context import ToolContext
from holdfast.tools.outcomes import Outcome as Proof
from holdfast.tools.outcomes import classify
from holdfast.tools.runner import NotBegun, ToolRunner, invoke
from holdfast.tools.threads import Seat
from holdfast.tools.tool import AnyTool

__all__ = ["EffectCall"]

log = structlog.get_logger(__name__)


class EffectCall:
    """One attempt at one call. Its owner is this attempt alone, so another attempt is always another owner."""

    def __init__(
        self,
        deps: Deps,
        at: Here,
        inp: ToolStep,
        step: Step,
        declared: ToolDefinition,
        tool: AnyTool,
        args: dict[str, Any],
        ctx: ToolContext,
    ) -> None:
        self._deps = deps
        self._at = at
        self._inp = inp
        lifetime = deps.settings.key_lifetime if declared.key_lifetime is None else declared.key_lifetime
        self._step = replace(
            step, settle=deps.settings.scaled(declared.settle), resend=max(lifetime - declared.timeout, 0.0)
        )
        self._declared = declared
        self._tool = tool
        self._args = args
        self._ctx = ctx
        self._fence = 0
        self._sends = 0
        self._unproven = False  # a request of a lost owner may have landed: that this one failed proves nothing
        self._started = time.monotonic()

    @property
    def _runner(self) -> ToolRunner:
        if self._deps.runner is None:
            raise ApplicationError("this worker runs no tools", type="ConfigurationError")
        return self._deps.runner

    @property
    def _agent(self) -> str:
        return self._deps.definitions[self._inp.definition].name  # read before the call

    async def _seen(self, outcome: Outcome) -> Outcome:
        return await see_result(self._deps, self._at, self._inp, self._agent, self._args, outcome)

    async def run(self) -> ToolOutcome:
        """Carry the call as far as it goes."""
        claim = await take(self._deps, self._at, self._inp, self._step)
        settled = await settled_by(self._deps, self._at, self._inp, self._step, claim)
        if settled is not None:
            return settled
        self._fence, self._sends, self._unproven = claim.fence, claim.sends, claim.unproven
        work = asyncio.create_task(self._carry_out(claim))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._deps.keep(work)
            if self._only_believed_lost():
                log.info("Temporal gave this attempt up and nobody asked to: the call goes on", tool=self._tool.name)
                self._deps.spawn(watch(self._deps, self._at, work, self._pointless))
            else:
                work.cancel()
            raise

    async def _carry_out(self, claim: Claim) -> ToolOutcome:
        with self._deps.leases.hold(self._step.key, self._fence):
            if claim.kind == "look":
                found = await self._look()
                if found is not None:
                    return found
                self._unproven = False
            if not self._sends:  # a call that was let through once is carried to its end
                refused = await see_call(self._deps, self._at, self._inp, self._agent, self._args, self._ctx)
                if refused is not None:
                    return await self._fail(refused)
            if self._step.effect == "local_tx":
                return await self._local()
            return await self._send()

    def _only_believed_lost(self) -> bool:
        """Whether the server heard no beat for too long, as on a starved machine, and this call is worth its end.

        The next attempt waits for the lease of a `once` or `verifiable` call and then reads what became of it; to break
        it off would make a doubt out of a delay. The other classes are taken over at once.
        """
        return only_believed_lost() and self._step.effect in ("once", "verifiable")

    async def _pointless(self) -> bool:
        async with self._deps.pool.acquire() as conn:
            return not await ledger.ours(conn, self._step.key, self._fence)

    def _start_clock(self) -> None:
        """Give the tool its whole time from now on: waiting for a lost owner's lease to end is none of it."""
        self._ctx = replace(self._ctx, deadline=time.monotonic() + self._declared.timeout)

    # ------------------------------------------------------------------------------------ look

    async def _look(self) -> ToolOutcome | None:
        """Ask the remote what became of a request that may have been sent. None: it has not landed, send it."""
        self._start_clock()
        try:
            found = await self._runner.look_up(self._tool, self._args, self._ctx, deadline=self._ctx.deadline)
        except Exception as exc:
            async with self._deps.pool.acquire() as conn:
                looks = await ledger.look_failed(conn, self._step.key, self._fence)
            if looks is None or looks < self._declared.attempts + 2:
                raise TryAgain(mask(f"the look-up failed: {exc!r}")) from exc
            return await self._doubt(mask(f"the look-up failed again and again: {exc!r}"))
        if found is not None:
            return await self._complete(await self._outcome(found))
        if self._sends >= self._declared.attempts:
            text = f"error: {self._tool.name} was sent {self._sends} times and never took effect"
            return await self._fail(Outcome(text, status="error"))
        return None

    # ------------------------------------------------------------------------------------ send

    async def _send(self) -> ToolOutcome:
        """Take a thread, guard, send: while others are busy no clock runs, and the row says rightly: not sent."""
        settings = self._deps.settings
        async with AsyncExitStack() as stack:
            try:
                within = min(self._declared.timeout, settings.scaled(10 * settings.lease))
                seat = await stack.enter_async_context(self._runner.seat(self._tool, within=within))
                await self._guard()
            except asyncio.CancelledError:
                self._deps.spawn(self._not_sent("it was cut off before anything was sent"))
                raise
            except ToolNotStarted as exc:  # overload costs time: it is no try of the tool's
                await self._not_sent(str(exc))
                raise TryAgain(str(exc)) from exc
            return await self._run_tool(seat)

    async def _guard(self) -> None:
        self._start_clock()  # before the row's: a process that was frozen shall send nothing after its deadline there
        try:
            async with self._deps.pool.acquire() as conn:
                held = await ledger.guard(conn, self._step.key, self._fence, self._declared.timeout)
        except UNAVAILABLE as exc:
            # Whether or not it was written down, nothing was sent, and the row shall not say otherwise.
            await self._not_sent("not sent: no database")
            raise TryAgain(f"the database did not answer before anything was sent: {exc!r}") from exc
        if not held:
            raise TryAgain("the lease ran out before anything was sent")

    async def _not_sent(self, why: str) -> None:
        """Write down that this attempt sent nothing, so that the next need not wait; a lost owner's request stands."""
        if not self._unproven:
            await self._deps.insist(lambda conn: ledger.fail(conn, self._step.key, self._fence, why))

    async def _run_tool(self, seat: Seat | None) -> ToolOutcome:
        self._sends += 1
        ctx = self._ctx
        try:
            value = await self._runner.run(
                self._tool, self._args, ctx, deadline=ctx.deadline, late=self._late, seat=seat
            )
        except NotBegun:
            self._deps.spawn(self._not_sent("it was cut off before the tool began"))
            raise
        except asyncio.CancelledError:
            # Stopped, or the worker is going down: the request may have left. The row must not look merely slow.
            self._deps.spawn(self._given_up())
            raise
        except Exception as exc:  # noqa: BLE001  # whatever a tool raises is its outcome
            return await asyncio.shield(self._deps.spawn(self._failed(exc)))
        # Shielded: with the database away this attempt may run out of time, yet it alone knows how the call ended.
        return await asyncio.shield(self._deps.spawn(self._succeeded(value)))

    async def _succeeded(self, value: Any) -> ToolOutcome:
        return await self._complete(await self._outcome(value))

    async def _outcome(self, value: Any) -> Outcome:
        try:
            outcome = await Outcome.of(await self._runner.text(self._tool, value))
        except ToolResultInvalid as exc:  # the effect stands all the same
            outcome = Outcome(f"error: {exc}", status="error")
        return await self._seen(outcome)

    async def _failed(self, exc: Exception) -> ToolOutcome:
        """Settle a call whose tool raised, by what the exception proves."""
        said = mask(f"{type(exc).__name__}: {exc}")
        proof = self._proof(exc)
        if proof == "refused":
            return await self._fail(await self._seen(Outcome(f"error: {exc}", status="error")))
        if proof == "not_sent":
            if self._sends < self._declared.attempts:
                await self._deps.insist(lambda conn: ledger.fail(conn, self._step.key, self._fence, said))
                raise TryAgain(f"not sent: {said}") from exc
            text = f"error: {self._tool.name} could not be sent, {self._sends} tries: {said}"
            return await self._fail(await self._seen(Outcome(text, status="error")))
        if self._step.effect == "once" or (self._step.effect == "keyed" and self._sends >= self._declared.attempts):
            return await self._doubt(said)
        await self._release()
        raise TryAgain(f"no telling whether it took effect: {said}") from exc

    def _proof(self, exc: Exception) -> Proof:
        """Return what *exc* proves; the accepted definition and the loaded code must both declare `single_request`."""
        if self._unproven:
            return "unknown"
        single = self._declared.single_request and self._tool.definition.single_request
        return classify(exc, self._step.effect, single_request=single)

    async def _release(self, *, running: bool = False) -> None:
        async with self._deps.pool.acquire() as conn:
            await ledger.release(conn, self._step.key, self._fence, running=running)

    async def _given_up(self) -> None:
        if self._step.effect == "once":
            await self._doubt("the call was cut off after the request was sent")
        else:
            await self._release(running=not self._tool.is_async)  # a thread cannot be stopped: it may still send

    def _late(self, value: Any, error: BaseException | None) -> None:
        """A call that was given up has ended after all: proof for its row."""
        if error is None:
            self._deps.spawn(self._complete_late(value))
        elif isinstance(error, Exception) and self._proof(error) != "unknown":
            self._deps.spawn(self._fail_late(error))

    async def _fail_late(self, error: Exception) -> None:
        await self._fail(await self._seen(Outcome(f"error: {error}", status="error")))

    async def _complete_late(self, value: Any) -> None:
        try:
            await self._complete(await self._outcome(value))
        except FencedOut as exc:
            log.info("a late outcome was set aside", tool=self._tool.name, error=str(exc))

    # ------------------------------------------------------------------------------------ settle

    async def _complete(self, outcome: Outcome) -> ToolOutcome:
        """Mark the row done and fill the slot, in one transaction."""
        outcome.seconds = time.monotonic() - self._started

        async def settle(conn: Connection) -> tuple[str | None, int | None]:
            before, seq = await self._complete_in(conn, outcome)
            if before is None:
                await ledger.late(conn, self._step.key, self._fence, self._at.owner, {"text": outcome.text[:2000]})
            return before, seq

        before, seq = await self._deps.insist(settle)
        if before is None:
            raise FencedOut(f"{self._tool.name}: another attempt has taken this call over; its outcome counts")
        if seq is not None:
            self._deps.notifier.poke(self._step.run_id, seq)
        if before == "in_doubt":
            await self._tell_settled()
        return outcome.contract()

    async def _complete_in(self, conn: Connection, outcome: Outcome) -> tuple[str | None, int | None]:
        result = outcome.contract().model_dump(mode="json")
        before = await ledger.complete(conn, self._step.key, self._fence, self._step.args_hash, result)
        if before is None:
            return None, None
        if before == "in_doubt":  # locks in one order, as everybody: the call, its thread, its run, its slot
            await threads.hold_for_writer(conn, self._at.tenant, self._at.thread, self._inp.writer, self._inp.scope)
            await runs.resume(conn, self._step.run_id)
        return before, await fill(conn, self._deps, self._at, self._inp, outcome)

    async def _fail(self, outcome: Outcome) -> ToolOutcome:
        """Mark the row failed for good: proved that nothing took effect. The model reads why."""
        outcome.seconds = time.monotonic() - self._started

        async def settle(conn: Connection) -> tuple[bool, int | None]:
            result = outcome.contract().model_dump(mode="json")
            held = await ledger.fail(conn, self._step.key, self._fence, outcome.text, result)
            return held, await fill(conn, self._deps, self._at, self._inp, outcome) if held else None

        held, seq = await self._deps.insist(settle)
        if not held:
            raise TryAgain("another attempt has taken this call over")
        if seq is not None:
            self._deps.notifier.poke(self._step.run_id, seq)
        return outcome.contract()

    async def _doubt(self, why: str) -> ToolOutcome:
        async def settle(conn: Connection) -> tuple[bool, int | None]:
            held = await ledger.doubt(conn, self._step.key, self._fence, why)
            return held, await emit_doubt(conn, self._step, why) if held else None

        held, seq = await self._deps.insist(settle)
        if not held:
            raise TryAgain("another attempt has taken this call over")
        if seq is not None:
            self._deps.notifier.poke(self._step.run_id, seq)
        log.warning("a call is in doubt", tool=self._tool.name, why=why)
        return ToolOutcome(status="in_doubt", preview=self._tool.name)

    async def _tell_settled(self) -> None:
        with suppress(RPCError):  # the workflow also looks by itself
            handle = self._deps.client.get_workflow_handle(self._at.workflow_id)
            await handle.signal("settled", self._step.step_no)

    # ------------------------------------------------------------------------------------ local_tx

    async def _local(self) -> ToolOutcome:
        """Run the tool, complete the row and fill the slot in one transaction, on the tool loop's own connection."""
        pool = self._deps.tool_pool
        if pool is None:
            raise ApplicationError("this worker has no database pool for tools", type="ConfigurationError")
        fenced = in_tool = lost = False
        outcome: Outcome | None = None
        seq: int | None = None

        async def work() -> None:
            nonlocal fenced, in_tool, lost, outcome, seq
            async with pool.acquire() as conn:
                self._start_clock()
                transaction = conn.transaction()
                await transaction.start()
                try:
                    in_tool = True
                    async with asyncio.timeout(self._declared.timeout):
                        value = await invoke(self._tool, self._args, self._ctx.with_connection(conn))
                    in_tool = False
                    outcome = await self._seen(Outcome(await self._runner.text(self._tool, value)))
                    outcome.seconds = time.monotonic() - self._started
                    before, seq = await self._complete_in(conn, outcome)
                    fenced = before is None
                except BaseException:
                    lost = conn.is_closed()
                    await transaction.rollback()
                    raise
                await (transaction.rollback() if fenced else transaction.commit())

        try:
            await self._runner.call(work)
        except UNAVAILABLE as exc:
            if in_tool and not lost and not isinstance(exc, STRUCK):  # a file not found, too slow, its own statement
                return await self._failed_local(exc)
            raise TryAgain(f"the database did not answer: {exc!r}") from exc
        except Exception as exc:  # noqa: BLE001  # whatever a tool raises is its outcome
            return await self._failed_local(exc)
        if fenced or outcome is None:
            raise FencedOut(f"{self._tool.name}: another attempt has taken this call over")
        if seq is not None:
            self._deps.notifier.poke(self._step.run_id, seq)
        return outcome.contract()

    async def _failed_local(self, exc: Exception) -> ToolOutcome:
        """Its transaction was rolled back: nothing took effect."""
        if isinstance(exc, ToolError | ToolResultInvalid) or self._sends + 1 >= self._declared.attempts:
            said = str(exc) or f"not done within {self._declared.timeout:g} s"
            return await self._fail(await self._seen(Outcome(f"error: {type(exc).__name__}: {said}", status="error")))
        said = mask(f"rolled back: {exc!r}")
        await self._deps.insist(lambda conn: ledger.fail_try(conn, self._step.key, self._fence, said))
        raise TryAgain(said) from exc
