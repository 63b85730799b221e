"""AskWorkflow: one question, one answer, for any Temporal client, the Web UI and Schedules."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ApplicationError

from holdfast.contracts import ASK_WORKFLOW, Activity, Ask, AskResult, Limits, ReadAnswer, RunState, SendMessage
from holdfast.workflows import options
from holdfast.workflows.inputs import parse

__all__ = ["AskWorkflow"]

_LOOKS = (10.0, 60.0, 600.0)  # seconds between looks, should the signal be lost
_SCHEDULED = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
_APPENDED = re.compile(r"-(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z$")  # what a Schedule puts behind the workflow id
_LONGEST_ID = 256  # characters of a message id
_OPEN = (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)


@workflow.defn(name=ASK_WORKFLOW)
class AskWorkflow:
    """Sends a message to its thread and waits for the run's end; with `wait` false it ends once accepted."""

    def __init__(self) -> None:
        self._ended = False

    @workflow.run
    async def run(self, given: Any = None) -> AskResult:
        """Return the answer, or how the run ended without one. The input is an `Ask` as JSON."""
        ask = parse(Ask, given)
        info = workflow.info()
        message_id = ask.message_id or _message_id(info.workflow_id)
        message = SendMessage(
            ask=ask,
            thread=ask.thread or "",
            message_id=message_id,
            scheduled_at=_scheduled_at(info) if ask.recurring is not None else None,
        )
        result = await self._do(Activity.SEND_MESSAGE, message, "send")
        looks = 0
        while ask.wait and result.state in _OPEN:
            try:
                await workflow.wait_condition(
                    lambda: self._ended, timeout=timedelta(seconds=_LOOKS[min(looks, 2)]), timeout_summary="look again"
                )
            except TimeoutError:
                looks += 1
            self._ended = False
            result = await self._do(
                Activity.READ_ANSWER, ReadAnswer(run_id=result.run_id, thread=result.thread), "read the answer"
            )
            if not result.stored:  # whoever took it may have been ended with it in hand; sent again it is the same run
                result = await self._do(Activity.SEND_MESSAGE, message, "send again")
            if info.is_continue_as_new_suggested():
                workflow.continue_as_new(ask.model_copy(update={"message_id": message_id, "thread": result.thread}))
        if ask.recurring is not None and ask.recurring.fail and result.state not in (*_OPEN, RunState.DONE):
            why = f": {result.error}" if result.error else ""
            raise ApplicationError(f"run {result.run_id} ended {result.state}{why}"[:2000], type="RunEnded")
        return result

    @workflow.signal(name="ended")
    def ended(self, run_id: str) -> None:  # the signal's contract
        """Hear from the thread that the run has ended."""
        self._ended = True

    async def _do(self, activity: Activity, arg: SendMessage | ReadAnswer, summary: str) -> AskResult:
        result: AskResult = await options.execute(activity, arg, AskResult, Limits(), summary=summary)
        return result


def _message_id(workflow_id: str) -> str:
    """Return the workflow's id as that of its message, which may not be as long."""
    if len(workflow_id) <= _LONGEST_ID and workflow_id.isprintable():
        return workflow_id
    return f"ask-{hashlib.sha256(workflow_id.encode()).hexdigest()}"


def _scheduled_at(info: workflow.Info) -> datetime | None:
    """Return the time this occurrence was scheduled for, as the Schedule says it: never the time it is now."""
    at = info.typed_search_attributes.get(_SCHEDULED)
    if at is not None:
        return at
    found = _APPENDED.search(info.workflow_id)
    return datetime.fromisoformat(f"{found[1]}+00:00") if found else None
