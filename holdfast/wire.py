"""The client's line to Temporal: updates that are tried again until somebody takes them. Only the link makes one.

A module of its own because importing the Temporal client takes half a second that reading does not need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio.api.failure.v1 import Failure
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHistory, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from holdfast import errors
from holdfast.contracts import Contract
from holdfast.convert import causes, data_converter, quiet_runtime
from holdfast.errors import HoldfastError, InvalidInput, StackError
from holdfast.link import Elsewhere, NotRunning
from holdfast.sending import CLOSED_UNDER_US, ELSEWHERE, refused_as, update_with_start
from holdfast.settings import Settings

__all__ = ["TRANSIENT", "Wire"]

Out = TypeVar("Out", bound=Contract)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_CLOCKS = timedelta(minutes=10)  # by which the clocks of Temporal and PostgreSQL may differ
TRANSIENT = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,  # also of a query, which a loaded server answers late
    RPCStatusCode.CANCELLED,
    RPCStatusCode.ABORTED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
}
"""Refusals of Temporal's that pass: what was sent may be sent again, if it is safe to repeat."""

_FAILS_NOW = RPCStatusCode.FAILED_PRECONDITION  # the thread's workflow task fails: its worker may be replaced


class Wire:
    """A connection to Temporal, and how long it is patient."""

    def __init__(self, temporal: TemporalClient, settings: Settings) -> None:
        self.temporal = temporal
        self._settings = settings
        self._patience = settings.scaled(settings.client_patience)

    @classmethod
    async def open(cls, settings: Settings) -> Wire:
        """Connect to the address in *settings*.

        Raises:
            StackError: it does not answer; the message says what to check.

        """
        assert settings.temporal_address is not None
        try:
            temporal = await TemporalClient.connect(
                settings.temporal_address,
                namespace=settings.temporal_namespace,
                data_converter=data_converter,
                runtime=quiet_runtime(),
                connect_timeout=timedelta(seconds=10),
            )
        except (RuntimeError, RPCError, ValueError, OSError) as exc:
            raise StackError(
                f"Temporal at {settings.temporal_address} does not answer: {exc}. "
                "Check TEMPORAL_ADDRESS and that the server is up; `holdfast doctor` tells more."
            ) from exc
        return cls(temporal, settings)

    async def update_with_start(
        self,
        workflow_id: str,
        name: str,
        arg: Contract,
        *,
        update_id: str,
        result_type: type[Out],
        queue: str | None = None,
    ) -> Out:
        """Send an update to the thread's workflow, starting it on *queue*, or on that of the settings, if none runs.

        Raises:
            Elsewhere: a workflow runs, on another queue than the message is for.
            InvalidInput (or the subclass the workflow names): the update was refused.
            StackError: nobody took it within `client_patience`.

        """

        async def send() -> Out:
            return await update_with_start(
                self.temporal,
                self._settings,
                workflow_id,
                name,
                arg,
                update_id=update_id,
                result_type=result_type,
                queue=queue,
            )

        return await self._insist(send)

    async def update(
        self, workflow_id: str, name: str, arg: Contract, *, update_id: str, result_type: type[Out]
    ) -> Out:
        """Send an update to the thread's running workflow. The same *update_id* is never carried out twice.

        Raises:
            NotRunning: there is no such workflow, or it has closed.
            InvalidInput (or the subclass the workflow names): the update was refused.
            StackError: nobody took it within `client_patience`.

        """

        async def send() -> Out:
            handle = self.temporal.get_workflow_handle(workflow_id)
            out: Out = await handle.execute_update(name, arg, id=update_id, result_type=result_type)
            return out

        return await self._insist(send)

    async def query(self, workflow_id: str, name: str, result_type: type[Out]) -> Out:
        """Ask the thread's workflow, running or closed.

        Raises:
            NotRunning: there never was one, or its history is gone.
            StackError: nobody answered within `client_patience`.

        """

        async def send() -> Out:
            out: Out = await self.temporal.get_workflow_handle(workflow_id).query(name, result_type=result_type)
            return out

        return await self._insist(send)

    async def trouble(self, workflow_id: str) -> list[str]:
        """Return what failed in the thread's workflow and is tried again.

        Raises:
            StackError: Temporal does not answer.

        """
        handle = self.temporal.get_workflow_handle(workflow_id)
        try:
            described = await handle.describe(rpc_timeout=timedelta(seconds=3))
        except RPCError as exc:
            if exc.status == RPCStatusCode.NOT_FOUND:
                return []
            raise StackError(f"Temporal at {self._settings.temporal_address} does not answer") from exc
        raw = described.raw_description
        found = [
            f"{pending.activity_type.name}, attempt {pending.attempt - 1} failed: {_told(pending.last_failure)}"
            for pending in raw.pending_activities
            if pending.attempt > 1 and pending.HasField("last_failure")
        ]
        if raw.pending_workflow_task.attempt > 1:
            found.append(f"its workflow code fails, attempt {raw.pending_workflow_task.attempt}: see the worker's log")
        return found

    async def histories(
        self, workflow_id: str, mentioning: str, *, since: datetime, until: datetime
    ) -> list[WorkflowHistory]:
        """Return the histories of this workflow's executions of that time that have *mentioning* in them, in order.

        None are returned of executions that Temporal has forgotten (the namespace's retention).

        Raises:
            StackError: Temporal does not answer.

        """
        try:
            started = await self._executions(workflow_id, since - _CLOCKS, until + _CLOCKS)
            newest = await self.temporal.get_workflow_handle(workflow_id).describe()  # may not be listed yet
            started[newest.run_id] = newest.start_time
            histories = [
                await self.temporal.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
                for run_id in sorted(started, key=lambda each: started[each])
            ]
        except RPCError as exc:
            if exc.status == RPCStatusCode.NOT_FOUND:
                return []
            raise StackError(
                f"The history of {workflow_id} cannot be read from Temporal at {self._settings.temporal_address}: "
                f"{exc.message}"
            ) from exc
        wanted = mentioning.encode()
        return [each for each in histories if any(wanted in event.SerializeToString() for event in each.events)]

    async def _executions(self, workflow_id: str, since: datetime, until: datetime) -> dict[str, datetime]:
        """Return the executions of this time with their start, as far as they are listed."""
        query = (
            f"WorkflowId = '{workflow_id}' AND StartTime <= '{until.isoformat()}' "
            f"AND (ExecutionStatus = 'Running' OR CloseTime >= '{since.isoformat()}')"
        )
        try:
            return {found.run_id: found.start_time async for found in self.temporal.list_workflows(query)}
        except RPCError as exc:
            if exc.status != RPCStatusCode.UNIMPLEMENTED:  # Temporal's time-skipping test server lists nothing
                raise
            return {}

    async def _insist(self, send: Callable[[], Awaitable[Out]]) -> Out:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        cancelled = task.cancelling() if task is not None else 0
        deadline, pause = loop.time() + self._patience, _FIRST_PAUSE
        while True:
            lost: BaseException
            try:
                async with asyncio.timeout_at(deadline):
                    return await send()
            except WorkflowUpdateFailedError as exc:
                if refused_as(exc) == ELSEWHERE:
                    raise Elsewhere(str(exc.cause)) from exc
                if refused_as(exc) != CLOSED_UNDER_US:
                    raise _refusal(exc) from exc
                lost = exc
            except RPCError as exc:
                if exc.status == RPCStatusCode.NOT_FOUND:
                    raise NotRunning(str(exc)) from exc
                if exc.status not in TRANSIENT and exc.status != _FAILS_NOW:
                    raise StackError(
                        f"Temporal refused the request: {str(exc).rstrip('.')}. `holdfast doctor` tells more."
                    ) from exc
                lost = exc
            except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError) as exc:
                if task is not None and task.cancelling() > cancelled:
                    raise asyncio.CancelledError from exc  # the SDK turns a cancel of its caller into this error
                lost = exc
            if loop.time() + pause > deadline:
                why = str(lost).rstrip(".") or type(lost).__name__
                raise StackError(
                    f"No worker took this for {self._patience:.0f} s ({why}). Either Temporal at "
                    f"{self._settings.temporal_address} is down, or no worker serves the queue "
                    f"{self._settings.task_queue!r}. See `holdfast doctor`; sending the same again is safe."
                ) from lost
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _refusal(exc: WorkflowUpdateFailedError) -> HoldfastError:
    """Return the refusal as the workflow meant it; its message is for people."""
    cause = exc.cause
    kind = refused_as(exc)
    meant = getattr(errors, kind, None) if kind in errors.__all__ else None
    text = cause.message if isinstance(cause, ApplicationError) else str(cause or exc)
    if isinstance(meant, type) and issubclass(meant, HoldfastError):
        return meant(text)
    return InvalidInput(text)


def _told(failure: Failure) -> str:
    """Return a failure's message, and the innermost of its causes where the message does not have it; ours have it."""
    inner = causes(failure)[-1].message.strip()
    said = failure.message.strip()
    if failure.application_failure_info.type in errors.__all__:
        return said
    return said if not inner or inner.rstrip(".") in said else f"{said} Cause: {inner}"
