"""One model call at a time for a step: waits while another worker has it in hand. `model_step` calls within it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from holdfast.activities.deps import Deps
from holdfast.memory import model_leases
from holdfast.memory.database import UNAVAILABLE

__all__ = ["alone"]


@asynccontextmanager
async def alone(deps: Deps, key: str, owner: str) -> AsyncIterator[None]:
    """Hold the lease of the model call *key* while the block runs; first wait for whoever has it now.

    Temporal may have given up an attempt that lives, on a starved machine or after an outage of its own. What that one
    has asked for is paid; the next finds its reply recorded, or makes the call once the owner's lease has run out.
    """
    settings = deps.settings
    while True:
        async with deps.pool.acquire() as conn:
            left = await model_leases.take(conn, key, owner, settings.scaled(settings.lease))
        if left is None:
            break
        await asyncio.sleep(min(left, settings.scaled(settings.beat) / 2) + 0.01)
    try:
        with deps.leases.hold_model(key, owner):
            yield
    finally:
        deps.spawn(_release(deps, key, owner))


async def _release(deps: Deps, key: str, owner: str) -> None:
    with suppress(*UNAVAILABLE):  # it runs out by itself
        async with deps.pool.acquire() as conn:
            await model_leases.release(conn, key, owner)
