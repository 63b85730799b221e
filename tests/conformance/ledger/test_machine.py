"""A state machine over the effect ledger alone, on real PostgreSQL: three owners, interleavings, crashes, lost words.

HOLDFAST_EXAMPLES=3000 plays so many cases of each class instead of the few of the everyday suite, and of `pure`, where
little can happen, a tenth. A case is up to 50 rules on one call or several.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from holdfast.contracts import EffectClass
from holdfast.memory import ledger
from holdfast.memory.ledger import Step
from tests.conformance.ledger.controls import CONTROLS, FOUND, Control, Schedule
from tests.conformance.ledger.owner import Fate, Owner
from tests.conformance.ledger.remote import Violation
from tests.conformance.ledger.scene import OWNERS, Lab, Scene
from tests.kit import until

EXAMPLES = int(os.environ.get("HOLDFAST_EXAMPLES", "0"))
CLASSES: dict[EffectClass, int] = {"once": 60, "verifiable": 80, "keyed": 60, "local_tx": 40, "pure": 10}

PROFILE = settings(
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]  # its metaclass hides what it yields
)

FATES = st.builds(
    Fate,
    ack=st.sampled_from(["heard"] * 6 + ["lost", "unheard"]),
    answer=st.sampled_from(["now", "now", "slow", "dropped", "declined", "no_connection"]),
    cut=st.sampled_from([False, False, False, True]),
)
PICK = st.integers(0, 2 * OWNERS - 1)
ARGS = st.sampled_from(["a"] * 7 + ["b"])
TIMES = st.sampled_from([1_000.0, 4_000.0, 11_000.0, 16_000.0, 31_000.0, 50_000.0])
WORDS = st.sampled_from(["done", "not_done", "not_done", "abandon"])


class LedgerMachine(RuleBasedStateMachine):
    """Plays a call, and when that is settled another."""

    lab: Lab
    effect: EffectClass

    def __init__(self) -> None:
        super().__init__()
        self.lab.counts["cases"] += 1
        self._open()

    def _open(self) -> None:
        self.scene = Scene(self.lab, self.effect)
        self.meddled = False
        self.lab.counts["calls"] += 1
        self.lab.run(self.scene.act(self.scene.begin(0)))

    def _state(self) -> str | None:
        return None if self.scene.row is None else self.scene.row.state

    def _final(self) -> bool:
        return self.scene.row is not None and self.scene.row.final

    def _awake(self) -> list[Owner]:
        return [owner for owner in self.scene.live if not owner.frozen]

    @precondition(lambda self: self.scene.free and not self._final())
    @rule(pick=PICK, args=ARGS)
    def begin(self, pick: int, args: str) -> None:
        """Another attempt, in a process that has none in hand."""
        free = self.scene.free
        self.scene.begin(free[pick % len(free)], args)

    @precondition(lambda self: self._awake())
    @rule(pick=PICK, fate=FATES)
    def act(self, pick: int, fate: Fate) -> None:
        """One owner goes one step."""
        awake = self._awake()
        self.lab.run(self.scene.act(awake[pick % len(awake)], fate))

    @precondition(lambda self: self._awake())
    @rule(pick=PICK)
    def advance(self, pick: int) -> None:
        """One owner goes one step, and all is well."""
        awake = self._awake()
        self.lab.run(self.scene.act(awake[pick % len(awake)]))

    @precondition(lambda self: self._awake())
    @rule(pick=PICK, fates=st.lists(FATES, min_size=2, max_size=6))
    def go_on(self, pick: int, fates: list[Fate]) -> None:
        """One owner goes some steps without anybody else."""
        awake = self._awake()
        owner = awake[pick % len(awake)]
        for fate in fates:
            if owner.live:
                self.lab.run(self.scene.act(owner, fate))

    def _writers(self) -> list[Owner]:
        return [owner for owner in self._awake() if owner.writes]

    @precondition(lambda self: len({owner.slot for owner in self._writers()}) > 1)
    @rule(pick=PICK, fate=FATES)
    def together(self, pick: int, fate: Fate) -> None:
        """One process's transaction runs into another's that has not committed."""
        writers = self._writers()
        one = writers[pick % len(writers)]
        other = next(owner for owner in writers if owner.slot != one.slot)
        self.lab.run(self.scene.together(one, other, fate))

    @precondition(lambda self: self.scene.live)
    @rule(pick=PICK)
    def crash(self, pick: int) -> None:
        """Kill -9."""
        live = self.scene.live
        self.lab.run(self.scene.crash(live[pick % len(live)].slot))

    @precondition(lambda self: self._awake())
    @rule(pick=PICK, seconds=TIMES)
    def freeze(self, pick: int, seconds: float) -> None:
        """SIGSTOP, and a while."""
        awake = self._awake()
        self.scene.freeze(awake[pick % len(awake)].slot, True)
        self.lab.run(self.scene.pass_time(seconds))

    @precondition(lambda self: self._awake() and self.scene.free)
    @rule(pick=PICK, seconds=TIMES, steps=st.integers(1, 6))
    def overtake(self, pick: int, seconds: float, steps: int) -> None:
        """SIGSTOP, and another process goes on with the call before SIGCONT."""
        awake = self._awake()
        zombie = awake[pick % len(awake)].slot
        self.scene.freeze(zombie, True)
        self.lab.run(self.scene.pass_time(seconds))
        other = self.scene.begin(self.scene.free[0])
        for _ in range(steps):
            if other.live:
                self.lab.run(self.scene.act(other))
        self.scene.freeze(zombie, False)

    @precondition(lambda self: any(owner.frozen for owner in self.scene.live))
    @rule(pick=PICK)
    def wake(self, pick: int) -> None:
        """SIGCONT."""
        frozen = [owner for owner in self.scene.live if owner.frozen]
        self.scene.freeze(frozen[pick % len(frozen)].slot, False)

    @precondition(lambda self: any(owner.phase in ("send", "answer") and not owner.detached for owner in self._awake()))
    @rule()
    def give_up(self) -> None:
        """Temporal cancels an activity whose tool runs."""
        for owner in self._awake():
            owner.give_up()

    @precondition(lambda self: not self._final() or self.scene.live)
    @rule(seconds=TIMES, deaf=st.sampled_from([False, False, True]))
    def pass_time(self, seconds: float, deaf: bool) -> None:
        """Leases and deadlines run out, requests land."""
        self.lab.run(self.scene.pass_time(seconds, deaf=deaf))

    @precondition(lambda self: self._state() == "in_doubt")
    @rule(word=WORDS)
    def person(self, word: Any) -> None:
        """A person decides what became of a call in doubt: in time, or before it may be said."""
        self.lab.run(self.scene.person(word))

    @precondition(lambda self: self._state() not in ("in_doubt", None) and not self.meddled)
    @rule(word=WORDS)
    def meddle(self, word: Any) -> None:
        """A person decides where there is nothing to decide."""
        self.meddled = True
        self.lab.run(self.scene.person(word))

    @precondition(lambda self: self._state() == "in_flight")
    @rule()
    def sweep(self) -> None:
        """The sweeper looks, or settles what it found."""
        self.lab.run(self.scene.sweep())

    @precondition(lambda self: self._final() and not self.scene.live)
    @rule()
    def another(self) -> None:
        """The next call, under a key of its own."""
        self._end()
        self._open()

    @precondition(lambda self: self._final())
    @rule()
    def ask_again(self) -> None:
        """Somebody asks for what is settled."""
        free = self.scene.free
        if free:
            self.lab.run(self.scene.act(self.scene.begin(free[0])))

    def teardown(self) -> None:
        """Nothing is lost: the call comes to an end."""
        self._end()

    def _end(self) -> None:
        try:
            self.lab.run(self.scene.finish())
        finally:
            self.lab.run(self.scene.close())


@pytest.fixture(scope="module")
def lab(servers: dict[str, str], record_testsuite_property: Callable[[str, object], None]) -> Iterator[Lab]:
    """Return connections to a database of the module's own; `--junitxml` gets what was played."""
    lab = Lab(servers["database_url"])
    yield lab
    lab.close()
    for name, times in sorted(lab.counts.items()):
        record_testsuite_property(name, times)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("effect", CLASSES)
