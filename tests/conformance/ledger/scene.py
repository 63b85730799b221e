"""One call in the ledger on real PostgreSQL, three processes at it, a remote, a person: what the machine plays."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

from holdfast.contracts import EffectClass, Resolution
from holdfast.memory import ledger
from holdfast.memory.database import Connection, connect, migrate
from holdfast.memory.ledger import Step
from holdfast.memory.resolve import resolve_step
from tests.conformance.ledger.judge import Row, demand, standing, transition
from tests.conformance.ledger.owner import FINE, Fate, Owner
from tests.conformance.ledger.remote import LEASE, SETTLE, Effect, Remote

__all__ = ["OWNERS", "Lab", "Scene"]

T = TypeVar("T")
OWNERS = 3
STEPS_TO_END = 24  # what an undisturbed owner and an honest person need at most, with room

_ROW = (
    "select state, fence, owner, args_hash as args, lease_until, sent_at, deadline, sends, result::text, error, "
    "extract(epoch from lease_until - clock_timestamp())::float8 as lease_left from effects where key = $1"
)
_WAITS = "select cardinality(pg_blocking_pids($1)) > 0"
_SHIFT = (
    "update effects set lease_until = lease_until - make_interval(secs => $2), "
    "sent_at = sent_at - make_interval(secs => $2), deadline = deadline - make_interval(secs => $2) where key = $1"
)


class Lab:
    """A loop, and connections to a database of its own: one for each owner and one for everybody else."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self.counts: Counter[str] = Counter()
        self.owners: list[Connection] = []
        self.admin = self.run(self._open(url))

    def run(self, work: Awaitable[T]) -> T:
        """Wait for *work*."""

        async def await_it() -> T:
            return await work

        return self._runner.run(await_it())

    async def _open(self, url: str) -> Connection:
        name = f"m{uuid.uuid4().hex[:12]}"
        server = await connect(url)
        await server.execute(f"create database {name}")
        # A case loses nothing by a commit that is not on disk yet: nobody kills this server.
        await server.execute(f"alter database {name} set synchronous_commit = off")
        await server.close()
        here = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
        await migrate(here)
        admin = await connect(here)
        await admin.execute(
            "create table outside (id bigint generated always as identity, key text, owner text, args text)"
        )
        self.owners = [await connect(here) for _ in range(OWNERS)]
        return admin

    def play(self, effect: EffectClass, schedule: Callable[[Scene], Awaitable[None]]) -> None:
        """Play a directed schedule on a call of its own."""

        async def play() -> None:
            scene = Scene(self, effect)
            try:
                await schedule(scene)
            finally:
                await scene.close()

        self.run(play())

    def close(self) -> None:
        """Close the connections and the loop."""

        async def close() -> None:
            for conn in (*self.owners, self.admin):
                await asyncio.wait_for(conn.close(), 10)

        self.run(close())
        self._runner.close()


