"""Directed controls: one guard off, one certain schedule, and what the auditor must find. A new guard is an entry.

Each schedule can also be played with its guard on: then the auditor must find nothing, or it would prove nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.testing import ModelServer
from tests.conformance import schedules
from tests.conformance.drive import audit
from tests.conformance.scene import Scene
from tests.conformance.servers import Ground
from tests.conformance.stage import Stage
from tests.conformance.subject import Kind

__all__ = ["CONTROLS", "Control", "Verdict", "play"]

AGENTS = Path(__file__).with_name("control_agents.py")


@dataclass(frozen=True)
class Verdict:
    """What the auditor said: the names of the assertions that do not hold, and its table."""

    wrong: frozenset[str]
    table: str
    seconds: float

    def fits(self, control: Control, *, guarded: bool) -> bool:
        """Whether it is as it must be: with the guard on nothing is wrong, off at least what the control names."""
        return not self.wrong if guarded else control.caught_by <= self.wrong


@dataclass(frozen=True)
class Control:
    """One guard."""

    guard: str  # its switch is off:GUARD
    tools: tuple[str, ...]  # of the first round
    schedule: Callable[[Scene], Awaitable[None]]
    caught_by: frozenset[str]  # each of these assertions must fail
    first: tuple[str, ...] = ()  # traps of the first worker
    then: tuple[tuple[str, ...], ...] = ()  # tools of further rounds
    agent: str = "steady"
    ends: str = "done"
    prepare: str = ""  # SQL, with the guard off
    moment: str = ""  # tells apart controls of one guard

    @property
    def name(self) -> str:
        """What a person knows it by."""
        return f"{self.guard}, {self.moment}" if self.moment else self.guard


def _by(*assertions: str) -> frozenset[str]:
    return frozenset(assertions)


CONTROLS = (
    Control(
        "ledger",
        ("once_held", "verifiable_held", "local_note"),
        schedules.killed_in_all_calls,
        _by("at_most_one_effect", "completed_has_its_effect"),
        first=("hang:local",),
    ),
    Control("fence", ("once_held",), schedules.wakes_at_guard, _by("at_most_one_effect"), first=("stop:guard", "deaf")),
    Control("lease", ("verifiable_late",), schedules.mute_worker, _by("at_most_one_effect"), first=("mute", "deaf")),
    Control("settle", ("verifiable_late",), schedules.killed_on_its_way, _by("at_most_one_effect")),
    Control("look_up", ("verifiable_held",), schedules.killed_in_one_call, _by("at_most_one_effect")),
    Control("deadline", ("once_late",), schedules.not_done_too_early, _by("at_most_one_effect")),
    Control("transaction", ("local_note",), schedules.dies, _by("completed_has_its_effect"), first=("die:complete",)),
    Control(
        "message_id",
        ("keyed_now",),
        schedules.sent_again_late,
        _by("at_most_one_effect", "one_message_one_run"),
        prepare="alter table holdfast.runs drop constraint runs_thread_id_message_id_key",
    ),
    Control("writer", ("keyed_held",), schedules.changes_hands, _by("threads_are_whole"), first=("stop:reply", "deaf")),
    Control(
        "first_reply", ("keyed_held",), schedules.wakes_at_reply, _by("threads_are_whole"), first=("stop:reply", "deaf")
    ),
    Control(
        "first_reply",
        ("keyed_held",),
        schedules.wakes_at_record,
        _by("threads_are_whole"),
        first=("stop:record", "deaf"),
        moment="in its commit",
    ),
    Control("recorded_reply", ("keyed_held",), schedules.reset_after_reply, _by("recorded_calls_are_not_bought_again")),
    Control("approval", ("once_approved",), schedules.approved, _by("decisions_are_audited")),
    Control("audit_row", ("once_approved",), schedules.approved, _by("decisions_are_audited")),
    Control("budget", ("keyed_now",), schedules.plain, _by("budgets_hold"), agent="frugal", ends="over_budget"),
    Control(
        "event_number",
        ("keyed_now",),
        schedules.dies,
        _by("events_are_gapless"),
        first=("die:event",),
        prepare="create sequence holdfast.numbers",
    ),
    Control(
        "one_memory", ("keyed_now",), schedules.dies_remembering, _by("memory_without_duplicates"), agent="mindful"
    ),
)


async def play(ground: Ground, control: Control, *, guarded: bool) -> Verdict:
    """Play the schedule with the guard on or off, and return what the auditor says."""
    began = time.monotonic()
    kind = Kind("control", (control.tools, *control.then))
    off: tuple[str, ...] = () if guarded else (f"off:{control.guard}",)
    async with ModelServer({"conversations": [{"replies": kind.replies()}]}) as models:
        source = await asyncio.to_thread(AGENTS.read_text, encoding="utf-8")
        world = await ground.make(source, api_base=models.base_url, linger=0.5, sweep_every=60.0)
        async with Stage(ground, world, models) as stage:
            if control.prepare and not guarded:
                await stage.rows(control.prepare)
            first = await stage.bear(switches=(*off, *control.first), wait=True)
            scene = Scene(stage, first, off, control.agent, control.ends)
            try:
                await control.schedule(scene)
            except AssertionError as exc:
                exc.add_note(stage.logs())
                raise
            finally:
                await scene.close()
            await stage.close_books()
            _, table = await audit(stage)
            figures = await asyncio.to_thread((world.folder / "figures.json").read_text, encoding="utf-8")
    said: list[dict[str, Any]] = json.loads(figures)["assertions"]
    wrong = frozenset(found["name"] for found in said if found["wrong"])
    return Verdict(wrong, table, time.monotonic() - began)