def test_no_interleaving_takes_effect_twice_or_loses_a_call(lab: Lab, effect: EffectClass) -> None:
    """Crashes, zombies, lost acknowledgements, people at the wrong time: at most one effect, and every call ends."""
    machine = type("Machine", (LedgerMachine,), {"lab": lab, "effect": effect})
    campaign = EXAMPLES // 10 if effect == "pure" else EXAMPLES
    run_state_machine_as_test(machine, settings=settings(PROFILE, max_examples=campaign or CLASSES[effect]))


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.guard)
def test_each_guard_is_missed_when_it_is_gone(lab: Lab, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same schedule passes with the guard and is a violation without it: no guard is there for nothing."""
    lab.play(control.effect, control.schedule)
    control.take_away(monkeypatch)
    with pytest.raises(Violation):
        lab.play(control.effect, control.schedule)


def test_a_guard_that_waited_for_the_row_goes_by_the_time_it_got_it(lab: Lab) -> None:
    """A process frozen while it holds the row delays another's guard beyond its lease: nothing may be sent then."""

    async def race() -> None:
        step = Step(uuid.uuid4().hex, str(uuid.uuid4()), "scope", 1, "tool", "verifiable", "a")
        one, two = lab.owners[:2]
        assert (await ledger.claim(one, step, "one", 0.3)).kind == "go"
        async with two.transaction():
            assert (await ledger.claim(two, step, "two", 0.3)).kind == "wait"
            waiting = asyncio.create_task(ledger.guard(one, step.key, 1, 5.0))
            over = "select lease_until < clock_timestamp() from effects where key = $1"
            await until(lambda: two.fetchval(over, step.key), "the lease has run out")
            assert not waiting.done()
        assert not await waiting

    lab.run(race())


@pytest.mark.parametrize(("effect", "schedule"), FOUND, ids=lambda value: getattr(value, "__name__", value))
def test_what_was_found_once_does_not_come_back(lab: Lab, effect: EffectClass, schedule: Schedule) -> None:
    """Schedules that broke a promise, kept."""
    lab.play(effect, schedule)
