"""A word that comes twice under one decision id counts once, and a refusal does not use the id up."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from temporalio.client import Client as Temporal
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from holdfast.errors import RunEnded
from holdfast.handles import RunHandle
from holdfast.ids import run_id_for
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio, pathlib
from holdfast import Agent, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="once", approval="always")
async def pay(amount: float) -> str:
    """Pay."""
    return f"paid {amount}"

@tool(effect="once")
async def lose(name: str) -> str:
    """An effect of which nobody hears."""
    raise TimeoutError("no answer")

@tool(effect="pure", timeout=600)
async def hold(name: str) -> str:
    """Wait until told to go on."""
    (HERE / f"{name}.held").touch()
    while not (HERE / f"{name}.go").exists():
        await asyncio.sleep(0.05)
    return "held"

one = Agent(name="one", model="openai/test", tools=[pay, lose, hold])
'''

SCRIPT = """
conversations:
  - when: both
    replies:
      - call: [{pay: {amount: 5}}, {pay: {amount: 6}}]
      - say: "{{last_tool}}"
  - when: pay
    replies:
      - call: {pay: {amount: 5}}
      - say: "{{last_tool}}"
  - when: lose
    replies:
      - call: {lose: {name: "{{user}}"}}
      - say: "{{last_tool}}"
  - when: hold
    replies:
      - call: {hold: {name: "{{user}}"}}
      - say: "{{last_tool}}"
  - replies:
      - say: "you said {{user}}"
"""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]

LOCK = "select from runs where run_id = $1 for update"  # no word on a call, nor a stop, is recorded meanwhile


async def started(world: World, text: str) -> tuple[RunHandle, WorkflowHandle[Any, Any]]:
    """Start a run on a thread of its own, and return it with its workflow as a plain Temporal client has it."""
    client = await world.client()
    run = await client.start("one", text, thread=f"t-{uuid.uuid4().hex[:8]}")
    temporal = await Temporal.connect(world.settings.temporal_address or "")
    return run, temporal.get_workflow_handle(f"{world.settings.tenant}:{run.thread}")


async def holding(world: World) -> tuple[RunHandle, WorkflowHandle[Any, Any]]:
    """Start a run whose tool is under way until it is stopped."""
    text = f"hold {uuid.uuid4().hex[:8]}"
    run, handle = await started(world, text)
    await until((world.folder / f"{text}.held").exists, "the call is under way")
    return run, handle


async def refuse(world: World, handle: WorkflowHandle[Any, Any], name: str, word: dict[str, Any]) -> None:
    """Send a word that the thread refuses, and wait for its audit row."""
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update(name, word)
    assert await until(lambda: audit_of(world, word["decision_id"]), "the refusal is audited") == [False]


async def audit_of(world: World, decision_id: str) -> list[bool]:
    """Return whether the word of a decision id was accepted, if it has an audit row."""
    return [
        row["accepted"] for row in await world.rows("select accepted from audit where decision_id = $1", decision_id)
    ]


async def said(world: World, run_id: str) -> list[tuple[str, bool]]:
    """Return what the audit has on a run: actions, and whether they were accepted; acceptances first."""
    rows = await world.rows("select action, accepted from audit where run_id = $1 order by accepted desc, id", run_id)
    return [(row["action"], row["accepted"]) for row in rows]


async def doubtful(run: RunHandle) -> int:
    """Return the step of the call in doubt once the workflow knows of it."""

    async def found() -> list[int]:
        return [step.step_no for step in await run.steps() if step.state == "in_doubt"]

    step: int = (await until(found, "the call is in doubt"))[0]
    return step


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
async def test_an_approval_that_comes_twice_counts_once(world: World, named: bool) -> None:
    """While the first is being recorded, the second gets the same receipt, whether or not it names its call."""
    run, handle = await started(world, "both")
    first, second = [call.step_no for call in await until(run.approvals, "the approvals are pending")]
    word: dict[str, Any] = {"approve": True, "decision_id": f"twice {run.run_id}", "actor": "ann"}
    if named:
        word["call_id"] = str(first)
    else:
        await handle.execute_update("decide", {"approve": True, "call_id": str(first)})
        second = first
        await until(lambda: said(world, run.run_id), "one call is left")
    async with world.held(LOCK, run.run_id):
        receipts = [await handle.execute_update("decide", word) for _ in range(2)]
        await handle.signal("decide", word)
    assert receipts[0] == receipts[1]
    assert await until(lambda: audit_of(world, word["decision_id"]), "it is recorded") == [True]
    if second != first:
        await run.approve(call=str(second))
    assert (await run.result(timeout=PATIENCE)).output == "paid 6.0"
    assert await said(world, run.run_id) == [("approve", True)] * 2


async def test_another_word_under_the_same_id_is_refused_and_takes_nothing_away(world: World) -> None:
    """The contrary word is refused and audited, though before the one in hand; that one stands under its id."""
    run, handle = await started(world, "pay")
    await until(run.approvals, "the approval is pending")
    word: dict[str, Any] = {"approve": True, "decision_id": f"contrary {run.run_id}"}
    async with world.held(LOCK, run.run_id):
        await handle.execute_update("decide", word)
        await refuse(world, handle, "decide", {**word, "approve": False})
    assert (await run.result(timeout=PATIENCE)).output == "paid 5.0"
    assert await audit_of(world, word["decision_id"]) == [True]
    assert await said(world, run.run_id) == [("approve", True), ("reject", False)]


async def test_an_approval_that_was_refused_counts_when_it_comes_again(world: World) -> None:
    """It came for a call that does not exist, and while another decision was recorded: its id is free after both."""
    run, handle = await started(world, "pay")
    [call] = await until(run.approvals, "the approval is pending")
    word: dict[str, Any] = {"approve": True, "decision_id": f"again {run.run_id}", "call_id": str(call.step_no)}
    async with world.held(LOCK, run.run_id):
        await handle.execute_update("decide", {"approve": True, "args": {"amount": "much"}, "call_id": word["call_id"]})
        await refuse(world, handle, "decide", word)
    await until(lambda: said(world, run.run_id), "the edited arguments are refused")

    async def pending() -> bool:
        return [call["state"] for call in (await handle.query("state"))["current"]["calls"]] == ["approval"]

    await until(pending, "the call waits again")
    await refuse(world, handle, "decide", {**word, "call_id": "99"})
    await handle.execute_update("decide", word)
    assert (await run.result(timeout=PATIENCE)).output == "paid 5.0"
    assert await audit_of(world, word["decision_id"]) == [True]
    assert await said(world, run.run_id) == [("approve", True)] + [("approve", False)] * 3


async def test_a_resolution_that_comes_twice_counts_once(world: World) -> None:
    """While the first is being carried out, the second gets the same receipt."""
    run, handle = await started(world, "lose")
    step = await doubtful(run)
    word: dict[str, Any] = {"step_no": step, "outcome": "done", "result": "found", "decision_id": f"twice {run.run_id}"}
    await until(lambda: settles(handle), "the workflow knows")
    async with world.held(LOCK, run.run_id):
        receipts = [await handle.execute_update("resolve", word) for _ in range(2)]
    assert receipts[0] == receipts[1]
    assert (await run.result(timeout=PATIENCE)).output == "found"
    assert await said(world, run.run_id) == [("resolve", True)]


async def settles(handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether the workflow knows of the call in doubt."""
    current = (await handle.query("state")).get("current") or {}
    return [call["state"] for call in current.get("calls", [])] == ["in_doubt"]


