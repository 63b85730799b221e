"""The one data converter of every Temporal client and worker of Holdfast; client, runtime and tests use it."""

from __future__ import annotations

from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter

__all__ = ["data_converter"]

data_converter: DataConverter = pydantic_data_converter
