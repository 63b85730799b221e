"""`holdfast worker`: a worker on servers of one's own, started from any folder."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = 'from holdfast import Agent\nagent = Agent("agent", "openai/test", "Help.")\n'
DEAR = """
from holdfast import Agent, Budget
agent = Agent("agent", "hosted_vllm/x", api_base="http://127.0.0.1:9/v1", budget=Budget(usd=1))
"""
SERVERS = ("HOLDFAST_TEMPORAL_ADDRESS", "HOLDFAST_DATABASE_URL")
HERE = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "TEMPORAL_"))}


def start(folder: Path, *argv: str, **environment: str) -> subprocess.Popen[str]:
    """Start `holdfast worker` in a folder outside the checkout."""
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "holdfast"), "worker", *argv],
        cwd=folder,
        env=HERE | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


async def test_a_worker_is_started_from_any_folder(make_world: MakeWorld, tmp_path: Path) -> None:
    """It needs no file of the checkout, answers, and ends with 0 when it is told to."""
    async with ModelServer("conversations: [{replies: [{say: hello}]}]") as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        ready = folder / "ready"
        given = world.environment(HOLDFAST_READY_FILE=str(ready))
        del given["HOLDFAST_AGENTS"]
        process = start(folder, "--agents", str(world.agents), "--json", **given)
        try:
            await until(lambda: ready.exists() or process.poll() is not None, "it polls")
            client = await world.client()
            assert (await (await client.start("agent", "hi")).result(timeout=PATIENCE)).output == "hello"
            process.send_signal(signal.SIGTERM)
            out, _ = await asyncio.to_thread(process.communicate)
            assert process.returncode == 0, out
            assert '"event": "worker is ready"' in out
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("unset", "file", "code", "said"),
    [
        (("HOLDFAST_DATABASE_URL",), AGENTS, 2, "HOLDFAST_DATABASE_URL is not set"),
        (SERVERS, AGENTS, 2, "TEMPORAL_ADDRESS and HOLDFAST_DATABASE_URL are not set"),
        ((), None, 2, "--agents FILE"),
        ((), "x = (", 2, "agents.py:1: x = ("),
        ((), DEAR, 2, "the budget would never take effect"),
    ],
    ids=["database", "both", "file", "syntax", "price"],
)
async def test_what_keeps_it_from_starting_is_said(
    world: World, tmp_path: Path, unset: tuple[str, ...], file: str | None, code: int, said: str
) -> None:
    """It names what is missing and how to give it, without a traceback."""
    given = world.environment()
    for name in (*unset, "HOLDFAST_AGENTS"):
        given.pop(name, None)
    if file is not None:
        (tmp_path / "agents.py").write_text(file)
    process = start(tmp_path, **given)
    out, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == code, out
    assert said in " ".join(out.split())
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("file", "kind", "said"),
    [
        ("x = (", "AgentsFileError", "agents.py:1: x = ("),
        (DEAR, "ConfigurationError", "the budget would never take effect"),
    ],
    ids=["syntax", "price"],
)
async def test_what_keeps_it_from_starting_is_json_for_a_script(
    world: World, tmp_path: Path, file: str, kind: str, said: str
) -> None:
    """With `--json` the last line is an error like any other command's."""
    given = world.environment()
    del given["HOLDFAST_AGENTS"]
    (tmp_path / "agents.py").write_text(file)
    process = start(tmp_path, "--json", **given)
    out, _ = await asyncio.to_thread(process.communicate)
    error = json.loads(out.splitlines()[-1])["error"]
    assert (process.returncode, error["type"], error["exit_code"]) == (2, kind, 2)
    assert said in error["message"]


@pytest_asyncio.fixture
async def world(make_world: MakeWorld) -> World:
    """Give servers without a worker."""
    return await make_world(AGENTS)
