"""Around every activity: it beats, its log lines carry thread, run and step, and its errors become Temporal's."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from holdfast.contracts import Activity
from holdfast.errors import (
    ConfigurationError,
    HoldfastError,
    InvalidInput,
    MemoryRefused,
    ModelRefused,
    ModelUnavailable,
    Refused,
    StaleWriter,
)
from holdfast.memory.database import UNSTORABLE
from holdfast.secrets import leaks, mask
from holdfast.settings import Settings

__all__ = ["FINAL", "BeatInterceptor"]

# What no other try can mend.
FINAL = (ConfigurationError, InvalidInput, MemoryRefused, ModelRefused, Refused, StaleWriter)
# Found in an input only by a mistake of ours, as each is checked before; but then each try would end so, for ever.
HOPELESS = (ValidationError, UnicodeError, *UNSTORABLE)
_FOREIGN = frozenset({Activity.TOOL_STEP, Activity.MODEL_STEP})  # run code of users, and count what it fails with
_OURS = frozenset(Activity)  # in a worker of a user's own there are others, whose beats and errors are theirs


class BeatInterceptor(Interceptor):
    """Installed by the runtime in every worker."""

    def __init__(self, settings: Settings) -> None:
        self._beat = settings.scaled(settings.beat)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Put ours around *next*."""
        return _Inbound(next, self._beat)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, beat: float) -> None:  # noqa: A002
        super().__init__(next)
        self._every = beat

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        if info.activity_type not in _OURS:
            return await super().execute_activity(input)
        arg = input.args[0] if input.args else None
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            thread=info.workflow_id,
            activity=info.activity_type,
            attempt=info.attempt,
            **{name: value for name in ("run_id", "step_no") if (value := getattr(arg, name, None)) is not None},
        )
        allowed = info.heartbeat_timeout  # short workflows know no settings, so theirs may be shorter than our scale
        every = self._every if allowed is None else min(self._every, allowed.total_seconds() / 4)
        beat = asyncio.create_task(_beat(every))
        try:
            return await super().execute_activity(input)
        except Exception as exc:
            hopeless = isinstance(exc, HOPELESS) and info.activity_type not in _FOREIGN
            raised = _as_temporal(exc) if hopeless or isinstance(exc, HoldfastError) else exc
            if leaks(exc):  # an error goes into the history with all that it came from
                raise _masked(raised) from None
            if raised is exc:
                raise
            raise raised from exc
        finally:
            beat.cancel()


async def _beat(every: float) -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(every)


def _as_temporal(exc: Exception) -> ApplicationError:
    after = exc.retry_after if isinstance(exc, ModelUnavailable) else None
    return ApplicationError(
        str(exc),
        type=type(exc).__name__,
        non_retryable=isinstance(exc, (*FINAL, *HOPELESS)),
        next_retry_delay=timedelta(seconds=after) if after is not None else None,
    )


def _masked(exc: Exception) -> ApplicationError:
    if not isinstance(exc, ApplicationError):
        return ApplicationError(mask(str(exc)), type=type(exc).__name__)
    return ApplicationError(
        mask(exc.message), type=exc.type, non_retryable=exc.non_retryable, next_retry_delay=exc.next_retry_delay
    )
