"""The ground of the conformance suite under pytest: servers and nursery, started once for all its tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.conformance.servers import Ground
from tests.conformance.servers import ground as start


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ground() -> AsyncIterator[Ground]:
    """Return what drives and controls stand on; tests that use it mark themselves loop_scope="session"."""
    async with start() as given:
        yield given
