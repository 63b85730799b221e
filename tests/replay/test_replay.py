"""Committed histories replay on today's workflow code, and code that decides otherwise is found out."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner

from holdfast.contracts import Activity, BeginRun, Begun, Run
from holdfast.convert import data_converter
from holdfast.runtime import MEMORY_WORKFLOWS, WORKFLOWS, workflow_runner
from holdfast.workflows.run import RunLoop

FOLDER = Path(__file__).with_name("histories")
FILES = sorted(FOLDER.glob("*.json"))
LARGEST = 100_000  # bytes


def events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a recorded execution."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["events"]
    return found


def history(path: Path) -> WorkflowHistory:
    """Return a recorded execution; its first event says which workflow id it had."""
    text = path.read_text(encoding="utf-8")
    workflow_id = events(path)[0]["workflowExecutionStartedEventAttributes"]["workflowId"]
    return WorkflowHistory.from_json(workflow_id, text)


def replayer(runner: WorkflowRunner | None = None) -> Replayer:
    """Return a replayer of our workflows as the workers run them."""
    return Replayer(
        workflows=[*WORKFLOWS, *MEMORY_WORKFLOWS],
        data_converter=data_converter,
        workflow_runner=runner or workflow_runner(),
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_history_replays(path: Path) -> None:
    """Today's code takes the decisions that this execution took."""
    await replayer().replay_workflow(history(path))


def test_every_workflow_and_every_activity_is_recorded() -> None:
    """Between them the histories have each workflow type, each activity, and each way of hearing and going on."""
    every = [event for path in FILES for event in events(path)]

    def about(kind: str) -> list[dict[str, Any]]:
        return [event[f"{kind}EventAttributes"] for event in every if f"{kind}EventAttributes" in event]

    types = {started["workflowType"]["name"] for started in about("workflowExecutionStarted")}
    activities = {scheduled["activityType"]["name"] for scheduled in about("activityTaskScheduled")}
    updates = {accepted["acceptedRequest"]["input"]["name"] for accepted in about("workflowExecutionUpdateAccepted")}
    signals = {signaled["signalName"] for signaled in about("workflowExecutionSignaled")}
    kinds = {event["eventType"].removeprefix("EVENT_TYPE_") for event in every}
    assert types == {workflow._Definition.must_from_class(cls).name for cls in [*WORKFLOWS, *MEMORY_WORKFLOWS]}
    assert activities == {activity.value for activity in Activity}
    assert updates >= {"message", "decide", "resolve", "stop"}
    assert signals >= {"decide", "settled", "ended"}
    assert kinds >= {
        "WORKFLOW_EXECUTION_CONTINUED_AS_NEW",
        "WORKFLOW_EXECUTION_CANCELED",
        "WORKFLOW_EXECUTION_COMPLETED",
        "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED",
        "ACTIVITY_TASK_CANCEL_REQUESTED",
        "TIMER_FIRED",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_history_is_small_and_names_no_machine(path: Path) -> None:
    """A history has no path, no process and no host in it, its payloads included."""
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST
    payloads = re.findall(r'"data": ?"([A-Za-z0-9+/=]+)"', text)
    whole = text + "".join(base64.b64decode(data).decode("utf-8", "replace") for data in payloads)
    assert not re.search(r"\.py\b|site-packages|/(home|root|tmp|work|usr|var)/|\d+@|127\.0\.0\.1|localhost", whole)
    assert set(re.findall(r'"identity": ?"([^"]*)"', text)) == {"recorder"}


# ---------------------------------------------------------------------------------------- changes that break replay

_begin = RunLoop._begin


async def _skips(self: RunLoop, run: Run) -> None:
    """Begin a run without telling anyone."""
    self._step(run)
    run.begun = True
    await _begin(self, run)


async def _adds(self: RunLoop, run: Run) -> None:
    """Begin a run twice."""
    await self._do(Activity.BEGIN_RUN, BeginRun(**self._step(run)), Begun, "begin")
    await _begin(self, run)


async def _swaps(self: RunLoop, run: Run) -> None:
    """Do something else first."""
    if not run.begun:
        await workflow.sleep(1)
    await _begin(self, run)


@pytest.mark.parametrize("change", [_skips, _adds, _swaps])
async def test_a_change_of_decisions_makes_replay_fail(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run loop that leaves out, repeats or puts in a step no longer replays what was recorded."""
    recorded = history(next(path for path in FILES if path.stem.startswith("agent-approvals")))
    # Outside the sandbox, which would load the unchanged code again; unchanged, it replays here as well.
    await replayer(UnsandboxedWorkflowRunner()).replay_workflow(recorded)
    monkeypatch.setattr(RunLoop, "_begin", change)
    with pytest.raises(workflow.NondeterminismError):
        await replayer(UnsandboxedWorkflowRunner()).replay_workflow(recorded)
