"""Tools that come along, amid whose calls a worker is killed: what they started ends, what they changed stands once."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import psutil

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import until

AGENTS = """
import sys
from pathlib import Path
from holdfast import Agent
from holdfast.tools import shell

ROOT = Path(__file__).parent
WAIT = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
runner = Agent(name="runner", model="openai/test", tools=[shell({"wait": [PYTHON, "-c", WAIT]}, root=ROOT)])
"""
SCRIPT = """
conversations:
  - replies:
      - call: {wait: {}}
      - say: "it said: {{last_tool}}"
"""


async def test_a_command_dies_with_its_worker_before_anybody_is_asked(make_world: MakeWorld) -> None:
    """The call is in doubt and is not made again; what a person then looks at does not change any more."""
    async with ModelServer(SCRIPT) as models:
        source = AGENTS.replace("PYTHON", json.dumps(sys.executable))
        world = await make_world(source, api_base=models.base_url, sweep_every=1.0)
        first = await world.worker()
        client = await world.client()
        run = await client.start("runner", "go")
        path = Path(world.folder) / "pid"
        await until(lambda: path.exists() and path.read_text(), "the program runs")
        pid = int(path.read_text())
        await asyncio.gather(world.worker(), asyncio.to_thread(first.kill))

        async def doubtful() -> bool:
            return (await run.status()).in_doubt == 1

        await until(doubtful, "the call is in doubt")
        assert not psutil.pid_exists(pid)
        step = next(step for step in await run.steps() if step.state == "in_doubt")
        await run.resolve(step.step_no, done="a person saw it")
        assert (await run.result(timeout=120)).output == "it said: a person saw it"
        rows = await world.rows("select state, sends from effects where tool = 'wait'")
        assert [tuple(row.values()) for row in rows] == [("done", 1)]
