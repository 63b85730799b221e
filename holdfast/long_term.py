"""What a worker does for long-term memory beside its activities: opens it, drains the outbox. The runtime calls it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from holdfast.activities.deps import Deps
from holdfast.contracts import OUTBOX_WORKFLOW
from holdfast.errors import StorageError
from holdfast.memory import outbox
from holdfast.memory.database import UNAVAILABLE
from holdfast.memory.longterm import LongTermMemory
from holdfast.private import make_private
from holdfast.settings import Settings

__all__ = ["drain_outbox", "keep_opening", "open_memory"]

log = structlog.get_logger(__name__)


def open_memory(settings: Settings) -> LongTermMemory:
    """Return the memory that the settings name: on a Qdrant server, or in a folder. It is not open yet."""
    if settings.qdrant_url:
        from holdfast.memory.qdrant_server import QdrantServerMemory

        return QdrantServerMemory(settings.qdrant_url, api_key=settings.qdrant_api_key)
    from holdfast.memory.qdrant_edge import QdrantEdgeMemory

    return QdrantEdgeMemory(make_private(settings.home) / "qdrant")


async def keep_opening(memory: LongTermMemory, settings: Settings) -> None:
    """Open a memory that lies on a server as soon as that answers. Until then runs go on without memory."""
    while True:
        try:
            await memory.open()
            log.info("the long-term memory is available")
            return
        except StorageError as exc:
            log.warning("the long-term memory does not answer: runs continue without it", error=str(exc))
        except Exception:  # tried again all the same: without this task memory would be gone for good
            log.exception("the long-term memory could not be opened: runs continue without it")
        await asyncio.sleep(settings.scaled(settings.sweep_every))


async def drain_outbox(deps: Deps) -> None:
    """Start the workflow that carries outbox rows over, whenever some are left."""
    while True:
        try:
            async with deps.pool.acquire() as conn:
                left = await outbox.count(conn)
            if left:
                await deps.client.start_workflow(
                    OUTBOX_WORKFLOW,
                    id=f"{deps.settings.memory_queue}-outbox",
                    task_queue=deps.settings.memory_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    task_timeout=timedelta(seconds=deps.settings.scaled(deps.settings.task_timeout)),
                )
        except (*UNAVAILABLE, RPCError) as exc:
            log.info("the memory outbox could not be checked", error=str(exc))
        except Exception:  # looked at again later
            log.exception("the memory outbox could not be checked")
        await asyncio.sleep(deps.settings.scaled(deps.settings.sweep_every))
