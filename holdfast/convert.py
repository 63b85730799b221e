"""What every Temporal client and worker of Holdfast is made with: one data converter, one runtime that keeps quiet."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

__all__ = ["FAILURE_MAX", "BoundedFailureConverter", "causes", "data_converter", "quiet_runtime"]

FAILURE_MAX: Final = 3800
"""Bytes of a failure, causes included. Of an attempt that is retried, the server keeps no failure over 4 KiB: it stores
`Failure exceeds size limit.` in place of the message."""
_MESSAGE: Final = 1600  # bytes of the outermost and of the innermost message, before all else is left out
_TRACE: Final = 700  # bytes of the innermost frames of a stack trace
_LINKS: Final = 4  # of a chain of causes: the outermost one and the innermost ones


class BoundedFailureConverter(DefaultFailureConverter):
    """Keeps what tells most of a failure within what the server stores: both ends of its causes, the last frames."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Convert as the SDK does, then cut; it calls itself for each cause."""
        super().to_failure(exception, payload_converter, failure)
        if failure.ByteSize() > FAILURE_MAX:
            _bound(failure)


def causes(failure: Failure) -> list[Failure]:
    """Return a failure and its causes, outermost first."""
    found = [failure]
    while found[-1].HasField("cause"):
        found.append(found[-1].cause)
    return found


def _bound(failure: Failure) -> None:
    chain = causes(failure)
    if len(chain) > _LINKS:
        kept = Failure()
        kept.CopyFrom(chain[len(chain) - _LINKS + 1])
        failure.cause.CopyFrom(kept)
        chain = causes(failure)
    for link in chain:
        link.message = _cut(link.message, _MESSAGE)
        link.stack_trace = _last(link.stack_trace, _TRACE)
    for link in [*chain[1:-1], chain[-1], chain[0]]:  # the least telling first
        if failure.ByteSize() <= FAILURE_MAX:
            return
        link.stack_trace = ""
        if link is not chain[0] and link is not chain[-1]:
            link.message = _cut(link.message, 100)
    if failure.ByteSize() > FAILURE_MAX:  # details that an author of a tool gave
        for link in chain:
            link.application_failure_info.ClearField("details")


def _cut(text: str, size: int) -> str:
    raw = text.encode()
    return text if len(raw) <= size else raw[:size].decode(errors="ignore") + "…"


def _last(trace: str, size: int) -> str:
    raw = trace.encode()
    if len(raw) <= size:
        return trace
    tail = raw[-size:].decode(errors="ignore")
    return "…\n" + tail.partition("\n")[2]


data_converter: DataConverter = DataConverter(
    payload_converter_class=PydanticPayloadConverter, failure_converter_class=BoundedFailureConverter
)


@lru_cache(maxsize=1)
def quiet_runtime() -> Runtime:
    """Return the SDK's runtime of this process.

    Left to itself the SDK writes each of its own retries to standard output, in the middle of an answer or of JSON; who
    waits hears of an outage by our errors. Its default telemetry counts nothing we read.
    """
    quiet = TelemetryFilter(core_level="ERROR", other_level="ERROR")
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=quiet)))
