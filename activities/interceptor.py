"""Around every activity: it beats, its log lines carry thread, run and step, and its errors become Temporal's."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from holdfast.errors import (
    ConfigurationError,
    HoldfastError,
    InvalidInput,
    ModelRefused,
    ModelUnavailable,
    StaleWriter,
)
from holdfast.settings import Settings

__all__ = ["FINAL", "BeatInterceptor"]

FINAL = (ConfigurationError, InvalidInput, ModelRefused, StaleWriter)  # what no other try can mend


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
        except HoldfastError as exc:
            raise _as_temporal(exc) from exc
        finally:
            beat.cancel()


async def _beat(every: float) -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(every)


def _as_temporal(exc: HoldfastError) -> ApplicationError:
    after = exc.retry_after if isinstance(exc, ModelUnavailable) else None
    return ApplicationError(
        str(exc),
        type=type(exc).__name__,
        non_retryable=isinstance(exc, FINAL),
        next_retry_delay=timedelta(seconds=min(after, 3600)) if after is not None else None,
    )
