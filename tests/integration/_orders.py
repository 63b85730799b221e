"""Workflows and activities as a user of Temporal has them; in a module that the sandbox may import again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy

from holdfast.contracts import Ask, AskResult

__all__ = ["Handle", "Waits", "hangs", "price"]


@activity.defn
async def price(order: str) -> int:
    """Return what an order costs: an activity of the user's."""
    return 40 + len(order)


@activity.defn
async def hangs() -> None:
    """Never beat, so that Temporal can see that it hangs."""
    await asyncio.sleep(3600)


@workflow.defn
class Handle:
    """A workflow of the user's: asks its own activity, then an agent."""

    @workflow.run
    async def run(self, order: str) -> str:
        """Return both answers."""
        cost = await workflow.execute_activity(price, order, start_to_close_timeout=timedelta(seconds=60))
        said: AskResult = await workflow.execute_child_workflow(
            "AskWorkflow", Ask(agent="support", text=f"Where is order {order}?"), result_type=AskResult
        )
        return f"{cost}: {said.answer}"


@workflow.defn
class Waits:
    """A workflow of the user's whose activity hangs."""

    @workflow.run
    async def run(self) -> None:
        """Wait for it."""
        await workflow.execute_activity(
            hangs,
            start_to_close_timeout=timedelta(seconds=3600),
            heartbeat_timeout=timedelta(seconds=1.0),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
