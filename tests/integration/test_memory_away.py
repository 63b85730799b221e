"""A Qdrant server that is away keeps no worker from starting and no run from its end; back again, it is used."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack

from aiohttp import web
from qdrant_client import QdrantClient

from holdfast import Client
from holdfast.testing import ModelServer
from scripts.compose_kit.qdrant_stand_in import application
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, until

AGENTS = """
from holdfast import Agent

keeper = Agent(name="keeper", model="openai/test", instructions="Keep.", memory=True)
"""

SCRIPT = """
conversations:
  - when: keep
    replies:
      - call: [{remember: {text: The gate is blue.}}, {recall: {query: gate}}]
      - say: "told: {{last_tool}}"
  - replies: [{say: "Noted: {{user}}"}]
"""


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


async def recalls(client: Client) -> bool:
    """Start a run and say whether it was given something of what is remembered."""
    run = await client.start("keeper", "What is the harbour master called?")
    await run.result(timeout=PATIENCE)
    return "recalled" in [event.kind for event in await run.recorded()]


async def test_a_worker_starts_and_runs_go_on_while_qdrant_is_away(make_world: MakeWorld) -> None:
    """Runs say that memory is away and end, also where the model uses it; when Qdrant comes, nothing is missing."""
    port = free_port()
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(ModelServer(SCRIPT))
        world = await make_world(AGENTS, api_base=models.base_url, qdrant_url=f"http://127.0.0.1:{port}")
        await world.worker()
        client = await world.client()
        run = await client.start("keeper", "The harbour master is called Quimby.", thread="a")
        assert "Quimby" in (await run.result(timeout=PATIENCE)).output
        assert "memory_unavailable" in [event.kind for event in await run.recorded()]
        kept = await client.run("keeper", "keep", thread="b", timeout=PATIENCE)
        assert "does not answer at the moment" in kept.output
        assert {row["kind"] for row in await world.rows("select kind from outbox")} == {"answer", "note"}

        runner = web.AppRunner(application(QdrantClient(":memory:")))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", port).start()

        async def drained() -> bool:
            return not await world.rows("select 1 from outbox")

        await until(drained, "what waited is remembered")
        await until(lambda: recalls(client), "a later run recalls")
