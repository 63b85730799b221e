"""Negative controls of the ledger machine: each guard of the ledger taken away, and the schedule that must notice.

The switches live here, in test code: they replace one named query, or one function, of `holdfast.memory.ledger`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from holdfast.contracts import EffectClass
from holdfast.memory import ledger
from holdfast.memory.database import Connection
from holdfast.memory.ledger import Claim, Step
from tests.conformance.ledger.owner import ATTEMPTS, FINE, Fate, Owner, Phase
from tests.conformance.ledger.scene import Scene

__all__ = ["CONTROLS", "FOUND", "Control", "Schedule"]

Schedule = Callable[[Scene], Awaitable[None]]
LONG = 50_000.0  # any lease, settle time and deadline are over


async def _to(scene: Scene, owner: Owner, phase: Phase, fate: Fate = FINE) -> None:
    """Let an owner go on until it is in front of *phase*, or has ended."""
    while owner.phase not in (phase, "over"):
        before = owner.phase
        await scene.act(owner, fate)
        assert owner.phase != before, f"{owner} stays where it is"


async def _sleep(scene: Scene, owner: Owner, seconds: float = LONG) -> None:
    """Freeze an owner's process for a while. It is left frozen."""
    scene.freeze(owner.slot, True)
    await scene.pass_time(seconds)


async def _zombie(scene: Scene, phase: Phase, fate: Fate = FINE) -> Owner:
    """Return an owner that stands in front of *phase*, was frozen there for long, and has just been woken."""
    owner = scene.begin(0)
    await _to(scene, owner, phase, fate)
    await _sleep(scene, owner)
    return owner


async def two_senders(scene: Scene) -> None:
    """A zombie in front of its guard, and the owner that took over from it."""
    first = await _zombie(scene, "guard")
    second = scene.begin(1)
    await _to(scene, second, "check")
    scene.freeze(0, False)
    await _to(scene, first, "answer")
    await _to(scene, second, "over")
    await scene.finish()


async def sends_after_its_lease(scene: Scene) -> None:
    """A zombie whose lease ran out passes its guard before anybody took over; then somebody looks, and sends."""
    first = await _zombie(scene, "guard")
    scene.freeze(0, False)
    await _to(scene, first, "send")
    second = scene.begin(1)
    await _to(scene, second, "answer")
    if first.live:
        await scene.act(first)
    await scene.finish()


async def completes_for_other_arguments(scene: Scene) -> None:
    """An owner whose arguments changed under its hands."""
    owner = scene.begin(0)
    await _to(scene, owner, "check")
    owner.args = "b"
    await _to(scene, owner, "over")
    await scene.pass_time(LONG)
    await scene.act(scene.begin(1))
    await scene.person("abandon")


async def completes_late(scene: Scene) -> None:
    """A zombie has its answer when another has taken over."""
    first = scene.begin(0)
    await _to(scene, first, "settle")
    await scene.act(scene.begin(1))
    await _to(scene, first, "over")
    await scene.finish()


async def fails_late(scene: Scene) -> None:
    """A zombie finds no connection when another has taken over."""
    first = scene.begin(0)
    await _to(scene, first, "send")
    await scene.act(scene.begin(1))
    await _to(scene, first, "over", Fate(answer="no_connection"))
    await scene.finish()


async def declines_late(scene: Scene) -> None:
    """A zombie is declined when another has taken over."""
    first = scene.begin(0)
    await _to(scene, first, "send")
    await scene.act(scene.begin(1))
    await _to(scene, first, "over", Fate(answer="declined"))
    await scene.finish()


async def doubts_late(scene: Scene) -> None:
    """A zombie at its last try has no answer when another has taken over, and sent."""
    first = scene.begin(0)
    await _to(scene, first, "answer", Fate(answer="dropped"))
    first.sends = ATTEMPTS
    await _to(scene, scene.begin(1), "check")
    await _to(scene, first, "over", Fate(cut=True))
    await scene.finish()


async def releases_late(scene: Scene) -> None:
    """A zombie gives its lease up when another has taken over."""
    first = scene.begin(0)
    await _to(scene, first, "answer", Fate(answer="dropped"))
    await scene.act(scene.begin(1))
    await _to(scene, first, "over", Fate(cut=True))
    await scene.finish()


async def renews_late(scene: Scene) -> None:
    """A zombie beats again when another, which crashed since, had taken over."""
    first = await _zombie(scene, "guard")
    await scene.act(scene.begin(1))
    await scene.crash(1)
    scene.freeze(0, False)
    await scene.pass_time(1_000)
    await _to(scene, first, "over")
    await scene.finish()


async def completes_what_was_given_up(scene: Scene) -> None:
    """A person abandons a call, and its owner wakes with an answer."""
    first = await _zombie(scene, "settle")
    await scene.act(scene.begin(1))
    assert await scene.person("abandon")
    scene.freeze(0, False)
    await _to(scene, first, "over")
    await scene.finish()


