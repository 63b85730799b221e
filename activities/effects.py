"""One call with an effect, through the ledger: claim, guard and send, complete, or say that it is in doubt.

The protocol is in docs/howto/effects.md. Whatever happens here, the effect takes place once or the call is in doubt.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any, NoReturn

import structlog
from temporalio.exceptions import ApplicationError

from holdfast.activities.attempts import given_up, only_believed_lost, watch
from holdfast.activities.body import Body
from holdfast.activities.claims import TryAgain, settled_by, take
from holdfast.activities.hooks import see_call
from holdfast.activities.outcome import Outcome, shown
from holdfast.activities.settling import Settling
from holdfast.contracts import ToolOutcome
from holdfast.errors import FencedOut, ToolError, ToolResultInvalid
from holdfast.memory import ledger
from holdfast.memory.database import STRUCK, UNAVAILABLE, Connection
from holdfast.memory.ledger import Claim
from holdfast.tools.runner import NeverBegan, NotBegun, invoke
from holdfast.tools.threads import Ended, Seat

__all__ = ["EffectCall"]

log = structlog.get_logger(__name__)


class EffectCall(Settling):
    """One attempt at one call. Its owner is this attempt alone, so another attempt is always another owner."""

    async def run(self) -> ToolOutcome:
        """Carry the call as far as it goes."""
        claim = await take(self._deps, self._at, self._inp, self._step)
        settled = await settled_by(self._deps, self._at, self._inp, self._step, claim)
        if settled is not None:
            return settled
        self._fence, self._sends, self._unproven = claim.fence, claim.sends, claim.unproven
        self._body = Body(self._deps.leases, self._step.key, self._fence)
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
                refused = await see_call(self._attempt)
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
        attempt = self._attempt
        attempt.ctx = replace(attempt.ctx, deadline=time.monotonic() + self._declared.timeout)

    # ------------------------------------------------------------------------------------ look

    async def _look(self) -> ToolOutcome | None:
        """Ask the remote what became of a request that may have been sent. None: it has not landed, send it."""
        attempt = self._attempt
        try:
            async with attempt.runner.seat(self._tool, within=attempt.seat_within, look_up=True) as seat:
                self._start_clock()
                ctx = attempt.ctx
                found = await attempt.runner.look_up(self._tool, attempt.args, ctx, deadline=ctx.deadline, seat=seat)
        except NeverBegan as exc:  # overload costs time: nobody was asked
            await self._release()
            raise TryAgain(str(exc)) from exc
        except Exception as exc:  # noqa: BLE001  # whatever a look-up raises, nothing was found
            return await self._look_failed(exc)
        if found is not None:
            return await self._complete(await self._outcome(found))
        if self._sends >= self._declared.attempts:
            text = f"error: {self._tool.name} was sent {self._sends} times and never took effect"
            return await self._fail(Outcome(text, status="error"))
        return None

    async def _look_failed(self, exc: Exception) -> ToolOutcome:
        async with self._deps.pool.acquire() as conn:
            looks = await ledger.look_failed(conn, self._step.key, self._fence)
        if looks is None or looks < self._declared.attempts + 2:
            raise TryAgain(shown(f"the look-up failed: {exc!r}")) from exc
        return await self._doubt(shown(f"the look-up failed again and again: {exc!r}"))

    # ------------------------------------------------------------------------------------ send

    async def _send(self) -> ToolOutcome:
        """Take a thread, guard, send: while others are busy no clock runs, and the row says rightly: not sent."""
        async with AsyncExitStack() as stack:
            try:
                waiting = self._attempt.runner.seat(self._tool, within=self._attempt.seat_within)
                seat = await stack.enter_async_context(waiting)
                if seat is not None and seat.attempt.queued and await given_up(self._deps, self._at):
                    await self._not_sent("it was stopped while it waited for a thread")
                    raise TryAgain("the call was stopped while it waited for a thread: nothing was sent")
                await self._guard()
            except asyncio.CancelledError:
                self._deps.spawn(self._not_sent("it was cut off before anything was sent"))
                raise
            except NeverBegan as exc:  # overload costs time: it is no try of the tool's
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
            await self._not_sent("not sent: the database could not be reached")
            raise TryAgain(f"the database did not answer before anything was sent: {exc!r}") from exc
        if not held:
            raise TryAgain("the lease ran out before anything was sent")

    async def _not_sent(self, why: str) -> None:
        """Write down that this attempt sent nothing, so that the next need not wait; a lost owner's request stands.

        The guard may have been committed without our hearing of it: the row counts no try.
        """

        async def settle(conn: Connection) -> None:
            await ledger.unsend(conn, self._step.key, self._fence, self._sends)
            if not self._unproven:
                await ledger.fail(conn, self._step.key, self._fence, why)

        await self._deps.insist(settle)

    async def _never_begun(self, why: str) -> NoReturn:
        """Take the guard's word back: a tool that never began has had no try."""
        self._body.let_go()
        self._sends -= 1
        await self._not_sent(why)
        raise TryAgain(why)

    async def _run_tool(self, seat: Seat | None) -> ToolOutcome:
        self._sends += 1
        args, ctx = self._attempt.args, self._attempt.ctx
        try:
            value = await self._attempt.runner.run(
                self._tool, args, ctx, deadline=ctx.deadline, begun=self._body.begin, seat=seat
            )
        except NotBegun:
            self._deps.spawn(self._never_begun("it was cut off before the tool began"))
            raise
        except asyncio.CancelledError:
            # Stopped, or the worker is going down: the request may have left. The row must not look merely slow.
            self._deps.spawn(self._given_up())
            raise
        except Exception as exc:  # noqa: BLE001  # whatever a tool raises is its outcome
            return await asyncio.shield(self._deps.spawn(self._raised(exc)))
        # Shielded: with the database away this attempt may run out of time, yet it alone knows how the call ended.
        return await asyncio.shield(self._deps.spawn(self._returned(value)))

    async def _returned(self, value: Any) -> ToolOutcome:
        try:
            return await self._succeeded(value)
        finally:
            self._body.let_go()

    async def _raised(self, exc: Exception) -> ToolOutcome:
        """Settle a call whose tool raised, or whose time is over while its body may still run."""
        try:
            if isinstance(exc, NeverBegan):
                return await self._never_begun(_said(exc))
            ended = await self._body.ended(self._patience)
            if self._body.runs:
                return await self._overran(_said(exc), doubtful=self._last_try)
            if ended is not None and not inspect.isawaitable(ended.value):  # as it ended, maybe just after its time
                if ended.error is None:
                    return await self._succeeded(ended.value)
                exc = ended.error if isinstance(ended.error, Exception) else exc
            return await self._failed(exc)
        finally:
            if not self._body.runs:
                self._body.let_go()

    @property
    def _last_try(self) -> bool:
        """Whether a try that proved nothing leaves the call in doubt."""
        return self._step.effect == "once" or (self._step.effect == "keyed" and self._sends >= self._declared.attempts)

    @property
    def _patience(self) -> float:
        """Seconds that an async body which was cancelled has to end. A thread does not hear of it."""
        return self._deps.settings.scaled(self._deps.settings.beat) if self._tool.is_async else 0.0

    async def _failed(self, exc: Exception) -> ToolOutcome:
        """Settle a call whose body has ended, by what the exception proves."""
        said = _said(exc)
        proof = self._proof(exc)
        if proof == "refused":
            return await self._fail(await self._error(f"error: {exc}"))
        if proof == "not_sent":
            if self._sends < self._declared.attempts:
                await self._deps.insist(lambda conn: ledger.fail(conn, self._step.key, self._fence, said))
                raise TryAgain(f"not sent: {said}") from exc
            text = f"error: {self._tool.name} could not be sent, {self._sends} tries: {said}"
            return await self._fail(await self._error(text))
        if self._last_try:
            return await self._doubt(said)
        await self._release()
        raise TryAgain(f"it is unknown whether it took effect: {said}") from exc

    # ------------------------------------------------------------------------------------ a body that runs on

    async def _overran(self, said: str, *, doubtful: bool) -> ToolOutcome:
        """Say that the body of this call still runs; its lease is renewed until `_see_out` has recorded its end."""
        why = f"{said}; {self._body.words}"
        try:
            if doubtful:
                return await self._doubt(why)
            await self._deps.insist(lambda conn: ledger.overrun(conn, self._step.key, self._fence, why))
            raise TryAgain(why)
        finally:
            self._deps.spawn(self._see_out())

    async def _see_out(self) -> None:
        try:
            await self._settle_late(await self._body.ended())
        finally:
            self._body.let_go()

    async def _given_up(self) -> None:
        """Settle a call whose attempt was cancelled while its body ran."""
        why = "the call was cut off after the request was sent"
        ended = await self._body.ended(self._patience)
        if self._body.runs:
            with suppress(TryAgain):
                await self._overran(why, doubtful=self._step.effect == "once")
            return
        try:
            if self._step.effect == "once" and not self._proves(ended):
                await self._doubt(why)
            else:
                await self._settle_late(ended)
        finally:
            self._body.let_go()

    def _proves(self, ended: Ended[Any] | None) -> bool:
        """Whether the end of a body that was given up tells what became of the effect."""
        if ended is None or inspect.isawaitable(ended.value):
            return False
        return ended.error is None or (isinstance(ended.error, Exception) and self._proof(ended.error) != "unknown")

    async def _settle_late(self, ended: Ended[Any] | None) -> None:
        """Record how a body ended that was given up: late proof, or no proof and the lease is over."""
        error = None if ended is None else ended.error
        try:
            if ended is None or not self._proves(ended):
                what = "did not run to its end" if error is None else f"ended with {error!r}"
                await self._release(
                    shown(
                        f"its body {what} after the call had exceeded its timeout or was cut off: it is unknown "
                        "whether it took effect"
                    )
                )
            elif error is None:
                await self._succeeded(ended.value)
            else:
                await self._fail(await self._error(f"error: {error}"))
        except (FencedOut, TryAgain) as exc:
            log.info("a late outcome was set aside", tool=self._tool.name, error=str(exc))

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
                        value = await invoke(self._tool, self._attempt.args, self._attempt.ctx.with_connection(conn))
                    in_tool = False
                    outcome = await self._seen(await Outcome.of(await self._attempt.runner.text(self._tool, value)))
                    outcome.seconds = time.monotonic() - self._attempt.started
                    before, seq = await self._complete_in(conn, outcome)
                    fenced = before is None
                except BaseException:
                    lost = conn.is_closed()
                    await transaction.rollback()
                    raise
                await (transaction.rollback() if fenced else transaction.commit())

        try:
            await self._attempt.runner.call(work)
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
            return await self._fail(await self._error(f"error: {type(exc).__name__}: {said}"))
        said = shown(f"rolled back: {exc!r}")
        await self._deps.insist(lambda conn: ledger.fail_try(conn, self._step.key, self._fence, said))
        raise TryAgain(said) from exc


def _said(exc: Exception) -> str:
    return shown(f"{type(exc).__name__}: {exc}")
