"""The pages about models and about servers of one's own: what they say to type is typed, beside the real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from holdfast import Client
from holdfast.memory.database import connect
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.docs.desk import AGENTS, SCRIPT
from tests.kit import PATIENCE, World, until
from tests.pages import ROOT, Page
from tests.terminal import Terminal


async def test_models(make_world: MakeWorld) -> None:
    """A key in the environment is all it takes."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, offline=False)
        await world.worker(OPENAI_API_KEY="none")
        environment = Terminal(world, await world.client()).environment()
        with Page("docs/howto/models.md") as page:
            done = await page.shell("export OPENAI_API_KEY", world.folder, environment)
        assert "It was delivered damaged." in done.out


async def test_production(make_world: MakeWorld, servers: dict[str, str]) -> None:
    """An empty database and the session's Temporal are prepared; the worker answers, and ends when it is told to."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        empty = f"{world.settings.tenant}_empty"
        admin = await connect(servers["database_url"])
        await admin.execute(f"create database {empty} owner {urlsplit(servers['owner_url']).username}")
        await admin.close()
        url = (world.settings.database_url or "").replace(world.settings.tenant, empty)
        with Page("docs/howto/production.md") as page:
            text = page.take("holdfast worker")
            for shown, real in (
                ("temporal:7233", servers["temporal_address"]),
                ("postgresql://holdfast:secret@postgres:5432/holdfast", url),
            ):
                assert shown in text
                text = text.replace(shown, real)
            await _serves(world, text, url)


async def _serves(world: World, text: str, url: str) -> None:
    """Run the block: a worker that answers, and ends when it is told to."""
    given = {**os.environ, **world.environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for name in ("HOLDFAST_TEMPORAL_ADDRESS", "HOLDFAST_DATABASE_URL"):
        del given[name]
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euc", text), cwd=ROOT, env=given, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        await until(lambda: _prepared(url), "a worker is ready", 2 * PATIENCE)
        async with await Client.connect(world.settings.model_copy(update={"database_url": url})) as client:
            answer = await client.run("support", "Where is order 17?", timeout=2 * PATIENCE)
        assert answer.output == "It was delivered damaged."
        os.killpg(process.pid, signal.SIGTERM)
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert b"Traceback" not in said
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


async def _prepared(url: str) -> bool:
    """Tell whether a worker has said which agents it has."""
    conn = await connect(url)
    try:
        if not await conn.fetchval("select to_regclass('holdfast.agents') is not null"):
            return False
        return bool(await conn.fetchval("select exists (select from agents)"))
    finally:
        await conn.close()