async def not_done_too_early(scene: Scene) -> None:
    """A person says that nothing happened while the request is on its way."""
    owner = scene.begin(0)
    await _to(scene, owner, "answer", Fate(answer="slow"))
    await _to(scene, owner, "over", Fate(cut=True))
    await scene.person("not_done")
    await scene.pass_time(LONG)
    await scene.finish()


async def looks_too_early(scene: Scene) -> None:
    """A request that left at the end of its lease lands within the settle time; somebody may look before."""
    first = scene.begin(0)
    await _to(scene, first, "check")
    await scene.pass_time(10_000, deaf=True)
    await _to(scene, first, "answer", Fate(answer="slow"))
    await scene.crash(0)
    await scene.pass_time(1_000)
    second = scene.begin(1)
    await scene.act(second)
    if second.phase == "look":
        await _to(scene, second, "answer")
    await scene.pass_time(LONG)
    await scene.finish()


async def lost_after_it_sent(scene: Scene) -> None:
    """An owner is killed between its request and its completion."""
    await _to(scene, scene.begin(0), "answer")
    await scene.crash(0)
    await scene.pass_time(LONG)
    second = scene.begin(1)
    await _to(scene, second, "over")
    await scene.finish()


async def asked_with_other_arguments(scene: Scene) -> None:
    """After a Reset the model asks for something else under the same key."""
    await _to(scene, scene.begin(0), "over")
    await scene.act(scene.begin(1, "b"))
    await scene.finish()


async def recorded_twice(scene: Scene) -> None:
    """Two attempts at a `pure` step both come to record it."""
    first, second = scene.begin(0), scene.begin(1)
    await scene.act(first)
    await scene.act(second)
    await scene.finish()


async def commits_late(scene: Scene) -> None:
    """Two owners have a `local_tx` effect in open transactions; the one that was taken over comes to commit first."""
    first, second = scene.begin(0), scene.begin(1)
    await _to(scene, first, "commit")
    await _to(scene, second, "commit")
    await scene.act(first)
    await scene.act(second)
    await scene.finish()


async def refused_after_an_unknown_send(scene: Scene) -> None:
    """A `keyed` request landed and its owner was lost, then one before its guard; the next find no connection."""
    await _to(scene, scene.begin(0), "answer")
    await scene.crash(0)
    await _to(scene, scene.begin(0), "guard")
    await scene.crash(0)
    for _ in range(ATTEMPTS):
        owner = scene.begin(1)
        await _to(scene, owner, "send")
        await _to(scene, owner, "over", Fate(answer="no_connection"))
    await scene.finish()


async def declined_after_an_unknown_send(scene: Scene) -> None:
    """A `keyed` request landed and its owner was lost; the tool's own check now declines, for what it finds is done."""
    await _to(scene, scene.begin(0), "answer")
    await scene.crash(0)
    owner = scene.begin(1)
    await _to(scene, owner, "send")
    await _to(scene, owner, "over", Fate(answer="declined"))
    await scene.finish()


async def sends_after_it_was_given_up(scene: Scene) -> None:
    """A tool's thread is cancelled before its first byte; nobody can stop it, and it sends when others have looked."""
    first = scene.begin(0)
    await _to(scene, first, "send")
    first.give_up()
    await _to(scene, first, "over")
    thread = scene.live[0]
    await scene.pass_time(16_000)
    second = scene.begin(1)
    await scene.act(second)
    if second.phase == "look":
        await _to(scene, second, "answer")
    await scene.act(thread)
    await scene.finish()


async def sends_after_its_deadline(scene: Scene) -> None:
    """A tool overruns its time before its first byte; nobody may say `not done`, or take over, until it has ended."""
    first = scene.begin(0)
    await _to(scene, first, "send")
    await scene.pass_time(LONG)
    await _to(scene, first, "over")
    thread = scene.live[0]
    await scene.pass_time(LONG)
    if await scene.person("not_done") or scene.remote.kind == "verifiable":
        second = scene.begin(1)
        await scene.act(second)
        if second.live and second.phase != "claim":
            await _to(scene, second, "answer")
    await _to(scene, thread, "over")
    await scene.finish()


async def declined_after_its_deadline(scene: Scene) -> None:
    """A tool that has overrun its time ends at last, and says that nothing took effect: proof for a doubt."""
    first = scene.begin(0)
    await _to(scene, first, "send")
    await scene.pass_time(LONG)
    await _to(scene, first, "over")
    await _to(scene, scene.live[0], "over", Fate(answer="declined"))
    assert scene.row is not None
    assert (scene.row.state, scene.row.final) == ("failed", True)
    await scene.finish()


