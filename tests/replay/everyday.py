"""What is recorded of typed answers and of schedules; other scenarios are in `scenarios.py`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from temporalio.client import WorkflowFailureError
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from holdfast.contracts import ASK_WORKFLOW, Ask, AskResult, Recurring
from tests.replay.scenarios import Scenario, Stage, call

__all__ = ["EVERYDAY", "EVERYDAY_AGENTS"]

EVERYDAY_AGENTS = """
from typing_extensions import TypedDict

class Verdict(TypedDict):
    good: bool

judge = Agent(name="judge", model="openai/test", tools=[page], output=Verdict)
"""


async def typed(stage: Stage) -> str:
    """An answer is corrected once, after a tool call; the next is never right."""
    wrong = {"say": "no idea"}
    replies = [call(page={"number": 1}), wrong, {"say": '{"good": true}'}]
    await (await stage.ask("judge", "judge it", "typed", replies)).result(timeout=60)
    await stage.event(await stage.ask("judge", "judge it never", "typed", [wrong]), "ended")
    return await stage.thread_closed("typed")


async def recurring(stage: Stage) -> str:
    """What a schedule starts: the text is filled with the time at the end of the workflow id."""
    stage.model.replies["on 2026-01-05"] = [{"say": "done"}]
    workflow_id = f"schedule:{stage.world.settings.tenant}:daily-2026-01-05T07:00:00Z"
    asked = Recurring(schedule="daily", tenant=stage.world.settings.tenant, time_zone="Europe/Berlin")
    await stage.temporal.execute_workflow(
        ASK_WORKFLOW,
        Ask(agent="clerk", text="on {date}", recurring=asked),
        id=workflow_id,
        task_queue=stage.world.settings.task_queue,
        result_type=AskResult,
    )
    return workflow_id


async def recurring_failure(stage: Stage) -> str:
    """The same with the time in a search attribute, as a schedule sets it; the run has no answer, so it fails."""
    stage.model.replies["at 07:00"] = [{"say": "no idea"}]
    tenant = stage.world.settings.tenant
    workflow_id = f"schedule:{tenant}:strict"
    scheduled = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
    with suppress(WorkflowFailureError):
        await stage.temporal.execute_workflow(
            ASK_WORKFLOW,
            Ask(
                agent="judge",
                text="at {time:%H:%M}",
                thread="strict",
                recurring=Recurring(schedule="strict", tenant=tenant, fail=True),
            ),
            id=workflow_id,
            task_queue=stage.world.settings.task_queue,
            result_type=AskResult,
            search_attributes=TypedSearchAttributes(
                [SearchAttributePair(scheduled, datetime(2026, 1, 5, 7, tzinfo=UTC))]
            ),
        )
    return workflow_id


EVERYDAY = {
    "agent-typed": Scenario(typed),
    "ask-recurring": Scenario(recurring),
    "ask-recurring-failure": Scenario(recurring_failure),
}
