"""A text that the embedding model refuses for good: it is set aside, and everything else goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from aiohttp import web
from temporalio.client import WorkflowFailureError

from holdfast.contracts import MEMORY_WORKFLOW, MemoryAnswer, MemoryQuestion
from holdfast.memory.embeddings import DIMENSIONS, Vectors, embed_texts
from holdfast.memory.qdrant_edge import QdrantEdgeMemory
from holdfast.runtime import connect_temporal, memory_worker, open_deps
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, serving, until

AGENTS = """
from holdfast import Agent

keeper = Agent(name="keeper", model="openai/test", instructions="Keep.", memory=True)
"""

SCRIPT = """
conversations:
  - when: use the tools
    replies:
      - call: [{remember: {text: an odd note}}, {recall: {query: odd words}}]
      - say: "told: {{last_tool}}"
  - replies: [{say: "Noted: {{user}}"}]
"""


class HttpEmbedder:
    """An embedding provider over HTTP, as a user would write it."""

    dimensions = DIMENSIONS

    def __init__(self, url: str) -> None:
        self._url = url

    def embed(self, texts: list[str]) -> Vectors:
        """Return the vectors that the server sends."""
        reply = httpx.post(f"{self._url}/embeddings", json={"input": texts}, timeout=PATIENCE)
        reply.raise_for_status()
        return np.asarray([each["embedding"] for each in reply.json()["data"]], dtype=np.float32)


class Provider:
    """The server: answers 400 to all that has *refused* in it, 503 while *away*."""

    def __init__(self, refused: str) -> None:
        self.refused, self.away, self.asked = refused, False, 0

    async def embeddings(self, request: web.Request) -> web.Response:
        """Embed, or refuse."""
        texts: list[str] = (await request.json())["input"]
        self.asked += 1
        if self.away:
            return web.json_response({"error": "overloaded"}, status=503)
        if any(self.refused in text for text in texts):
            return web.json_response({"error": "input not allowed"}, status=400)
        return web.json_response({"data": [{"embedding": row.tolist()} for row in embed_texts(texts)]})


@asynccontextmanager
async def memory(world: World, provider: Provider) -> AsyncIterator[None]:
    """Serve the memory queue of a world with that provider's embeddings."""
    app = web.Application()
    app.router.add_post("/embeddings", provider.embeddings)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(app))
        temporal = await connect_temporal(world.settings, identity="memory")
        deps = await stack.enter_async_context(open_deps(world.settings, temporal, role="memory", name="memory"))
        assert deps.memory is not None
        await deps.memory.close()
        deps.memory = QdrantEdgeMemory(world.folder / "edge", embedder=HttpEmbedder(f"http://127.0.0.1:{port}"))
        await deps.memory.open()
        stack.push_async_callback(deps.memory.close)
        await stack.enter_async_context(await memory_worker(deps, stack))
        yield


async def waiting(world: World) -> list[dict[str, Any]]:
    """Return the outbox."""
    return await world.rows("select text, refused_at, refusal from outbox order by id")


