"""The worker process of the plain loops: `python -m scripts.bench_kit.plain_worker`, configured by variables."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from holdfast import llm
from holdfast.llm import ModelRequest
from holdfast.memory.database import Pool, open_pool
from scripts.bench_kit.plain import MessagesInInputs, MessagesInPostgres

Json = dict[str, Any]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "page",
            "description": "Read one page.",
            "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
        },
    }
]
TABLE = (
    "create table if not exists plain_messages (id bigint generated always as identity primary key, "
    "thread text not null, body json not null)"
)


class PlainActivities:
    """The same model client and a tool as trivial as Holdfast's, without ledger, events or limits."""

    def __init__(self, pool: Pool, api_base: str) -> None:
        self._pool = pool
        self._api_base = api_base

    async def _model(self, messages: list[Json]) -> Json:
        request = ModelRequest(model="openai/test", messages=messages, tools=TOOLS, api_base=self._api_base)
        return (await llm.complete(request, on_delta=lambda _: None)).message

    async def _append(self, thread: str, body: Json) -> None:
        await self._pool.execute("insert into plain_messages (thread, body) values ($1, $2)", thread, json.dumps(body))

    @activity.defn
    async def call_model(self, messages: list[Json]) -> Json:
        """Return the model's message."""
        return await self._model(messages)

    @activity.defn
    async def call_tool(self, name: str, arguments: str) -> str:
        """Return the tool's result."""
        return f"page {json.loads(arguments)['number']}"

    @activity.defn
    async def store_question(self, thread: str, question: str) -> None:
        """Begin a conversation."""
        await self._append(thread, {"role": "user", "content": question})

    @activity.defn
    async def call_model_on_thread(self, thread: str) -> Json:
        """Return the model's calls, or its answer."""
        rows = await self._pool.fetch("select body from plain_messages where thread = $1 order by id", thread)
        reply = await self._model([json.loads(row["body"]) for row in rows])
        await self._append(thread, reply)
        return {"calls": reply.get("tool_calls") or [], "answer": reply.get("content")}

    @activity.defn
    async def call_tool_on_thread(self, thread: str, call: Json) -> None:
        """Store the tool's result."""
        result = await self.call_tool(call["function"]["name"], call["function"]["arguments"])
        await self._append(thread, {"role": "tool", "tool_call_id": call["id"], "content": result})


async def main() -> None:
    """Serve until killed."""
    await asyncio.to_thread(llm.warm)
    client = await Client.connect(os.environ["BENCH_TEMPORAL"])
    pool = await open_pool(os.environ["BENCH_DATABASE"], size=10, name="bench-plain")
    await pool.execute(TABLE)
    ready = Path(os.environ["BENCH_READY"])
    mine = PlainActivities(pool, os.environ["BENCH_API_BASE"])
    activities: list[Callable[..., Any]] = [
        mine.call_model,
        mine.call_tool,
        mine.store_question,
        mine.call_model_on_thread,
        mine.call_tool_on_thread,
    ]
    async with Worker(
        client,
        task_queue=os.environ["BENCH_QUEUE"],
        workflows=[MessagesInInputs, MessagesInPostgres],
        activities=activities,
    ):
        await asyncio.to_thread(ready.touch)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
