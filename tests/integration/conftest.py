"""What several integration tests make of the world they share."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest_asyncio

from holdfast import Client
from holdfast.schedules import ScheduleDesk
from tests.kit import World
from tests.terminal import Terminal


@pytest_asyncio.fixture(loop_scope="module")
async def terminal(world: World) -> AsyncIterator[Terminal]:
    """Return a terminal of a tenant of its own: no other test's runs are seen."""
    settings = world.settings.model_copy(update={"tenant": f"t{uuid.uuid4().hex[:12]}"})
    async with await Client.connect(settings) as client:
        yield Terminal(world, client)


@pytest_asyncio.fixture(loop_scope="module")
async def desk(world: World) -> AsyncIterator[ScheduleDesk]:
    """Return the schedules of the world's tenant."""
    async with await Client.connect(world.settings) as client:
        yield client.schedules
