"""A person, or any Temporal client, in control: ask, steer, stop, decide by signal, terminate, cancel, reset."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client as Temporal
from temporalio.client import (
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy

from holdfast.errors import DecisionRefused, RunEnded
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import World, until

AGENTS = '''
import asyncio, pathlib
from holdfast import Agent, Budget, ToolContext, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="pure", timeout=120)
async def gate(name: str) -> str:
    """Wait until a person opens the gate."""
    (HERE / f"{name}.waiting").touch()
    while not (HERE / f"{name}.open").exists():
        await asyncio.sleep(0.05)
    return f"{name} is open"

@tool(effect="once", timeout=120)
async def slow_once(ctx: ToolContext, name: str) -> str:
    """An effect that takes long."""
    with (HERE / "effects").open("a") as file:
        file.write(ctx.idempotency_key + "\\n")
    return await gate(name)

@tool(effect="once", approval="always")
async def pay(ctx: ToolContext, amount: float) -> str:
    """Pay."""
    with (HERE / "effects").open("a") as file:
        file.write(ctx.idempotency_key + "\\n")
    return f"paid {amount}"

@tool(effect="pure")
async def look(page: str) -> str:
    """Look at a page."""
    return f"page {page}"

one = Agent(name="one", model="openai/test", tools=[gate, slow_once, pay, look], budget=Budget(rounds=8))
two = Agent(name="two", model="openai/test")
'''

SCRIPT = """
conversations:
  - when: gate
    replies:
      - call: {gate: {name: "{{user}}"}}
      - say: "passed, you said {{user}}"
  - when: slow
    replies:
      - call: {slow_once: {name: s1}}
      - say: "done: {{last_tool}}"
  - when: pay
    replies:
      - call: {pay: {amount: 5}}
      - say: "result: {{last_tool}}"
  - when: circles
    replies:
      - repeat: 20
        call: {look: {page: same}}
      - say: never
  - when: long
    replies:
      - repeat: 20
        call: {look: {page: "p{{n}}"}}
      - say: never
  - replies:
      - say: "you said {{user}}"
