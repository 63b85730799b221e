"""Fixtures for every test: the session's servers, started once, and a world of its own for each test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from holdfast.memory.database import Pool, connect, migrate, open_pool
from holdfast.server import read_stack
from holdfast.testing import ModelServer
from tests._servers import addresses
from tests.kit import World
from tests.order import pytest_collection_modifyitems  # noqa: F401  # the longest files first
from tests.skips import pytest_configure  # noqa: F401  # a skipped test fails the run unless it is listed

MakeWorld = Callable[..., Awaitable[World]]

# A shell starts background jobs with SIGINT ignored, and every child inherits that: no test could press Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start Temporal and PostgreSQL for the session and return their addresses."""
    home = tmp_path_factory.mktemp("servers") / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "TEMPORAL_"))}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("_servers.py"))],
        env={**environment, "HOLDFAST_HOME": str(home), "HOLDFAST_AGENTS": str(home / "none.py")},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        info = read_stack(home)
        assert info is not None, f"the servers did not start: {line!r}"
        yield addresses(info)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()


@asynccontextmanager
async def _worlds(servers: dict[str, str], folder: Path) -> AsyncIterator[MakeWorld]:
    worlds: list[World] = []

    async def make(source: str, **overrides: Any) -> World:
        home = folder / f"world-{len(worlds)}"
        home.mkdir()
        world = await World.create(servers, home, source, **overrides)
        worlds.append(world)
        return world

    try:
        yield make
    finally:
        for world in worlds:
            await world.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def make_shared_world(
    servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MakeWorld]:
    """Return a function that makes a world for all tests of a module; they mark themselves loop_scope="module"."""
    async with _worlds(servers, tmp_path_factory.mktemp("shared")) as make:
        yield make


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(request: pytest.FixtureRequest, make_shared_world: MakeWorld) -> AsyncIterator[World]:
    """Return one world with a worker for all tests of a module, as its mark `world(agents, script, **settings)` says.

    The script is that of the model server, or the function that replies; `world.models` is the server.
    """
    marker = request.node.get_closest_marker("world")
    agents, script = marker.args
    async with ModelServer(script) if isinstance(script, str) else ModelServer(reply=script) as models:
        world = await make_shared_world(agents, api_base=models.base_url, **marker.kwargs)
        world.models = models
        await world.worker()
        yield world


@pytest.fixture
async def make_world(servers: dict[str, str], tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Return a function that makes a world from the source of an agents file."""
    async with _worlds(servers, tmp_path) as make:
        yield make


@pytest.fixture
async def pool(servers: dict[str, str]) -> AsyncIterator[Pool]:
    """Return a pool on a database of the test's own."""
    name = f"t{uuid.uuid4().hex[:12]}"
    admin = await connect(servers["database_url"])
    await admin.execute(f"create database {name}")
    await admin.close()
    url = servers["database_url"].rpartition("/")[0] + f"/{name}"
    await migrate(url)
    pool = await open_pool(url, size=4, name="test")
    yield pool
    await pool.close()
