"""One attempt of the ledger machine at a call: the protocol of `holdfast.activities.effects`, step by visible step.

Each step is one transaction or one thing done to the remote, so that anything may happen between two of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from holdfast.memory import ledger
from holdfast.memory.database import Connection
from holdfast.memory.ledger import Step
from tests.conformance.ledger.remote import LEASE, SETTLE, TIMEOUT, Remote, Request

__all__ = ["ATTEMPTS", "FINE", "Fate", "Owner", "Phase", "Place"]

T = TypeVar("T")
ATTEMPTS = 3  # tries, as a tool declares them

Phase = Literal["claim", "look", "guard", "check", "send", "answer", "settle", "local", "commit", "pure", "over"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What befalls one step. A ledger call may never arrive (`lost`) or be carried out `unheard`."""

    ack: Literal["heard", "lost", "unheard"] = "heard"
    answer: Literal["now", "slow", "dropped", "declined", "no_connection"] = "now"
    cut: bool = False  # the look-up fails, or the wait for an answer ends without one


FINE = Fate()


class Place(Protocol):
    """What an owner finds around it."""

    remote: Remote

    def conn(self, slot: int) -> Connection:
        """Return the connection of a process."""
        ...

    def excuse(self, owner: Owner, lands: float | None) -> str | None:
        """Return which documented exception covers a request sent by *owner* now."""

    def attempt(self) -> int:
        """Return how many attempts there were."""
        ...

    def leave(self, thread: Owner) -> None:
        """Let the thread of a call that was given up run on."""


class _Lost(Exception):
    """No answer came from the database."""


@dataclass(slots=True)
class _Pending:
    """What an owner insists on writing down, and what it concludes from the answer."""

    verb: str
    work: Callable[[Connection], Awaitable[Any]]
    insist: bool = True


