"""Which task queue serves which activity: no short one may wait for a slot that a long call holds."""

from __future__ import annotations

from typing import Any, cast

from temporalio import activity

from holdfast.contracts import CONTROL, Activity
from holdfast.runtime import agent_activities, control_activities, workflow_slots
from holdfast.settings import Settings


def names(activities: list[Any]) -> set[str | None]:
    """Return the names under which activities are registered."""
    return {activity._Definition.must_from_callable(each).name for each in activities}


def test_each_activity_is_served_where_workflows_schedule_it() -> None:
    """The control queue serves what `contracts.CONTROL` names, and the agents' queue the calls of models and tools."""
    nothing = cast("Any", None)
    assert names(control_activities(nothing)) == set(CONTROL)
    assert names(agent_activities(nothing)) == {Activity.MODEL_STEP, Activity.TOOL_STEP}


def test_few_workflow_tasks_at_once() -> None:
    """By default near twice the processors; never so few that the SDK would keep no workflow in memory."""
    assert 2 <= workflow_slots(Settings()) <= 8
    assert workflow_slots(Settings(max_concurrent_workflow_tasks=1)) == 2
    assert workflow_slots(Settings(max_concurrent_workflow_tasks=7)) == 7
    assert Settings().roll_after_events == 500