async def test_a_text_that_is_never_embedded_keeps_nothing_else_waiting(make_world: MakeWorld) -> None:
    """It is set aside with the reason, and what came before and after it is remembered; also after an outage."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, memory_wait=0.5)
        await world.worker()
        client = await world.client()
        for number, text in enumerate(["The gate is blue.", "An odd thing.", "The harbour master is called Quimby."]):
            run = await client.start("keeper", text, thread=f"t{number}")
            await run.result(timeout=PATIENCE)
        assert len(await waiting(world)) == 3
        provider = Provider("odd")
        provider.away = True
        async with memory(world, provider):
            await until(lambda: provider.asked >= 3, "the outbox is tried while the provider is away")
            assert [row["refused_at"] for row in await waiting(world)] == [None] * 3, "an outage sets nothing aside"
            provider.away = False

            async def flowed() -> bool:
                return len(await waiting(world)) == 1

            await until(flowed, "the others are remembered")

            async def set_aside() -> bool:
                return (await waiting(world))[0]["refused_at"] is not None

            await until(set_aside, "the refused one is set aside")
            [row] = await waiting(world)
            assert "odd" in row["text"]
            assert "HTTP 400" in row["refusal"]
            run = await client.start("keeper", "The key is green.", thread="t9")
            await run.result(timeout=PATIENCE)
            await until(flowed, "what comes later is remembered as well")


async def test_a_memory_that_refuses_every_text_sets_nothing_aside(make_world: MakeWorld) -> None:
    """All rows wait while each answer is a 400; once that is corrected, they are remembered without a hand on SQL."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, memory_wait=0.5)
        await world.worker()
        client = await world.client()
        for number in range(3):
            run = await client.start("keeper", f"Gate {number} is blue.", thread=f"t{number}")
            await run.result(timeout=PATIENCE)
        provider = Provider("")  # in each text
        async with memory(world, provider):

            async def tried() -> bool:
                rows = await world.rows("select tries, refused_at from outbox")
                assert [row["refused_at"] for row in rows] == [None] * 3, "nothing is set aside"
                return sum(int(row["tries"]) for row in rows) >= 3

            await until(tried, "the outbox is tried several times")
            run = await client.start("keeper", "use the tools", thread="tool")
            await run.result(timeout=PATIENCE)
            results = [event.data["preview"] for event in await run.recorded() if event.kind == "tool_done"]
            assert any("noted" in preview for preview in results), "what the tool is told to keep waits as well"
            provider.refused = "nobody says this"

            async def empty() -> bool:
                return not await waiting(world)

            await until(empty, "all are remembered")


async def test_a_refused_text_that_is_alone_is_set_aside(make_world: MakeWorld) -> None:
    """No other row shows that memory takes texts, so a probe does; of the probe nothing remains."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, memory_wait=0.5)
        await world.worker()
        run = await (await world.client()).start("keeper", "An odd thing.", thread="t")
        await run.result(timeout=PATIENCE)
        async with memory(world, Provider("odd")):

            async def set_aside() -> bool:
                return (await waiting(world))[0]["refused_at"] is not None

            await until(set_aside, "it is set aside")
            [row] = await waiting(world)
            assert "HTTP 400" in row["refusal"]
            run = await (await world.client()).start("keeper", "The key is green.", thread="t2")
            await run.result(timeout=PATIENCE)

            async def flowed() -> bool:
                return len(await waiting(world)) == 1

            await until(flowed, "what comes later is remembered")


async def test_a_question_that_is_never_embedded_ends(make_world: MakeWorld) -> None:
    """As an error where it was asked alone, as a tool's error for the model, as no recall at the start of a run."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        provider = Provider("odd")
        await world.worker()
        async with memory(world, provider):
            temporal = await connect_temporal(world.settings, identity="test")
            with pytest.raises(WorkflowFailureError) as failed:
                await temporal.execute_workflow(
                    MEMORY_WORKFLOW,
                    MemoryQuestion(tenant=world.settings.tenant, text="what is odd?"),
                    id=f"{world.settings.tenant}-question",
                    task_queue=world.settings.memory_queue,
                    result_type=MemoryAnswer,
                )
            assert "HTTP 400" in str(failed.value.cause.__cause__)
            client = await world.client()
            run = await client.start("keeper", "something odd", thread="a")
            assert "odd" in (await run.result(timeout=PATIENCE)).output
            [why] = [event.data["why"] for event in await run.recorded() if event.kind == "memory_unavailable"]
            assert "HTTP 400" in why
            run = await client.start("keeper", "use the tools", thread="b")
            assert "cannot search for this text" in (await run.result(timeout=PATIENCE)).output
            results = [event.data for event in await run.recorded() if event.kind == "tool_done"]
            assert [each["status"] for each in results] == ["error", "error"]
            assert any("cannot be remembered" in each["preview"] for each in results), "both are carried out at once"
