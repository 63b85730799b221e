"""Who waits for a worker may stop waiting."""

from __future__ import annotations

import asyncio
import time

import pytest

from holdfast.contracts import Accepted, Message
from holdfast.ids import workflow_id_for
from holdfast.wire import Wire
from tests.conftest import MakeWorld


async def test_a_client_that_is_cancelled_lets_go_at_once(make_world: MakeWorld) -> None:
    """With no worker up, a time-out around a send ends it, long before the client's own patience does."""
    world = await make_world("")
    wire = await Wire.open(world.settings)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await wire.update_with_start(
                workflow_id_for(world.settings.tenant, "t"),
                "message",
                Message(message_id="m1", agent="nobody", text="hello"),
                update_id="u1",
                result_type=Accepted,
            )
    assert time.monotonic() - began < world.settings.client_patience / 4
