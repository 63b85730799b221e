"""What a person ended in Temporal stays ended, and nothing else ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import pytest_asyncio
from temporalio.client import Client as Temporal
from temporalio.client import WorkflowExecution, WorkflowExecutionStatus
from temporalio.testing import ActivityEnvironment

from holdfast import sweeper as sweeping
from holdfast.activities import endings
from holdfast.activities.admit import AdmitActivities
from holdfast.contracts import Admit
from holdfast.errors import RunEnded
from holdfast.memory.database import open_pool
from holdfast.runtime import open_deps
from holdfast.sweeper import Sweeper
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio
from pathlib import Path

from holdfast import Agent, tool

HERE = Path(__file__).parent

@tool(effect="pure", timeout=600)
async def hold(name: str) -> str:
    """Wait until told to go on."""
    (HERE / f"{name}.held").touch()
    while not (HERE / f"{name}.go").exists():
        await asyncio.sleep(0.05)
    return name

@tool(effect="pure")
def look(page: str) -> str:
    """Look."""
    return page

one = Agent(name="one", model="openai/test", tools=[hold, look])
'''

SCRIPT = """
conversations:
  - when: rolls
    replies:
      - repeat: 6
        call: {look: {page: "p{{n}}"}}
      - call: {hold: {name: "{{user}}"}}
      - say: "went on: {{user}}"
  - when: hold
    replies: [{call: {hold: {name: "{{user}}"}}}, {say: "went on: {{user}}"}]
  - replies: [{say: heard}]
"""


@pytest_asyncio.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """Return a world whose own sweeper never looks."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, sweep_every=3600.0, roll_after_events=50)
        await world.worker()
        yield world


async def test_a_terminated_run_is_not_resumed_by_the_next_message(world: World) -> None:
    """However soon the next message comes, and although the workflow had rolled over: ended is ended."""
    client = await world.client()
    temporal = await histories.connect(world.settings)

    async def one(name: str) -> None:
        run = await client.start("one", name, thread=name)
        await until((world.folder / f"{name}.held").exists, "the call is under way", patience=2 * PATIENCE)
        await temporal.get_workflow_handle(run.workflow_id).terminate()
        later = await client.start("one", "hello", thread=name)
        assert (await later.result(timeout=PATIENCE)).output == "heard"
        with pytest.raises(RunEnded, match="terminated in Temporal"):
            await run.result(timeout=PATIENCE)

    await asyncio.gather(*(one(f"hold-{number}") for number in range(8)), one("rolls-a"), one("rolls-b"))


class Lagging:
    """A Temporal client whose listings of workflows lag behind, as they do on any server under load."""

    def __init__(self, client: Temporal) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def list_workflows(self, query: str, **options: Any) -> AsyncIterator[WorkflowExecution]:
        """Yield what is found as it was a moment ago: running."""
        async for found in self._client.list_workflows(query, **options):
            yield replace(found, status=WorkflowExecutionStatus.RUNNING)


@pytest.mark.parametrize("name", ["hold-lagging", "rolls-lagging"])
async def test_a_listing_that_lags_does_not_matter(world: World, name: str) -> None:
    """Admission asks about the very execution that wrote last, also where that one is a later one of its chain."""
    client = await world.client()
    temporal = await histories.connect(world.settings)
    run = await client.start("one", name, thread="lag")
    await until((world.folder / f"{name}.held").exists, "the call is under way")
    [chain] = await world.rows("select writer, execution from threads")
    assert (chain["writer"] != chain["execution"]) == name.startswith("rolls")
    world.processes[-1].kill()
    await temporal.get_workflow_handle(run.workflow_id).terminate()
    async with open_deps(world.settings, cast("Temporal", Lagging(temporal)), role="agents", name="test") as deps:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, workflow_id=run.workflow_id, workflow_run_id="next")
        admit = Admit(writer="next", started=datetime.now(UTC), open=True)
        admitted = await environment.run(AdmitActivities(deps).admit, admit)
    assert admitted.runs == []
    assert (await run.status()).error == "terminated in Temporal"


async def test_a_sweep_that_was_late_stops_nothing_of_the_next_workflow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between Temporal's word and the sweeper's, the next message may have begun its run: that one goes on."""
    client = await world.client()
    temporal = await histories.connect(world.settings)
    first = await client.start("one", "hold-first", thread="late")
    await until((world.folder / "hold-first.held").exists, "the call is under way")
    await temporal.get_workflow_handle(first.workflow_id).terminate()
    real = endings.status_of

    async def late(asked: Temporal, workflow_id: str) -> WorkflowExecutionStatus | None:
        found = await real(asked, workflow_id)
        await client.start("one", "hold-next", thread="late")
        await until((world.folder / "hold-next.held").exists, "the next run has begun")
        return found

    monkeypatch.setattr(sweeping, "status_of", late)
    pool = await open_pool(world.settings.database_url or "", size=4, name="test")
    swept = Sweeper(world.settings.model_copy(update={"sweep_every": 0.01}), pool, temporal)
    try:
        await swept.sweep()
    finally:
        await pool.close()
    (world.folder / "hold-next.go").touch()
    runs = {run.state for run in await client.runs(thread="late")}
    assert runs == {"stopped", "running"}
    [row] = await world.rows("select run_id::text from runs where state = 'running'")
    assert (await (await client.get(row["run_id"])).result(timeout=PATIENCE)).output == "went on: hold-next"
