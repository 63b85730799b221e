"""A worker with older code hands a call back to those with newer code, a fixed number of times, also after outages."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from holdfast.activities.claims import TryAgain
from holdfast.activities.deps import Deps
from holdfast.activities.notify import Notifier
from holdfast.activities.tools import ToolActivities
from holdfast.agent import definition_hash
from holdfast.contracts import ToolStep
from holdfast.ids import args_hash
from holdfast.memory import runs
from holdfast.memory.database import open_pool
from holdfast.tools.registry import load_agents
from tests.conftest import MakeWorld

OLD = """
from holdfast import Agent, tool

@tool(effect="pure")
def reads() -> str:
    "Read."
    return "read"

one = Agent(name="one", model="openai/test", tools=[reads])
"""

NEW = OLD.replace("tools=[reads]", "tools=[reads, added]").replace(
    "one =", '@tool(effect="pure")\ndef added() -> str:\n    "Read more."\n    return "more"\n\none ='
)


async def test_an_outage_takes_no_turn_of_handing_a_call_back(make_world: MakeWorld) -> None:
    """Temporal counts fifty attempts that never came to it: the call is still handed back twelve times."""
    world = await make_world(OLD)
    settings = world.settings
    newer = world.folder / "newer.py"
    newer.write_text(NEW, encoding="utf-8")
    definition = load_agents(newer)["one"].definition
    digest = definition_hash(definition)
    pool = await open_pool(settings.database_url or "", size=2, name="test-newer")
    async with pool.acquire() as conn, conn.transaction():
        await runs.publish_agent(conn, definition, digest, settings.task_queue)
    temporal = await Client.connect(settings.temporal_address or "")
    deps = Deps(settings, pool, Notifier(pool), temporal, agents=dict(load_agents(world.agents)))
    tools = ToolActivities(deps)
    environment = ActivityEnvironment()
    call = ToolStep(
        writer="w",
        run_id=str(uuid.uuid4()),
        step_no=2,
        definition=digest,
        call_id="call",
        tool="added",
        seq=3,
        effect="pure",
        args="{}",
        args_hash=args_hash({}),
    )
    for attempt in range(50, 62):
        environment.info = replace(environment.info, workflow_id=f"{settings.tenant}:thread", attempt=attempt)
        with pytest.raises(TryAgain, match="another one has added"):
            await environment.run(tools.tool_step, call)
    for attempt in (62, 63):
        environment.info = replace(environment.info, attempt=attempt)
        outcome = await environment.run(tools.tool_step, call)
        assert "no longer there" in outcome.preview
    await pool.close()
