"""Approvals and a workflow that is taken back or lost: a recorded decision stands, another call is asked about."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from tests import histories
from tests.kit import World, until

AGENTS = '''
import asyncio, pathlib
from holdfast import Agent, ToolContext, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="keyed", timeout=120, approval="always")
async def pay(ctx: ToolContext, name: str, amount: int) -> str:
    """Pay, when a person opens the gate."""
    (HERE / f"{name}.waiting").touch()
    while not (HERE / f"{name}.open").exists():
        await asyncio.sleep(0.05)
    return f"paid {amount}"

@tool(effect="pure", timeout=120)
async def gate(name: str) -> str:
    """Wait until a person opens the gate."""
    (HERE / f"{name}.waiting").touch()
    while not (HERE / f"{name}.open").exists():
        await asyncio.sleep(0.05)
    return "open"

one = Agent(name="one", model="openai/test", tools=[pay, gate])
'''

SCRIPT = """
conversations:
  - when: then
    replies:
      - call: {pay: {name: "{{user}}", amount: 5}}
      - call: {gate: {name: "{{user}}"}}
      - say: "passed"
  - when: lost
    replies:
      - repeat: 2
        call: {pay: {name: "{{user}}", amount: 5}}
      - say: "{{last_tool}}"
  - replies:
      - call: {pay: {name: "{{user}}", amount: 5}}
      - say: "{{last_tool}}"
"""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def _reset(world: World, thread: str) -> WorkflowHandle[Any, Any]:
    """Take a thread's workflow back to its first task."""
    temporal = await histories.connect(world.settings)
    handle = temporal.get_workflow_handle(f"{world.settings.tenant}:{thread}")
    await histories.reset(temporal, handle.id)
    return handle


async def _asked(handle: WorkflowHandle[Any, Any]) -> Any:
    """Return the calls of the workflow once it has asked for approval of them."""

    async def calls() -> Any:
        run = (await handle.query("state")).get("current") or {}
        return run.get("calls") if run.get("asked") else None

    return await until(calls, "the workflow has asked")


async def test_an_approval_stands_when_a_reset_comes_before_its_call_is_done(world: World) -> None:
    """Nobody is asked twice: the approved call goes on, with the arguments that a person had put in."""
    run = await (await world.client()).start("one", "edited", thread="edited")
    await until(run.approvals, "the approval is pending")
    await run.approve(args={"name": "edited", "amount": 3}, actor="ann")
    await until((world.folder / "edited.waiting").exists, "the call is under way")
    (call,) = await _asked(await _reset(world, "edited"))
    assert (call["edited"], call.get("state", "ready")) == (True, "ready")
    (world.folder / "edited.open").touch()
    said = (await run.result(timeout=60)).output
    assert said.startswith("[a person changed the arguments of this call: ")
    assert said.endswith("]\npaid 3")
    rows = await world.rows("select action, actor from audit where run_id = $1", run.run_id)
    assert rows == [{"action": "approve", "actor": "ann"}]
    assert [row.state for row in await run.approvals()] == ["approved"]


async def test_a_rejection_stands_when_a_reset_comes_later(world: World) -> None:
    """What a person did not allow is not asked again, and not made."""
    run = await (await world.client()).start("one", "then", thread="then")
    await until(run.approvals, "the approval is pending")
    await run.reject(reason="too much")
    await until((world.folder / "then.waiting").exists, "the next call is under way")
    await _reset(world, "then")
    (world.folder / "then.open").touch()
    assert (await run.result(timeout=60)).output == "passed"
    assert await world.rows("select 1 from effects where run_id = $1 and tool = 'pay'", run.run_id) == []
    (slot,) = [message for message in await run.messages() if "too much" in str(message.body)]
    assert "rejected" in str(slot.body)


async def test_another_workflow_asks_about_a_call_of_its_own(world: World) -> None:
    """The workflow of a run times out while it waits; the next one asks anew, though the step has the same number."""
    temporal = await histories.connect(world.settings)
    handle = await temporal.start_workflow(
        "AgentWorkflow",
        id=f"{world.settings.tenant}:lost",
        task_queue=world.settings.task_queue,
        execution_timeout=timedelta(seconds=6),
    )
    run = await (await world.client()).start("one", "lost", thread="lost")
    (before,) = await until(run.approvals, "the approval is pending")

    async def lost() -> bool:
        return (await handle.describe()).status == WorkflowExecutionStatus.TIMED_OUT

    await until(lost, "the workflow has timed out")

    async def twice() -> bool:
        asked = "select 1 from events where run_id = $1 and kind = 'approval_requested'"
        return len(await world.rows(asked, run.run_id)) == 2

    await until(twice, "another approval is asked for")
    (after,) = await run.approvals()
    assert (after.step_no, after.state) == (before.step_no, "pending")
    (world.folder / "lost.open").touch()
    await run.approve()
    assert (await run.result(timeout=60)).output == "paid 5"
