"""The places where a worker is killed with runs under way, and what is waited for afterwards. `resume` plays them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType, PendingWorkflowTaskState

from holdfast.contracts import Activity
from holdfast.contracts.messages import Event
from holdfast.errors import DecisionRefused
from holdfast.handles import RunHandle
from scripts.bench_kit.crew import Crew, Worker
from scripts.bench_kit.load import Load
from tests.kit import until

__all__ = ["KILLS", "SCRIPT", "Kill", "Stage", "Took"]

PATIENCE = 600.0  # seconds for a run to finish on a loaded machine
TURNS = 100  # of each run with a long history, before the kill

SCRIPT = (
    "".join(
        f"""
  - when: "{mode} {tool}:"
    replies: [{{call: {{{tool}: {{mode: {mode}}}}}}}, {{say: moved}}]
"""
        for mode in ("hold", "gate", "quick")
        for tool in ("pure", "keyed", "local_tx", "verifiable", "once")
    )
    + """
  - when: "ask:"
    replies: [{call: {asked: {}}}, {say: moved}]
  - when: "long:"
    replies:
      - {call: {pure: {mode: quick, n: "{{n}}"}}, repeat: TURNS}
      - {call: {pure: {mode: hold, n: last}}}
      - {say: moved}
""".replace("TURNS", str(TURNS))
)


@dataclass(frozen=True)
class Kill:
    """One place. The runs are told *text*, on a worker that has *death* in it."""

    name: str
    text: str
    death: str = ""
    # The last thing of the old worker, after which the step is only to be told to its workflow; else it is done again.
    committed: Activity | None = None
    step: str = "tool_done"  # the event that says that the step which was cut off is done
    doubts: bool = False  # the step cannot be taken over: a person is asked
    turns: int = 0  # done before the one that is cut off
    promised: bool = True  # the promised figure holds for it; else it adds its waits


KILLS = (
    Kill("in an activity", "hold pure"),
    Kill(f"in an activity, after {TURNS} turns", "long", turns=TURNS),
    Kill("in a workflow task", "ask"),
    Kill("in a commit: keyed tool, before", "gate keyed", "tool before commit"),
    Kill("in a commit: local_tx tool, before", "gate local_tx", "tool before commit"),
    Kill("in a commit: once tool, before", "gate once", "tool before commit", doubts=True, promised=False),
    Kill("in a commit: once tool, after", "gate once", "tool after commit", committed=Activity.TOOL_STEP),
    Kill("in a commit: model call, before", "quick pure", "model before commit", step="replied"),
    Kill("in a commit: model call, after", "quick pure", "model after commit", committed=Activity.MODEL_STEP),
    Kill("class keyed, sent", "hold keyed"),
    Kill("class local_tx, written", "hold local_tx"),
    Kill("class verifiable, sent", "hold verifiable", promised=False),
    Kill("class once, not sent yet", "quick once", "hold at guard", promised=False),
    Kill("class once, sent", "hold once", doubts=True, promised=False),
)


@dataclass(frozen=True)
class Took:
    """Seconds from the kill. *step*: the step is done, or its workflow knows that it was, or a person is asked."""

    where: str
    step: float
    reply: float | None = None  # the model's next word; None where a person has the next word


class Stage:
    """Plays kills: one worker works, is killed with runs under way, and another, which is up, goes on."""

    def __init__(self, crew: Crew, load: Load) -> None:
        self._crew, self._load = crew, load
        self._spare: Worker | None = None
        self.runs: list[RunHandle] = []
        self.doubts = 0  # that there must be

    async def play(self, kill: Kill) -> list[Took]:
        """Kill one worker there and return what each run took that was hit. The load begins a second before the kill.

        Raises:
            RuntimeError: what was committed was not returned but done or bought again.

        """
        self._load.rest()
        bought = (await self._crew.count([])).bought_twice
        found = await (self._in_workflow_tasks(kill) if kill.text == "ask" else self._anywhere(kill))
        if kill.committed is not None:
            count = await self._crew.count(self.runs)
            if count.twice or count.bought_twice > bought:
                raise RuntimeError(f"{kill.name}: what was committed was done again: {count.sentence()}")
        return [each for each in found if each is not None and each.step > 0]

    async def _anywhere(self, kill: Kill) -> list[Took | None]:
        worker = await self._only_worker(kill.death)
        runs = await self._start(kill.text)
        await self._crew.gathered(runs, f"every run is where it is killed: {kill.name}", 300 + 20 * kill.turns)
        self._spare = await self._crew.worker()
        await self._load.go()
        died = self._crew.marks / "died"
        if kill.death and kill.death != "hold at guard":
            (self._crew.marks / "go").touch()
            with suppress(
                AssertionError
            ):  # on a loaded machine some calls may have been taken over before they got there
                await until(lambda: worker.ended, f"the worker dies: {kill.name}", patience=20)
        at = await self._crew.kill(worker)
        if died.exists():
            at = float(died.read_text())
        return [await self._took(kill, kill.name, run, at) for run in runs]

    async def _only_worker(self, death: str) -> Worker:
        spare, self._spare = self._spare, None
        if spare is not None and death:
            await self._crew.kill(spare)
        return spare if spare is not None and not death else await self._crew.worker(deaths=[death] if death else [])

    async def _start(self, text: str) -> list[RunHandle]:
        runs = await self._crew.start(text)
        self.runs += runs
        return runs

    # ------------------------------------------------------------------------------------ in a workflow task

    async def _in_workflow_tasks(self, kill: Kill) -> list[Took | None]:
        """Kill a worker that has been handed workflow tasks and has not answered them."""
        worker = await self._only_worker("")
        runs = await self._start(kill.text)
        for run in runs:
            await until(lambda run=run: self._asked(run), "every run waits for a person", patience=PATIENCE)
        self._spare = await self._crew.worker()
        await self._load.go()
        # Frozen, it still has its polls open: the server hands it tasks, as to a worker that dies at that moment.
        worker.freeze()
        began = await asyncio.gather(*(self._decide(run) for run in runs))
        hit = [await self._handed(run) for run in runs]
        await self._crew.kill(worker)
        names = {True: kill.name, False: "beside a workflow task"}
        each = zip(runs, hit, began, strict=True)
        return [await self._took(kill, names[was], run, at) for run, was, at in each]

    async def _asked(self, run: RunHandle) -> bool:
        return any(event.kind == "approval_requested" for event in await run.recorded())

    async def _decide(self, run: RunHandle) -> float:
        """Say a person's word, and return when the server had it and so a workflow task to hand out."""
        await self._crew.temporal.get_workflow_handle(run.workflow_id).signal("decide", {"approve": True})
        return time.time()

    async def _handed(self, run: RunHandle) -> bool:
        """Whether the server has handed out a workflow task of the run that is not answered."""
        found = (await self._crew.temporal.get_workflow_handle(run.workflow_id).describe()).raw_description
        started = PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
        return found.HasField("pending_workflow_task") and found.pending_workflow_task.state == started

    # ------------------------------------------------------------------------------------ what it took

    async def _took(self, kill: Kill, where: str, run: RunHandle, at: float) -> Took | None:
        if kill.doubts:
            asked = await self._settle(run)
            await run.result(timeout=PATIENCE)
            return None if asked is None else Took(where, asked - at)
        await run.result(timeout=PATIENCE)
        events = await run.recorded()
        if kill.committed is not None:
            step = await self._told(run, kill.committed) - at
        else:
            step = _after(events, kill.step, at, kill.turns)
        # After a model call come its tool and then its next call; its own reply was the step.
        last = [event for event in events if event.kind == "replied"][-1]
        return Took(where, step, last.at.timestamp() - at)

    async def _settle(self, run: RunHandle) -> float | None:
        """Wait until a person is asked, be that person, and return when it was; None if the call was done before."""

        async def doubt() -> Event | None:
            return next((event for event in await run.recorded() if event.kind in ("in_doubt", "tool_done")), None)

        found: Event = await until(doubt, "the call is in doubt", patience=PATIENCE)
        if found.kind == "tool_done":
            return None
        self.doubts += 1

        async def resolved() -> bool:
            try:
                await run.resolve(int(found.data["step"]), done="done")
            except DecisionRefused:  # on a starved machine the workflow may hear of its doubt seconds after the client
                return False
            return True

        await until(resolved, "the person's word is taken", patience=PATIENCE)
        return found.at.timestamp()

    async def _told(self, run: RunHandle, activity: Activity) -> float:
        """Return when the workflow was given the first result of this activity."""
        history = await self._crew.temporal.get_workflow_handle(run.workflow_id).fetch_history()
        scheduled = next(
            event.event_id
            for event in history.events
            if event.activity_task_scheduled_event_attributes.activity_type.name == activity
        )
        done = EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
        found = next(
            event
            for event in history.events
            if event.event_type == done
            and event.activity_task_completed_event_attributes.scheduled_event_id == scheduled
        )
        return float(found.event_time.ToNanoseconds()) / 1e9


def _after(events: Sequence[Event], kind: str, at: float, turns: int) -> float:
    """Return how long after *at* this event of the turn after so many came; an earlier one was not cut off."""
    found = [event for event in events if event.kind == kind][turns]
    return found.at.timestamp() - at
