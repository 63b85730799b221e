"""The world in which schedules are tried: two agents, a model that waits when it is told to, and what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from holdfast.schedules import ScheduleDesk, ScheduleView
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import World, until

__all__ = ["AGENTS", "Model", "answered", "clerks"]

AGENTS = """
from holdfast import Agent

clerk = Agent(name="clerk", model="openai/test")
other = Agent(name="other", model="openai/test")
"""


class Model:
    """Repeats what it is told; until it is `let_go` it waits before it answers `hold`."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.let_go = asyncio.Event()

    async def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request."""
        said = request["messages"][-1]["content"]
        if "hold" in said:
            self.waiting.set()
            await self.let_go.wait()
        if "fail" in said:
            return {"fault": {"status": 400, "message": "no", "times": "always"}}
        return {"say": f"heard {said}"}


@asynccontextmanager
async def clerks(make_shared_world: MakeWorld) -> AsyncIterator[World]:
    """Give one world with a worker, and delete its schedules afterwards."""
    model = Model()
    async with ModelServer(reply=model.reply, bodies=False) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        world.models = model
        await world.worker()
        yield world
        model.let_go.set()
        desk = (await world.client()).schedules
        for view in await desk.list():
            await desk.delete(view.name)


async def answered(desk: ScheduleDesk, name: str, count: int) -> ScheduleView:
    """Wait until so many occurrences of a schedule have ended, and return it."""

    async def look() -> ScheduleView | None:
        view = await desk.get(name)
        done = [occurrence for occurrence in view.recent if occurrence.ended_at is not None]
        return view if len(done) >= count else None

    view: ScheduleView = await until(look, f"{count} occurrences of {name} have ended")
    return view