async def test_a_resolution_that_was_refused_counts_when_it_comes_again(world: World) -> None:
    """The first time it named another step; the second time it is carried out, and audited under its id."""
    run, handle = await started(world, "lose")
    step = await doubtful(run)
    await until(lambda: settles(handle), "the workflow knows")
    word: dict[str, Any] = {"step_no": step, "outcome": "done", "result": "found", "decision_id": f"again {run.run_id}"}
    await refuse(world, handle, "resolve", {**word, "step_no": 99})
    await handle.execute_update("resolve", word)
    assert (await run.result(timeout=PATIENCE)).output == "found"
    assert await audit_of(world, word["decision_id"]) == [True]
    assert await said(world, run.run_id) == [("resolve", True), ("resolve", False)]


async def test_a_stop_that_comes_twice_counts_once(world: World) -> None:
    """Before the end of the run commits, the second gets the same receipt; the audit has the stop as accepted."""
    run, handle = await holding(world)
    word: dict[str, Any] = {
        "run_id": run.run_id,
        "decision_id": f"twice {run.run_id}",
        "actor": "ann",
        "reason": "enough",
    }
    async with world.held(LOCK, run.run_id):
        receipts = [await handle.execute_update("stop", word) for _ in range(2)]
        await refuse(world, handle, "decide", {"approve": True, "decision_id": f"marker {run.run_id}"})
    assert receipts[0] == receipts[1]
    with pytest.raises(RunEnded, match="enough"):
        await run.result(timeout=PATIENCE)
    assert await audit_of(world, word["decision_id"]) == [True]
    assert await said(world, run.run_id) == [("stop", True), ("approve", False)]


@pytest.mark.parametrize("action", ["stop", "decide"])
async def test_a_stop_counts_under_an_id_of_which_a_word_was_refused(world: World, action: str) -> None:
    """Refused because the run was not there yet, or as another word: a stop that comes then is audited as accepted."""
    run, handle = await holding(world)
    later = run_id_for(world.settings.tenant, run.thread, "later")
    word: dict[str, Any] = {"run_id": later, "decision_id": f"again {run.run_id}"}
    await refuse(world, handle, action, {**word, "approve": True} if action == "decide" else word)
    queued = await (await world.client()).start("one", "hello", thread=run.thread, message_id="later")
    assert queued.run_id == later

    async def known() -> bool:
        return later in (await handle.query("state")).get("queued", [])

    await until(known, "it is queued")
    await handle.execute_update("stop", word)
    await run.stop()
    for each in (run, queued):
        with pytest.raises(RunEnded):
            await each.result(timeout=PATIENCE)
    assert await audit_of(world, word["decision_id"]) == [True]
    assert await said(world, later) == [("stop", True), ("stop" if action == "stop" else "approve", False)]


async def test_a_stop_under_the_id_of_a_decision_that_stands_has_a_row_of_its_own(world: World) -> None:
    """The id of an accepted word keeps its row, and the stop of the same run is audited beside it."""
    run, handle = await started(world, "both")
    first, _ = [call.step_no for call in await until(run.approvals, "the approvals are pending")]
    decision_id = f"both {run.run_id}"
    await handle.execute_update("decide", {"approve": True, "call_id": str(first), "decision_id": decision_id})
    assert await until(lambda: audit_of(world, decision_id), "it is recorded") == [True]
    await handle.execute_update("stop", {"run_id": run.run_id, "decision_id": decision_id})
    with pytest.raises(RunEnded):
        await run.result(timeout=PATIENCE)
    assert await said(world, run.run_id) == [("approve", True), ("stop", True)]
