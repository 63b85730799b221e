"""Runs on a starved machine, without any fault: all must finish, nothing twice, nothing in doubt. `resume` calls it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as Temporal

from holdfast.handles import RunHandle
from scripts.bench_kit.crew import Count, Crew
from scripts.bench_kit.load import Load

__all__ = ["DELAY", "SCRIPT", "Starved", "starve"]

AT_ONCE = 20
DELAY = "1000"  # milliseconds, as `agents` has it: calls of two seconds, as long as a lease
PATIENCE = 600.0  # seconds for the last run to finish
SCRIPT = """
  - when: "starve:"
    replies:
      - call:
          - once: {mode: quick, n: "{{n}}a"}
          - once: {mode: quick, n: "{{n}}b"}
          - keyed: {mode: quick, n: "{{n}}"}
          - verifiable: {mode: quick, n: "{{n}}"}
        repeat: 3
        latency: 0.25
      - say: moved
"""


@dataclass(frozen=True)
class Starved:
    """What came of runs that nobody harmed."""

    count: Count
    seconds: list[float]  # from a run's start to its end
    again: int  # attempts of activities beyond the first


async def starve(crew: Crew, load: Load, rounds: int) -> Starved:
    """Let two workers do *rounds* times 20 runs at once, beside the load."""
    for _ in range(2):
        await crew.worker()
    await load.go()
    runs: list[RunHandle] = []
    seconds: list[float] = []
    for _ in range(rounds):
        began = time.monotonic()
        batch = await crew.start("starve", AT_ONCE)
        runs += batch
        seconds += [each - began for each in await asyncio.gather(*(_end(run) for run in batch)) if each is not None]
    load.rest()
    again = sum([await _again(crew.temporal, run) for run in runs])
    return Starved(await crew.count(runs), seconds, again)


async def _end(run: RunHandle) -> float | None:
    with suppress(TimeoutError):
        await run.result(timeout=PATIENCE)
        return time.monotonic()
    return None


async def _again(temporal: Temporal, run: RunHandle) -> int:
    """Return how often an activity of a run was tried again."""
    started = EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    history = await temporal.get_workflow_handle(run.workflow_id).fetch_history()
    tries = [event.activity_task_started_event_attributes for event in history.events if event.event_type == started]
    return sum(each.attempt - 1 for each in tries)
