"""What the pages are run in: a desk with a worker and a model that follows a script."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.docs.desk import AGENTS, SCRIPT, Desk
from tests.pages import blocks
from tests.terminal import Terminal


@pytest.fixture
async def desk(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Give a desk; its agents file has the tool of the page about effects as well."""
    [source] = [block.text for block in blocks("python") if "def ship(" in block.text]
    async with ModelServer(SCRIPT) as models:
        agents = AGENTS.replace("letter])", "letter, ship])")
        head, _, rest = agents.partition("support = Agent(")
        world = await make_world(f"{head}{source}\nsupport = Agent({rest}", api_base=models.base_url)
        await world.worker()
        client = await world.client()
        terminal = Terminal(world, client)
        for name, value in terminal.environment().items():
            monkeypatch.setenv(name, value)
        yield Desk(world, client, terminal)