class Scene:
    """One call, from its first claim to whatever becomes of it."""

    def __init__(self, lab: Lab, effect: EffectClass) -> None:
        self.lab = lab
        self.remote = Remote(effect)
        settle = SETTLE if effect == "verifiable" else 0.0
        self.given = Step(uuid.uuid4().hex, str(uuid.uuid4()), "scope", 1, "tool", effect, "a", settle)
        self.actors: list[Owner] = []
        self.row: Row | None = None
        self.attempts = 0
        self.given_up = False  # a person said `abandon`
        self.swept: tuple[int, bool] | None = None
        self.lease_ends: dict[int, float] = {}

    # ---------------------------------------------------------------------------------------- Place, for owners

    def conn(self, slot: int) -> Connection:
        """Return the connection of a process."""
        return self.lab.owners[slot]

    def attempt(self) -> int:
        """Return how many attempts there were."""
        return self.attempts

    def leave(self, thread: Owner) -> None:
        """Let the thread of a call that was given up run on."""
        self.actors.append(thread)

    def excuse(self, owner: Owner, lands: float | None) -> str | None:
        """Return which documented exception covers a request sent by *owner* now."""
        if self.remote.now > owner.deadline and owner.slept_after_check:
            return "frozen in front of its first byte until its deadline had passed"
        if self.remote.now > owner.deadline and owner.stalled is not None:
            return f"{owner.stalled}, and its body overran"
        late = lands is not None and lands > self.lease_ends[owner.fence] + SETTLE
        if self.remote.kind == "verifiable" and owner.stalled is not None and late:
            return owner.stalled
        return None

    # ---------------------------------------------------------------------------------------- what happens

    @property
    def live(self) -> list[Owner]:
        """Those that have something left to do."""
        return [owner for owner in self.actors if owner.live]

    @property
    def free(self) -> list[int]:
        """Processes that have no attempt in hand."""
        busy = {owner.slot for owner in self.live if not owner.detached}
        return [slot for slot in range(OWNERS) if slot not in busy]

    def begin(self, slot: int, args: str = "a") -> Owner:
        """Let a process begin an attempt."""
        self.attempts += 1
        owner = Owner(self, replace(self.given, args_hash=args), slot, f"owner-{self.attempts}")
        if self.remote.kind == "pure":
            owner.phase = "pure"
        self.actors.append(owner)
        return owner

    async def act(self, owner: Owner, fate: Fate = FINE) -> None:
        """Let one owner go one step."""
        claims = owner.phase in ("claim", "pure")
        fence = None if claims else owner.fence
        self.lab.counts[owner.phase] += 1
        await owner.step(fate)
        before = await self._observe(fence=fence, claims=claims)
        if claims:
            self._check_claim(owner, before)

    async def together(self, first: Owner, second: Owner, fate: Fate) -> None:
        """Let *second* run into the transaction of *first*, which commits when *second* waits for it or is through.

        Who comes first is no accident here, so that a case can be played again.
        """
        claims = any(owner.phase in ("claim", "pure") for owner in (first, second))
        self.lab.counts["together"] += 1
        task: asyncio.Task[None] | None = None

        async def meanwhile() -> None:
            nonlocal task
            task = asyncio.create_task(second.step(FINE))
            pid = self.conn(second.slot).get_server_pid()
            while not task.done():
                waits = await self.lab.admin.fetchval(_WAITS, pid)
                if waits:
                    self.lab.counts["waited for a lock"] += 1
                    return

        first.meanwhile = meanwhile
        await first.step(fate)
        first.meanwhile = None
        await (task if task is not None else second.step(FINE))
        await self._observe(fence=None, claims=claims)

    async def crash(self, slot: int) -> None:
        """Kill a process, and with it all that runs in it."""
        for owner in self.live:
            if owner.slot == slot:
                await owner.crash()
        await self._observe()

    def freeze(self, slot: int, frozen: bool) -> None:
        """Stop a process, or let it go on as if no time had passed."""
        for owner in self.live:
            if owner.slot == slot:
                owner.frozen = frozen

    async def pass_time(self, seconds: float, *, deaf: bool = False) -> None:
        """Move the clock. Who is awake renews its lease, unless it is cut off from the database (*deaf*)."""
        self.remote.pass_time(seconds)
        await self.lab.admin.execute(_SHIFT, self.given.key, seconds)
        for owner in self.live:
            if owner.beats and not deaf:
                await self._beat(owner)
            elif owner.guarded and not owner.stalled and (owner.frozen or deaf):
                owner.stalled = "frozen after its guard" if owner.frozen else "cut off after its guard"
            if owner.frozen:
                owner.slept_after_check = True
        self.row = None if self.row is None else await self._read()
        self._judge()

    async def _beat(self, owner: Owner) -> None:
        before = await self._read()
        await owner.renew(self.lab.admin)
        transition(before, await self._read(), fence=owner.fence, claims=False, person=False)

    async def person(self, word: Literal["done", "not_done", "abandon"]) -> bool:
        """Let a person say something; return whether it was carried out. Nobody lies."""
        before, remote = self.row, self.remote
        early = before is not None and before.state == "in_doubt" and await self._may_still_land()
        if word == "done" and not self._of_these_arguments():
            return False
        if word == "not_done" and (remote.effects or (remote.expected and not early)):
            return False
        said = Resolution(step_no=1, outcome=word, decision_id=uuid.uuid4().hex, actor="ann")
        conn = self.lab.admin
        async with conn.transaction():
            found, _ = await resolve_step(conn, tenant="t", thread="x", run_id=self.given.run_id, resolution=said)
            if found.accepted and word == "done":  # as the text a person types would name the effect that he saw
                text = f'{{"receipt": {remote.effects[0].receipt}}}'
                await conn.execute("update effects set result = $2 where key = $1", self.given.key, text)
        self.lab.counts[f"{word}: {'yes' if found.accepted else 'no'}"] += 1
        audited = await conn.fetchval("select accepted from audit where decision_id = $1", said.decision_id)
        demand(audited is found.accepted, "a person's word was not audited as it was carried out", said)
        if before is None or before.state != "in_doubt" or (word == "not_done" and early):
            demand(not found.accepted, f"`{word}` was carried out at the wrong time", before)
        self.given_up = self.given_up or (found.accepted and word == "abandon")
        await self._observe(person=found.accepted)
        return found.accepted

    def _of_these_arguments(self) -> bool:
        """Whether what took effect is the call that the row is about: with its arguments."""
        return bool(self.remote.effects) and self.row is not None and self.remote.effects[0].args == self.row.args

    def _honest_word(self) -> Literal["done", "not_done", "abandon"]:
        if self._of_these_arguments():
            return "done"
        return "abandon" if self.remote.effects else "not_done"

    async def sweep(self) -> None:
        """Do half of what the sweeper does with a call whose run has ended: look for one, or settle the one found."""
        if self.swept is None:
            row = self.row
            if row is not None and row.state == "in_flight" and self.lease_ends[row.fence] + LEASE < self.remote.now:
                self.swept = (row.fence, row.sent_at is not None)
            return
        (fence, sent), self.swept = self.swept, None
        self.lab.counts["sweep"] += 1
        if sent:
            await ledger.doubt(self.lab.admin, self.given.key, fence, "its run ended while it was under way")
        else:
            await ledger.fail_unsent(self.lab.admin, self.given.key, fence, "its run ended before it was sent")
        await self._observe(fence=fence)

    async def close(self) -> None:
        """Kill everybody, so that no transaction is left open."""
        for owner in self.live:
            await owner.crash()

    async def finish(self) -> None:
        """Kill everybody, let all settle, and bring the call to its end: nothing may be lost."""
        await self.close()
        await self.pass_time(100_000)
        args = "a" if self.row is None else self.row.args
        for _ in range(STEPS_TO_END):
            row = self.row
            if row is not None and row.state == "in_doubt":
                await self.person(self._honest_word())
            elif row is not None and row.final:
                break
            else:
                owner = next(iter(self.live), None) or self.begin(0, args)
                await self.act(owner)
        demand(self.row is not None and self.row.final, "the call does not come to an end", self.row)
        assert self.row is not None
        self.lab.counts[f"ended {self.row.state}"] += 1
        for args in ("a", "b"):
            await self.act(self.begin(1, args))
        for effect in self.remote.effects:
            if effect.excuse is not None and len(self.remote.effects) > 1:
                self.lab.counts[f"doubled, {effect.excuse}"] += 1

    # ---------------------------------------------------------------------------------------- what is checked

    async def _read(self) -> Row | None:
        found = await self.lab.admin.fetchrow(_ROW, self.given.key)
        if found is None:
            return None
        fields: dict[str, Any] = dict(found)
        left = fields.pop("lease_left")
        if left is not None:
            self.lease_ends[fields["fence"]] = self.remote.now + round(left, -2)
        return Row(**fields)

    async def _may_still_land(self) -> bool:
        left = await self.lab.admin.fetchval(
            "select greatest(lease_until, deadline) > clock_timestamp() from effects where key = $1", self.given.key
        )
        return bool(left)

    async def _observe(self, *, fence: int | None = None, claims: bool = False, person: bool = False) -> Row | None:
        before, self.row = self.row, await self._read()
        if self.remote.kind == "local_tx":
            rows = await self.lab.admin.fetch("select id, owner, args from outside where key = $1", self.given.key)
            self.remote.effects = [Effect(row["id"], row["owner"], row["args"], None) for row in rows]
        transition(before, self.row, fence=fence, claims=claims, person=person)
        self._judge()
        return before

    def _judge(self) -> None:
        standing(self.row, self.remote, given_up=self.given_up)

    def _check_claim(self, owner: Owner, before: Row | None) -> None:
        """Check what a claim was told against the row."""
        told, row = owner.claimed, self.row
        if told is None or row is None:
            return
        about = (told, before, row)
        if told.kind in ("go", "look"):
            demand(row.owner == owner.name and row.fence == told.fence, "a claim that is not in the row", *about)
            demand(row.fence == (1 if before is None else before.fence + 1), "a claim without a new fence", *about)
            demand(row.args == owner.args, "a claim of other arguments", *about)
            again = before is None or not before.final or (before.state == "failed" and before.args != owner.args)
            demand(again, "a claim of what was settled", *about)
        elif told.kind == "done":
            same = row.args == owner.args or self.remote.kind == "pure"  # what a model said is returned as it is
            demand(same, "a result of other arguments was handed out", *about)
            demand(told.result == row.outcome, "another result than the stored one was handed out", *about)
        elif told.kind in ("in_doubt", "abandoned"):
            demand(row.state == told.kind, "a claim was told what the row does not say", *about)
