"""A required plugin that blocks its own event loop for ever: runs end with a reason, and the worker ends in time."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import RunEnded
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE

AGENTS = """
import threading
from holdfast import Agent, Plugin
from holdfast.plugins import At, Reply

class Guard(Plugin):
    async def after_model(self, at: At, reply: Reply) -> None:
        threading.Event().wait()

    async def stop(self) -> None: ...

plugins = [Guard()]
agent = Agent("agent", "openai/test", "Help.")
"""

SCRIPT = """
conversations:
  - replies:
      - say: "nobody may read this"
"""


async def test_a_reply_that_its_guard_never_sees_is_withheld(make_world: MakeWorld) -> None:
    """It waits for `hook_wait`; then the run fails and names the plugin, and the worker still exits in order."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, hook_timeout=0.3, hook_wait=1.0)
        worker = await world.worker()
        client = await world.client()
        run = await client.start("agent", "hello", thread="wedged")
        with pytest.raises(RunEnded, match="Guard, which must see this reply, failed: it could not be called for"):
            await run.result(timeout=PATIENCE)
        assert [event.data["did"] for event in await run.recorded() if "did" in event.data] == ["failed"]
        assert "nobody" not in str([message.body for message in await run.messages()])
        assert await asyncio.wait_for(worker.end(), PATIENCE) == 0
