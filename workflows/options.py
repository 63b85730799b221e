"""How each activity is scheduled: time-outs from the one scalable constant, retries that outlast an outage."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from holdfast.contracts import CONTROL, Activity, Call, Limits
from holdfast.ids import control_queue

__all__ = ["MEMORY_ONCE", "RETRY", "execute", "start", "task_timeout", "tool_timeout"]

# Infrastructure may be gone for an hour and the run still goes on. Whether a *tool* or a *model* has failed for good is
# decided inside its activity, which then returns an outcome or raises a non-retryable error.
RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=10)
)
MEMORY_ONCE = RetryPolicy(maximum_attempts=1)

_QUICK = timedelta(seconds=60)  # one transaction


def start(
    activity: Activity,
    arg: Any,
    result_type: type,
    limits: Limits,
    *,
    summary: str | None = None,
    timeout: timedelta = _QUICK,
    queue: str | None = None,
    retry: RetryPolicy = RETRY,
    schedule_to_start: timedelta | None = None,
) -> workflow.ActivityHandle[Any]:
    """Schedule an activity by its name. A cancel is sent and not waited for: the ledger decides what became of it."""
    if queue is None and activity in CONTROL:
        queue = control_queue(workflow.info().task_queue)
    return workflow.start_activity(
        activity.value,
        arg,
        result_type=result_type,
        task_queue=queue,
        start_to_close_timeout=timeout,
        schedule_to_start_timeout=schedule_to_start,
        heartbeat_timeout=timedelta(seconds=limits.lease),
        retry_policy=retry,
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        summary=summary,
    )


async def execute(
    activity: Activity, arg: Any, result_type: type, limits: Limits, *, summary: str | None = None
) -> Any:
    """Run a quick activity, one transaction long, to its end."""
    return await start(activity, arg, result_type, limits, summary=summary)


def task_timeout(limits: Limits) -> timedelta:
    """Return how long a workflow task of a killed worker is waited for, on every start we make."""
    return timedelta(seconds=limits.task_timeout)


def tool_timeout(call: Call, limits: Limits) -> timedelta:
    """Return the time one attempt may take: to wait out a lost owner, to look the call up, and to send it."""
    return timedelta(seconds=2 * call.timeout + call.settle + 10 * limits.lease + limits.hook_time + 30)