"""


_STOPS = 1.0  # seconds from the word to the end of a run whose tool is under way

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def _temporal(world: World) -> Temporal:
    """Return a plain Temporal client: no converter, no code of ours."""
    return await Temporal.connect(world.settings.temporal_address or "")


@pytest.mark.parametrize("wait", [True, False])
async def test_any_temporal_client_asks_by_documented_json(world: World, wait: bool) -> None:
    """AskWorkflow takes plain JSON and returns the answer as its result, or with wait false the run."""
    temporal = await _temporal(world)
    result: dict[str, Any] = await temporal.execute_workflow(
        "AskWorkflow",
        {"agent": "one", "text": "hello", "thread": "ask", "wait": wait, "message_id": f"wait-{wait}"},
        id=f"ask-{world.settings.tenant}-{wait}",
        task_queue=world.settings.task_queue,
        result_type=dict,
    )
    assert result["thread"] == "ask"
    if wait:
        assert (result["state"], result["answer"]) == ("done", "you said hello")
    else:
        assert result["state"] == "queued"
    unknown = await temporal.execute_workflow(
        "AskWorkflow",
        {"agent": "nobody", "text": "hello"},
        id=f"ask-unknown-{world.settings.tenant}-{wait}",
        task_queue=world.settings.task_queue,
        result_type=dict,
    )
    assert unknown["state"] == "refused"
    assert "there is no agent 'nobody'" in unknown["error"]


async def test_malformed_json_is_answered_and_harms_nothing(world: World) -> None:
    """Wrong inputs fail with the fields named; wrong updates are refused, wrong signals dropped; the thread goes on."""
    temporal = await _temporal(world)
    queue = world.settings.task_queue
    for number, wrong in enumerate(({"agent": 5}, "hello", None, {"agent": "one", "text": ""})):
        with pytest.raises(WorkflowFailureError) as failed:
            await temporal.execute_workflow(
                "AskWorkflow", wrong, id=f"bad-{world.settings.tenant}-{number}", task_queue=queue
            )
        assert "not a Ask" in str(failed.value.cause) or "empty" in str(failed.value.cause)
    with pytest.raises(WorkflowFailureError, match="Workflow execution failed") as failed:
        await temporal.execute_workflow("AgentWorkflow", {}, id="no-colon", task_queue=queue)
    assert "tenant:thread" in str(failed.value.cause)
    client = await world.client()
    run = await client.start("one", "pay", thread="malformed")
    await until(run.approvals, "the approval is pending")
    handle = temporal.get_workflow_handle(f"{world.settings.tenant}:malformed")
    for name in ("decide", "stop", "resolve", "settled"):
        await handle.signal(name, {"approve": "perhaps", "run_id": 5, "step_no": "x"})
    for name in ("decide", "message", "resolve"):
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(name, {"approve": "perhaps", "text": 5, "step_no": "x"})
    await run.approve()
    assert (await run.result(timeout=60)).output == "result: paid 5.0"


async def test_update_with_start_queries_and_signals_from_a_plain_client(world: World) -> None:
    """A plain client sends a message by update-with-start, sees the state, and decides by signal."""
    temporal = await _temporal(world)
    start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
        "AgentWorkflow",
        {},
        id=f"{world.settings.tenant}:plain",
        task_queue=world.settings.task_queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    accepted = await temporal.execute_update_with_start_workflow(
        "message", {"message_id": "m1", "agent": "one", "text": "pay"}, start_workflow_operation=start
    )
    handle = await start.workflow_handle()

    async def pending() -> Any:
        state = await handle.query("state")
        calls = (state.get("current") or {}).get("calls", [])
        return [call for call in calls if call.get("state") == "approval"]

    call = (await until(pending, "the approval is pending"))[0]
    assert call["tool"] == "pay"
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("decide", {"approve": True, "call_id": "nonsense"})
    assert "no call nonsense" in str(refused.value.cause)
    await handle.signal("decide", {"approve": True, "actor": "someone"})
    client = await world.client()
    answer = await (await client.get(accepted["run_id"])).result(timeout=60)
    assert answer.output == "result: paid 5.0"
    audit = await world.rows(
        "select action, actor, verified, accepted from audit where run_id = $1 order by accepted", accepted["run_id"]
    )
    said = {"action": "approve", "verified": False}
    assert audit == [{**said, "actor": None, "accepted": False}, {**said, "actor": "someone", "accepted": True}]
    with pytest.raises(DecisionRefused):
        await (await client.get(accepted["run_id"])).approve()


async def test_arguments_are_edited_by_a_person(world: World) -> None:
    """Edited arguments are validated, used, audited, and told to the model; wrong ones are refused."""
    client = await world.client()
    run = await client.start("one", "pay", thread="edit")
    await until(run.approvals, "the approval is pending")
    with pytest.raises(DecisionRefused, match="amount"):
        await run.approve(args={"amount": "a lot"})
    await run.approve(args={"amount": 3})
    told = 'result: [a person changed the arguments of this call: {"amount":3}]\npaid 3.0'
    assert (await run.result(timeout=60)).output == told
    audit = await world.rows("select action, accepted from audit where run_id = $1 order by id", run.run_id)
    assert audit == [{"action": "approve", "accepted": False}, {"action": "approve", "accepted": True}]


async def test_a_run_stops_within_a_second_though_its_tool_runs_on_and_the_queue_goes_on(world: World) -> None:
    """Stop ends the run under way; the open slot reads interrupted, the next message is answered."""
    client = await world.client()
    run = await client.start("one", "slow", thread="stop")
    await until((world.folder / "s1.waiting").exists, "the tool is under way")
    later = await client.start("one", "hello", thread="stop")
    (asked,) = await world.rows("select clock_timestamp() as at")
    await run.stop(reason="enough")
    with pytest.raises(RunEnded, match="enough") as ended:
        await run.result(timeout=30)
    assert ended.value.state == "stopped"
    (over,) = await world.rows("select ended_at as at from runs where run_id = $1", run.run_id)
    took = (over["at"] - asked["at"]).total_seconds()
    assert took < world.settings.scaled(_STOPS), f"{took:.1f} s; the tool itself runs on for 120"
    assert (await later.result(timeout=30)).output == "you said hello"
    effects = await until(
        lambda: world.rows(
            "select state from effects where class = 'once' and state <> 'in_flight' and run_id = $1", run.run_id
        ),
        "the ledger says what became of the call",
    )
    assert effects == [{"state": "in_doubt"}]
    doubtful = next(step for step in await run.steps() if step.state == "in_doubt")
    await run.resolve(doubtful.step_no, abandon=True)
    messages = await run.messages()
    assert any("interrupted" in json.dumps(message.body) for message in messages)


async def test_a_steering_message_joins_the_run_under_way(world: World) -> None:
    """A steering message is read at the next model step and has no run of its own."""
    client = await world.client()
    run = await client.start("one", "gate-steer", thread="steer")
    await until((world.folder / "gate-steer.waiting").exists, "the tool is under way")
    steer = await client.start("one", "mind your step", thread="steer", mode="steer")
    (world.folder / "gate-steer.open").touch()
    answer = await run.result(timeout=60)
    assert answer.output == "you said mind your step"
    assert (await steer.result(timeout=60)).output == answer.output
    rows = await world.rows(
        "select state from runs where run_id = any($1) order by created_at", [run.run_id, steer.run_id]
    )
    assert [row["state"] for row in rows] == ["done", "merged"]


async def test_budget_and_loop_guard_end_a_run_in_a_clear_state(world: World) -> None:
    """The same call three times running, or all rounds used, end a run with the reason."""
    client = await world.client()
    circles = await client.start("one", "circles", thread="budget")
    longer = await client.start("one", "long", thread="budget2")
    with pytest.raises(RunEnded, match="going in circles") as looping:
        await circles.result(timeout=60)
    assert looping.value.state == "looping"
    with pytest.raises(RunEnded, match="8 of 8 rounds") as spent:
        await longer.result(timeout=60)
    assert spent.value.state == "over_budget"


async def test_terminate_stops_the_run_and_what_waits_goes_on(world: World) -> None:
    """Terminated in Temporal, the run under way ends as stopped; queued ones are found and answered."""
    client = await world.client()
    run = await client.start("one", "gate-term", thread="term")
    await until((world.folder / "gate-term.waiting").exists, "the tool is under way")
    later = await client.start("one", "hello", thread="term", message_id="later")
    await until(lambda: world.rows("select 1 from runs where message_id = 'later'"), "it is admitted")
    temporal = await _temporal(world)
    await temporal.get_workflow_handle(f"{world.settings.tenant}:term").terminate()
    assert (await later.result(timeout=60)).output == "you said hello"
    with pytest.raises(RunEnded, match="terminated") as ended:
        await run.result(timeout=30)
    assert ended.value.state == "stopped"


async def test_a_message_right_after_a_terminate_does_not_revive_the_run(make_shared_world: MakeWorld) -> None:
    """Whoever looks first, the next message or a sweep, ends the run that a person terminated."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url, sweep_every=3600.0)
        await world.worker()
        client = await world.client()
        run = await client.start("one", "gate-soon", thread="t1")
        await until((world.folder / "gate-soon.waiting").exists, "the tool is under way")
        temporal = await _temporal(world)
        await temporal.get_workflow_handle(f"{world.settings.tenant}:t1").terminate()
        later = await client.start("one", "hello", thread="t1")
        assert (await later.result(timeout=60)).output == "you said hello"
        with pytest.raises(RunEnded, match="terminated"):
            await run.result(timeout=30)


