"""What every Temporal client and worker of Holdfast is made with: one data converter, one runtime that keeps quiet."""

from __future__ import annotations

from functools import lru_cache

from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

__all__ = ["data_converter", "quiet_runtime"]

data_converter: DataConverter = pydantic_data_converter


@lru_cache(maxsize=1)
def quiet_runtime() -> Runtime:
    """Return the SDK's runtime of this process.

    Left to itself the SDK writes each of its own retries to standard output, in the middle of an answer or of JSON; who
    waits hears of an outage by our errors. Its default telemetry counts nothing we read.
    """
    quiet = TelemetryFilter(core_level="ERROR", other_level="ERROR")
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=quiet)))
