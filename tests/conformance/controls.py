"""Directed controls: one guard off, one certain schedule, and what the auditor must find. A new guard is an entry.

Each schedule can also be played with its guard on: then the auditor must find nothing, or it would prove nothing.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from temporalio.client import WorkflowExecutionStatus

from holdfast.testing import ModelServer
from tests.conformance import subject
from tests.conformance.drive import MakeWorld, audit
from tests.conformance.person import Person
from tests.conformance.stage import Born, Nursery, Stage, now
from tests.conformance.subject import Kind
from tests.kit import until

__all__ = ["CONTROLS", "Control", "Verdict", "play"]

THREAD = "control-001"
NAME = f"{THREAD}.1"


@dataclass(frozen=True)
class Verdict:
    """What the auditor said: the numbers of the assertions that do not hold, and its table."""

    wrong: frozenset[str]
    table: str
    seconds: float


@dataclass
class Scene:
    """A stage with one worker, in which one message was sent."""

    stage: Stage
    first: Born
    off: tuple[str, ...]  # switches of every worker

    async def send(self) -> None:
        """Send the message, or send it again."""
        run = await self.stage.client.start("steady", NAME, thread=THREAD, message_id=NAME)
        await self.stage.note(
            "insert into evidence.sent (name, thread, kind, run_id, expected, remembers) "
            "values ($1, $2, 'control', $3, 'done', false)",
            (NAME, THREAD, run.run_id),
        )

    async def strike(self, kind: str, *threads: str) -> None:
        """Write down that the first worker was struck."""
        at = now()
        await self.stage.note(
            "insert into evidence.faults (kind, at, until, pids, threads) values ($1, $2, $2, $3, $4)",
            (kind, at, [self.first.pid], list(threads)),
        )

    async def second(self) -> None:
        """Start a second worker."""
        await self.stage.bear(switches=self.off, wait=True)

    async def ended(self) -> None:
        """Wait until the run has ended."""

        async def found() -> bool:
            return bool(await self.stage.rows("select 1 from holdfast.runs where ended_at is not null"))

        await until(found, "the run has ended")

    async def trouble(self, shows: Callable[[], Awaitable[bool]], patience: float) -> None:
        """Wait until it shows what the guard prevents; for so many seconds, because with the guard it never does."""
        with suppress(AssertionError):
            await until(shows, "trouble", patience=patience)

    async def two_effects(self) -> bool:
        """Whether the recorder saw two arrivals."""
        text = await asyncio.to_thread(self.stage.recorder.read_text)
        return len(text.splitlines()) > 1

    async def replies(self, count: int) -> bool:
        """Whether the thread has so many replies of a model."""
        return len(await self.stage.rows("select 1 from holdfast.messages where role = 'assistant'")) >= count


Schedule = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Control:
    """One guard."""

    guard: str  # its switch is off:GUARD
    tools: tuple[str, ...]  # of the one round
    schedule: Schedule
    caught_by: frozenset[str]  # each of these assertions must fail
    first: tuple[str, ...] = ()  # more switches of the first worker
    prepare: str = ""  # SQL, with the guard off


async def _zombie_sends(scene: Scene) -> None:
    """The first stops before its guard; the second takes the call over and completes it; the first wakes."""
    await until(lambda: scene.first.stopped, "the first worker stops")
    await scene.strike("SIGSTOP of a worker")
    await scene.second()
    await scene.ended()
    scene.first.signal(signal.SIGCONT)
    await scene.trouble(scene.two_effects, 4.0)


async def _mute_worker(scene: Scene) -> None:
    """The first has sent and waits for the answer; Temporal believes it dead and has the call tried again."""
    await scene.second()
    await scene.ended()
    await scene.trouble(scene.two_effects, 6.0)


async def _dies_completing(scene: Scene) -> None:
    """The first dies at the completion; the second goes on."""
    await until(lambda: scene.first.ended, "the first worker dies")
    await scene.strike("kill -9 of a worker")
    await scene.stage.reap(scene.first)
    await scene.second()
    await scene.ended()


async def _sent_again_late(scene: Scene) -> None:
    """The message comes again when its workflow has ended; the next one has to ask the database whether it knows it."""
    stage = scene.stage
    handle = stage.plain.get_workflow_handle(f"{stage.world.settings.tenant}:{THREAD}")
    seen: set[str] = set()

    async def closed() -> bool:
        described = await handle.describe()
        over = described.status == WorkflowExecutionStatus.COMPLETED and described.run_id not in seen
        if over:
            seen.add(described.run_id)
        return over

    await until(closed, "the workflow has ended")
    await scene.send()
    await until(closed, "the next workflow has ended")


async def _old_chain_writes(scene: Scene) -> None:
    """The first has a reply in hand when its workflow is terminated; another one takes the run up and has its own."""
    await until(lambda: scene.first.stopped, "the first worker stops")
    await scene.second()
    await scene.strike("Terminate through Temporal", THREAD)
    stage = scene.stage
    await stage.plain.get_workflow_handle(f"{stage.world.settings.tenant}:{THREAD}").terminate("a control")
    await scene.send()
    await until(lambda: scene.replies(1), "the run goes on in another workflow")
    scene.first.signal(signal.SIGCONT)
    await scene.trouble(lambda: scene.replies(2), 3.0)
    await scene.ended()


CONTROLS = (
    Control("fence", ("once_sync",), _zombie_sends, frozenset({"1"}), ("stop:guard", "deaf")),
    Control("lease", ("verifiable_slow",), _mute_worker, frozenset({"1"}), ("mute", "deaf")),
    Control("transaction", ("local_note",), _dies_completing, frozenset({"2"}), ("die:complete",)),
    Control(
        "message_id",
        ("keyed_async",),
        _sent_again_late,
        frozenset({"1", "9"}),
        prepare="alter table holdfast.runs drop constraint runs_thread_id_message_id_key",
    ),
    # "writer" is not here: since a terminated run is stopped at the next admission, `_old_chain_writes` never gets as
    # far as a second reply. It needs a schedule in which the thread changes hands while its run goes on.
)


async def play(make_world: MakeWorld, nursery: Nursery, control: Control, *, guarded: bool) -> Verdict:
    """Play the schedule with the guard on or off, and return what the auditor says."""
    began = time.monotonic()
    kind = Kind("control", (control.tools,))
    async with ModelServer({"conversations": [{"replies": kind.replies()}]}) as models:
        source = await asyncio.to_thread(subject.AGENTS.read_text, encoding="utf-8")
        world = await make_world(source, api_base=models.base_url, linger=0.5, sweep_every=60.0)
        async with Stage(world, models, nursery) as stage:
            off: tuple[str, ...] = () if guarded else (f"off:{control.guard}",)
            if control.prepare and not guarded:
                await stage.rows(control.prepare)
            first = await stage.bear(switches=(*off, *control.first), wait=True)
            person = asyncio.create_task(Person(stage).serve())
            scene = Scene(stage, first, off)
            await scene.send()
            await control.schedule(scene)
            person.cancel()
            await asyncio.gather(person, return_exceptions=True)
            await stage.close_books()
            _, table = await audit(stage)
            found = re.findall(r"^\((\d+)\) ", table, re.MULTILINE)
    return Verdict(frozenset(found), table, time.monotonic() - began)
