"""AskWorkflow: one question, one answer, for any Temporal client, the Web UI and Schedules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

from holdfast.contracts import ASK_WORKFLOW, Activity, Ask, AskResult, Limits, ReadAnswer, RunState, SendMessage
from holdfast.workflows import options
from holdfast.workflows.inputs import parse

__all__ = ["AskWorkflow"]

_LOOKS = (10.0, 60.0, 600.0)  # seconds between looks, should the signal be lost
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
        message_id = ask.message_id or info.workflow_id
        result: AskResult = await self._do(
            Activity.SEND_MESSAGE, SendMessage(ask=ask, thread=ask.thread or "", message_id=message_id), "send"
        )
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
            if info.is_continue_as_new_suggested():
                workflow.continue_as_new(ask.model_copy(update={"message_id": message_id, "thread": result.thread}))
        return result

    @workflow.signal(name="ended")
    def ended(self, run_id: str) -> None:  # the signal's contract
        """Hear from the thread that the run has ended."""
        self._ended = True

    async def _do(self, activity: Activity, arg: SendMessage | ReadAnswer, summary: str) -> AskResult:
        result: AskResult = await options.execute(activity, arg, AskResult, Limits(), summary=summary)
        return result