async def test_reset_brings_no_effect_twice(make_shared_world: MakeWorld) -> None:
    """Reset to the first workflow task replays the run: recorded steps are returned, the effect is not repeated."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url, linger=30.0)
        await world.worker()
        client = await world.client()
        run = await client.start("one", "pay", thread="t1")
        await until(run.approvals, "the approval is pending")
        await run.approve()
        assert (await run.result(timeout=60)).output == "result: paid 5.0"
        temporal = await _temporal(world)
        handle = temporal.get_workflow_handle(f"{world.settings.tenant}:t1")
        await histories.reset(temporal, handle.id, task=1)

        async def idle_again() -> bool:
            state = await handle.query("state", rpc_timeout=timedelta(seconds=5))
            return not state.get("current") and state.get("step_no", 0) >= 5

        await until(idle_again, "the reset execution has caught up")
        assert (world.folder / "effects").read_text().count("\n") == 1
        assert (await run.result(timeout=30)).output == "result: paid 5.0"
        assert await world.rows("select state from effects where class = 'once'") == [{"state": "done"}]


async def test_the_workflow_rolls_over_with_work_and_approvals_pending(make_shared_world: MakeWorld) -> None:
    """Continue-as-new between rounds, and while an approval is pending, loses nothing."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url, roll_after_events=50)
        await world.worker()
        client = await world.client()
        runs = [await client.start("one", text, thread="t1") for text in ("hello", "pay", "hello 2", "hello 3")]
        assert (await runs[0].result(timeout=60)).output == "you said hello"
        await until(runs[1].approvals, "the approval is pending")
        await runs[1].approve()
        outputs = [(await run.result(timeout=60)).output for run in runs]
        assert outputs == ["you said hello", "result: paid 5.0", "you said hello 2", "you said hello 3"]
        temporal = await _temporal(world)
        executions = [found async for found in temporal.list_workflows(f"WorkflowId = '{world.settings.tenant}:t1'")]
        assert sum(found.status == WorkflowExecutionStatus.CONTINUED_AS_NEW for found in executions) >= 1