async def swept_while_it_woke(scene: Scene) -> None:
    """The sweeper saw a call that was never sent; its owner wakes, renews its lease and sends; then it is settled."""
    first = await _zombie(scene, "guard")
    await scene.sweep()
    scene.freeze(0, False)
    await scene.pass_time(1_000)
    await _to(scene, first, "answer")
    await scene.sweep()
    await scene.finish()


# ------------------------------------------------------------------------------------------- what is switched off


@dataclass(frozen=True, slots=True)
class Control:
    """A guard, how to take it away, and the class and schedule that must notice."""

    guard: str
    effect: EffectClass
    schedule: Schedule
    query: str = ""
    old: str = ""
    new: str = ""

    def take_away(self, patch: pytest.MonkeyPatch) -> None:
        """Switch the guard off until *patch* is undone."""
        if not self.query:
            patch.setattr(ledger, "claim", _claim_of_any_arguments(ledger.claim))
            return
        text = ledger._Q[self.query]
        assert self.old in text, f"the query {self.query} has no {self.old!r} any more: mend this control"
        patch.setitem(ledger._Q, self.query, text.replace(self.old, self.new))


def _claim_of_any_arguments(real: Callable[..., Awaitable[Claim]]) -> Any:
    async def claim(conn: Connection, step: Step, owner: str, lease: float) -> Claim:
        args = await conn.fetchval("select args_hash from effects where key = $1", step.key)
        return await real(conn, replace(step, args_hash=args or step.args_hash), owner, lease)

    return claim


_FENCE = ("fence = $2 and", "$2::int is not null and")

CONTROLS = [
    Control("fence in guard", "once", two_senders, "guard", *_FENCE),
    Control(
        "lease in guard", "verifiable", sends_after_its_lease, "guard", "held.lease_until > clock_timestamp()", "true"
    ),
    Control("sent_at in guard", "once", lost_after_it_sent, "guard", "sent_at = clock_timestamp(), ", ""),
    Control("fence in complete", "keyed", completes_late, "complete", *_FENCE),
    Control("fence in complete, local_tx", "local_tx", commits_late, "complete", *_FENCE),
    Control(
        "args_hash in complete",
        "once",
        completes_for_other_arguments,
        "complete",
        "args_hash = $3 and",
        "$3::text is not null and",
    ),
    Control(
        "state in complete",
        "once",
        completes_what_was_given_up,
        "complete",
        " and state in ('in_flight', 'in_doubt')",
        "",
    ),
    Control("fence in fail", "keyed", fails_late, "fail", *_FENCE),
    Control("fence in doubt", "keyed", doubts_late, "doubt", *_FENCE),
    Control("fence in release", "keyed", releases_late, "release", *_FENCE),
    Control("fence in renew", "once", renews_late, "renew", "e.fence = mine.fence and", ""),
    Control(
        "doubt in renew",
        "once",
        sends_after_its_deadline,
        "renew",
        "e.state in ('in_flight', 'in_doubt')",
        "e.state = 'in_flight'",
    ),
    Control(
        "fence in fail_for_good",
        "keyed",
        declines_late,
        "fail_for_good",
        *_FENCE,
    ),
    Control("new fence in take_over", "once", two_senders, "take_over", "fence = fence + 1", "fence = fence"),
    Control("args_hash in claim", "once", asked_with_other_arguments),
    Control(
        "settle time in claim",
        "verifiable",
        looks_too_early,
        "lock",
        "lease_until + settle - clock_timestamp()",
        "lease_until - clock_timestamp()",
    ),
    Control(
        "deadline in resolve",
        "once",
        not_done_too_early,
        "lock",
        "greatest(lease_until, deadline) - clock_timestamp()",
        "clock_timestamp() - clock_timestamp()",
    ),
    Control(
        "first one wins, pure",
        "pure",
        recorded_twice,
        "insert_done",
        "where effects.class = 'pure' and effects.state = 'failed' and effects.result is null",
        "",
    ),
    Control(
        "doubt kept by take_over",
        "keyed",
        refused_after_an_unknown_send,
        "take_over",
        "sent_at = case when $5 then sent_at end",
        "sent_at = null",
    ),
]

# What the machine, or the reading that went with it, found: each of these broke a promise once.
FOUND: list[tuple[EffectClass, Schedule]] = [
    ("keyed", refused_after_an_unknown_send),
    ("keyed", declined_after_an_unknown_send),
    ("verifiable", sends_after_it_was_given_up),
    ("once", sends_after_its_deadline),
    ("verifiable", sends_after_its_deadline),
    ("keyed", sends_after_its_deadline),
    ("once", declined_after_its_deadline),
    ("verifiable", declined_after_its_deadline),
    ("once", swept_while_it_woke),
    ("verifiable", swept_while_it_woke),
    ("keyed", swept_while_it_woke),
]
