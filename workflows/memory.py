"""MemoryWorkflow answers a question to long-term memory; OutboxWorkflow carries over what waits to be remembered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

from holdfast.contracts import (
    MEMORY_WORKFLOW,
    OUTBOX_WORKFLOW,
    Activity,
    Limits,
    MemoryAnswer,
    MemoryQuestion,
    Remember,
    Remembered,
)
from holdfast.workflows import options
from holdfast.workflows.inputs import parse

__all__ = ["MemoryWorkflow", "OutboxWorkflow"]


@workflow.defn(name=MEMORY_WORKFLOW)
class MemoryWorkflow:
    """A short question to long-term memory; it runs on the memory queue."""

    @workflow.run
    async def run(self, given: Any = None) -> MemoryAnswer:
        """Return the best hits of the tenant. The input is a `MemoryQuestion` as JSON."""
        question = parse(MemoryQuestion, given)
        answer: MemoryAnswer = await options.execute(
            Activity.SEARCH_MEMORY, question, MemoryAnswer, Limits(), summary="search"
        )
        return answer


@workflow.defn(name=OUTBOX_WORKFLOW)
class OutboxWorkflow:
    """Carries outbox rows into long-term memory until none is left; the memory worker starts it."""

    @workflow.run
    async def run(self) -> int:
        """Return how many rows were carried over."""
        count = 0
        while True:
            done: Remembered = await options.start(
                Activity.REMEMBER, Remember(), Remembered, Limits(), summary="drain", timeout=timedelta(minutes=5)
            )
            count += done.count
            if done.left == 0 or done.count == 0:
                return count