class Owner:
    """A process's attempt. It knows what a real one would know, and no more."""

    def __init__(self, place: Place, step: Step, slot: int, name: str) -> None:
        self.place = place
        self.step_ = step
        self.slot = slot
        self.name = name
        self.args = step.args_hash
        self.phase: Phase = "claim"
        self.fence = 0
        self.claimed: ledger.Claim | None = None
        self.frozen = False
        self.stalled: str | None = None  # why its lease was not renewed for a while, since the guard
        self.slept_after_check = False
        self.detached = False  # given up by its activity; its thread runs on
        self.guarded = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None  # happens before its transaction commits
        self.sends = 0
        self._unproven = False  # a lost owner's request may have landed
        self.deadline = 0.0  # of the send, on the clock of the remote
        self._request: Request | None = None
        self._pending: _Pending | None = None
        self._transaction: Any = None
        self._receipt = 0

    def __repr__(self) -> str:
        return f"{self.name}@{self.fence}:{self.phase}{' frozen' if self.frozen else ''}"

    @property
    def live(self) -> bool:
        """Whether it has something left to do."""
        return self.phase != "over"

    @property
    def writes(self) -> bool:
        """Whether its next step is one in the ledger."""
        return self.phase in ("claim", "guard", "settle", "commit", "pure")

    @property
    def beats(self) -> bool:
        """Whether its lease is renewed in the background: also for a thread that was given up, until it has ended."""
        return self.fence > 0 and self.live and not self.frozen

    async def step(self, fate: Fate) -> None:
        """Go one step further."""
        await {
            "claim": self._claim,
            "look": self._look,
            "guard": self._guard,
            "check": self._check,
            "send": self._send,
            "answer": self._answer,
            "settle": self._settle,
            "local": self._local,
            "commit": self._commit,
            "pure": self._pure,
        }[self.phase](fate)

    async def crash(self) -> None:
        """End without another word; what it began and did not commit is rolled back."""
        await self._roll_back()
        self.phase = "over"

    async def renew(self, conn: Connection) -> None:
        """Beat once, on a connection that no tool uses."""
        await ledger.renew(conn, [(self.step_.key, self.fence)], LEASE)

    def give_up(self) -> None:
        """Be cancelled while the tool runs: say so in the ledger; its thread runs on, for nobody can stop it."""
        if self.phase not in ("send", "answer") or self.detached:
            return
        self._leave_thread()
        if self.step_.effect == "once":
            self._insist("doubt", lambda conn: ledger.doubt(conn, self.step_.key, self.fence, "cut off"))
        else:
            self._overran()

    # ---------------------------------------------------------------------------------------- the database

    async def _call(self, fate: Fate, work: Callable[[Connection], Awaitable[T]]) -> T:
        if fate.ack == "lost":
            raise _Lost
        conn = self.place.conn(self.slot)
        async with conn.transaction():
            value = await work(conn)
            await self._before_commit()
        if fate.ack == "unheard":
            raise _Lost
        return value

    async def _before_commit(self) -> None:
        if self.meanwhile is not None:
            await self.meanwhile()

    def _insist(self, verb: str, work: Callable[[Connection], Awaitable[Any]], *, insist: bool = True) -> None:
        self._pending = _Pending(verb, work, insist)
        self.phase = "settle"

    async def _settle(self, fate: Fate) -> None:
        pending = self._pending
        assert pending is not None
        try:
            await self._call(fate, pending.work)
        except _Lost:
            if pending.insist:
                return
        self.phase = "over"

    # ---------------------------------------------------------------------------------------- the protocol

    async def _claim(self, fate: Fate) -> None:
        try:
            self.claimed = claim = await self._call(fate, lambda conn: ledger.claim(conn, self.step_, self.name, LEASE))
        except _Lost:
            self.phase = "over"
            return
        if claim.kind == "wait":
            return
        if claim.kind not in ("go", "look"):
            self.phase = "over"
            return
        self.fence, self.sends, self._unproven = claim.fence, claim.sends, claim.unproven
        if claim.kind == "look":
            self.phase = "look"
        else:
            self.phase = "local" if self.step_.effect == "local_tx" else "guard"

    async def _look(self, fate: Fate) -> None:
        if fate.cut:
            self._insist("look_failed", self._look_failed, insist=False)
            return
        found = self.place.remote.look_up()
        if found is not None:
            self._complete(found.receipt)
        elif self.sends >= ATTEMPTS:
            self._fail_for_good("sent again and again, never took effect")
        else:
            self._unproven = False
            self.phase = "guard"

    async def _look_failed(self, conn: Connection) -> None:
        looks = await ledger.look_failed(conn, self.step_.key, self.fence)
        if looks is not None and looks >= ATTEMPTS + 2:
            await ledger.doubt(conn, self.step_.key, self.fence, "no look-up")

    async def _guard(self, fate: Fate) -> None:
        self.deadline = self.place.remote.now + TIMEOUT
        self.stalled = None
        try:
            held = await self._call(fate, lambda conn: ledger.guard(conn, self.step_.key, self.fence, TIMEOUT))
        except _Lost:
            if self._unproven:
                self.phase = "over"
            else:
                self._fail_unsent("no database")
            return
        if not held:
            self.phase = "over"
            return
        self.sends += 1
        self.guarded = True
        self.phase = "check"

    async def _check(self, _: Fate) -> None:
        """Begin the tool, unless its time is over: what a process that was frozen finds when it wakes."""
        self.slept_after_check = False
        if self.place.remote.now > self.deadline:
            self._not_sent("its deadline had passed")
        else:
            self.phase = "send"

    async def _send(self, fate: Fate) -> None:
        remote = self.place.remote
        if remote.now > self.deadline and not self.slept_after_check and not self.detached:
            self._leave_thread()  # given up; a thread does not hear of it, and may send at any time after
            self._unknown(runs=True)
            return
        if fate.answer == "no_connection":
            self._not_sent("no connection")
            return
        lands = None if fate.answer == "dropped" else remote.now + (4_000.0 if fate.answer == "slow" else 0.0)
        assert lands is None or lands - remote.now <= SETTLE
        self._request = Request(self.name, self.args, lands, self.place.excuse(self, lands))
        self._request.refused = fate.answer == "declined"
        self.phase = "answer"
        remote.send(self._request)

    async def _answer(self, fate: Fate) -> None:
        request = self._request
        assert request is not None
        if request.landed and not fate.cut and (self.detached or self.place.remote.now <= self.deadline):
            if request.receipt is not None:
                self._complete(request.receipt)
            else:
                self._refused("declined")
        elif fate.cut or self.place.remote.now > self.deadline:
            runs = not fate.cut and not self.detached
            if runs:
                self._leave_thread()
            self._unknown(runs=runs)

    def _release(self) -> None:
        self._insist("release", lambda conn: ledger.release(conn, self.step_.key, self.fence), insist=False)

    def _overran(self) -> None:
        self._insist("overrun", lambda conn: ledger.overrun(conn, self.step_.key, self.fence, "it runs on"))

    def _unknown(self, *, runs: bool = False) -> None:
        """End without proof; with *runs* its thread goes on, and keeps the lease."""
        if self.detached:
            self._release()
        elif self.step_.effect == "once" or (self.step_.effect == "keyed" and self.sends >= ATTEMPTS):
            self._insist("doubt", lambda conn: ledger.doubt(conn, self.step_.key, self.fence, "no telling"))
        elif runs:
            self._overran()
        else:
            self._release()

    def _not_sent(self, why: str) -> None:
        if self._unproven:
            self._unknown()
        elif self.detached:
            self._fail_for_good(why)
        elif self.sends < ATTEMPTS:
            self._fail_unsent(why)
        else:
            self._fail_for_good(why)

    def _refused(self, why: str) -> None:
        if self._unproven:
            self._unknown()
        else:
            self._fail_for_good(why)

    def _fail_unsent(self, why: str) -> None:
        self._insist("fail", lambda conn: ledger.fail(conn, self.step_.key, self.fence, why))

    def _fail_for_good(self, why: str) -> None:
        result = {"status": "error", "why": why, "owner": self.name}
        step, args = self.step_, self.args
        self._insist("fail", lambda conn: ledger.fail_for_good(conn, step.key, self.fence, args, why, result))

    def _complete(self, receipt: int) -> None:
        result = {"status": "done", "receipt": receipt, "owner": self.name}

        async def settle(conn: Connection) -> None:
            if await ledger.complete(conn, self.step_.key, self.fence, self.args, result) is None:
                await ledger.late(conn, self.step_.key, self.fence, self.name, result)

        self._insist("complete", settle)

    def _leave_thread(self) -> None:
        thread = Owner(self.place, self.step_, self.slot, self.name)
        thread.__dict__.update({**self.__dict__, "detached": True})
        self.place.leave(thread)

    # ---------------------------------------------------------------------------------------- local_tx and pure

    async def _local(self, fate: Fate) -> None:
        """Begin the tool's transaction and its effect; others act before it commits."""
        conn = self.place.conn(self.slot)
        self._transaction = conn.transaction()
        await self._transaction.start()
        self._receipt = await conn.fetchval(
            "insert into outside (key, owner, args) values ($1, $2, $3) returning id",
            self.step_.key,
            self.name,
            self.args,
        )
        if fate.answer == "declined":
            await self._roll_back()
            self._fail_for_good("the tool refused")
        elif fate.answer in ("no_connection", "dropped"):
            await self.crash()
        else:
            self.phase = "commit"

    async def _commit(self, fate: Fate) -> None:
        conn = self.place.conn(self.slot)
        result = {"status": "done", "receipt": self._receipt, "owner": self.name}
        if fate.ack == "lost":
            await self.crash()
            return
        before = await ledger.complete(conn, self.step_.key, self.fence, self.args, result)
        await self._before_commit()
        if before is None:
            await self._roll_back()
        else:
            await self._transaction.commit()
            self._transaction = None
        self.phase = "over"

    async def _roll_back(self) -> None:
        if self._transaction is not None:
            await self._transaction.rollback()
            self._transaction = None

    async def _pure(self, fate: Fate) -> None:
        """Record what was found, or take what another recorded first."""
        result = {"status": "done", "receipt": 0, "owner": self.name}
        self.phase = "over"
        if fate.ack == "lost":
            return
        conn = self.place.conn(self.slot)
        async with conn.transaction():
            recorded = await ledger.record_pure(conn, self.step_, self.name, result)
            await self._before_commit()
        if not recorded:
            found = await ledger.stored(conn, self.step_.key)
            assert found is not None
            result = found[0]
        self.claimed = ledger.Claim("done", result=result)


def with_args(step: Step, args: str) -> Step:
    """Return the same step as a Reset may bring it: with other arguments."""
    return replace(step, args_hash=args)
