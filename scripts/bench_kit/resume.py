"""The time until runs move again after kill -9 of the worker they were on, with another worker up."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path

from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.client import Client as Temporal

from holdfast import Client
from holdfast.contracts import Activity
from holdfast.handles import RunHandle
from scripts.bench_kit import report
from scripts.bench_kit.models import model_server
from tests import histories, standalone
from tests.kit import Process, World, until

__all__ = ["measure"]

RUNS = 10  # under way when the kill comes
AGENTS = '''
import asyncio

from holdfast import Agent, ToolContext, tool

@tool(effect="pure", timeout=300)
async def hold(ctx: ToolContext) -> str:
    """Take for ever at the first try."""
    if ctx.attempt == 1:
        await asyncio.sleep(280)
    return "held"

@tool(effect="pure", approval="always")
async def asked() -> str:
    """Do what a person was asked about."""
    return "done"

holder = Agent(name="holder", model="openai/test", tools=[hold])
asker = Agent(name="asker", model="openai/test", tools=[asked])
'''
SCRIPT = """
conversations:
  - when: hold
    replies: [{call: {hold: {}}}, {say: moved}]
  - replies: [{call: {asked: {}}}, {say: moved}]
"""


async def measure(kills: int, out: Path) -> None:
    """Kill *kills* workers in an activity and as many in a workflow task, and report seconds until runs move."""
    async with (
        standalone.servers() as given,
        model_server(Path(given["folder"]), SCRIPT) as api_base,
        standalone.world(given, AGENTS, api_base=api_base) as world,
    ):
        stage = _Stage(world, await world.client(), await histories.connect(world.settings))
        for number in range(kills):
            await stage.in_activities(f"activity-{number}")
            await stage.in_workflow_tasks(f"task-{number}")
        heartbeat = world.settings.scaled(world.settings.lease)
    rows = {
        name: {
            "n": len(values),
            "p50": report.quantile(values, 0.5),
            "p95": report.quantile(values, 0.95),
            "min": min(values),
            "max": max(values),
        }
        for name, values in stage.took.items()
        if values
    }
    notes = [
        f"promised: heartbeat + 1.5 s = {heartbeat + 1.5:.1f} s at p50, heartbeat + 4 s = {heartbeat + 4:.1f} s at p95",
        f"{RUNS} runs under way at each of {2 * kills} kills; the other worker is up all the while",
        "step: the tool call that was cut off, or held up, is done; reply: the model has spoken after it",
        "in a workflow task: counted from when the server hands tasks to the worker that is about to be killed",
    ]
    report.show("seconds until a run moves again after kill -9", rows, notes, out, stage.took)


class _Stage:
    """One worker works, is killed with runs under way, and the next one takes over."""

    def __init__(self, world: World, client: Client, temporal: Temporal) -> None:
        self._world, self._client, self._temporal = world, client, temporal
        self._worker: Process | None = None
        self.took: dict[str, list[float]] = defaultdict(list)

    async def in_activities(self, name: str) -> None:
        """Kill a worker whose runs are all inside a tool call."""
        worker = await self._only_worker()
        runs = await self._start("holder", "hold", name)
        await until(lambda: self._in_tools(runs), "every run is in its tool")
        standby = await self._world.worker()
        began = {run.run_id: time.time() for run in runs}
        worker.kill()
        await self._note("in an activity", runs, began)
        self._worker = standby

    async def in_workflow_tasks(self, name: str) -> None:
        """Kill a worker that has been handed workflow tasks and has not answered them."""
        worker = await self._only_worker()
        runs = await self._start("asker", "ask", name)
        for run in runs:
            await until(lambda run=run: self._has(run, "approval_requested"), "every run waits for a person")
        standby = await self._world.worker()
        # Frozen, it still has its polls open: the server hands it tasks, as to a worker that dies at that moment.
        worker.signal(signal.SIGSTOP)
        began = {run.run_id: time.time() for run in runs}
        handles = [self._temporal.get_workflow_handle(run.workflow_id) for run in runs]
        await asyncio.gather(*(handle.signal("decide", {"approve": True}) for handle in handles))
        handed = [await self._handed(run) for run in runs]
        worker.kill()
        hit = [run for run, was in zip(runs, handed, strict=True) if was]
        rest = [run for run, was in zip(runs, handed, strict=True) if not was]
        await asyncio.gather(
            self._note("in a workflow task", hit, began), self._note("beside a workflow task", rest, began)
        )
        self._worker = standby

    async def _only_worker(self) -> Process:
        if self._worker is None:
            self._worker = await self._world.worker()
        return self._worker

    async def _start(self, agent: str, text: str, name: str) -> list[RunHandle]:
        return list(
            await asyncio.gather(
                *(self._client.start(agent, text, thread=f"{name}-{number}") for number in range(RUNS))
            )
        )

    async def _in_tools(self, runs: list[RunHandle]) -> bool:
        started = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
        for run in runs:
            found = (await self._temporal.get_workflow_handle(run.workflow_id).describe()).raw_description
            pending = [activity for activity in found.pending_activities if activity.state == started]
            if not any(activity.activity_type.name == Activity.TOOL_STEP for activity in pending):
                return False
        return True

    async def _handed(self, run: RunHandle) -> bool:
        """Whether the server has handed out a workflow task of the run that is not answered."""
        found = (await self._temporal.get_workflow_handle(run.workflow_id).describe()).raw_description
        started = PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED
        return found.HasField("pending_workflow_task") and found.pending_workflow_task.state == started

    async def _has(self, run: RunHandle, kind: str) -> bool:
        return any(event.kind == kind for event in await run.recorded())

    async def _note(self, where: str, runs: list[RunHandle], began: dict[str, float]) -> None:
        for run in runs:
            await run.result(timeout=120)
            at: dict[str, datetime] = {event.kind: event.at for event in await run.recorded()}
            self.took[f"{where}: step"].append(at["tool_done"].timestamp() - began[run.run_id])
            self.took[f"{where}: reply"].append(at["replied"].timestamp() - began[run.run_id])
