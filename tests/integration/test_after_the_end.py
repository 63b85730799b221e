"""What comes after a run has ended, by Reset or late: it waits for nobody, has no effect, and its cost is counted."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import ActivityEnvironment

from holdfast.activities.admit import AdmitActivities
from holdfast.activities.decisions import DecisionActivities
from holdfast.activities.runs import RunActivities
from holdfast.contracts import Admit, BeginRun, Decision, RecordDecision
from holdfast.errors import RunEnded
from holdfast.handles import RunHandle
from holdfast.runtime import open_deps
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio
import socket
from pathlib import Path

from holdfast import Agent, Budget, tool

HERE = Path(__file__).parent

@tool(effect="once", approval="always")
async def pay(amount: float) -> str:
    """Pay."""
    with (HERE / "effects").open("a") as file:
        file.write("paid\\n")
    return f"paid {amount}"

@tool(effect="once", single_request=True, attempts=1000)
def send(letter: str) -> str:
    """Send a letter to a remote that refuses until it is up."""
    if not (HERE / "up").exists():
        socket.create_connection(("127.0.0.1", 1))
    with (HERE / "effects").open("a") as file:
        file.write("sent\\n")
    return "sent"

@tool(effect="pure", timeout=600)
async def hold(name: str) -> str:
    """Wait until told to go on."""
    (HERE / f"{name}.held").touch()
    while not (HERE / f"{name}.go").exists():
        await asyncio.sleep(0.05)
    return name

one = Agent(name="one", model="openai/test", tools=[pay, send, hold])
small = Agent(name="small", model="openai/test", tools=[hold], budget=Budget(tokens=1_000_000))
'''

SCRIPT = """
conversations:
  - when: pay
    replies: [{call: {pay: {amount: 5}}}, {say: "{{last_tool}}"}]
  - when: send
    replies: [{call: {send: {letter: "{{user}}"}}}, {say: "{{last_tool}}"}]
  - when: hold
    replies: [{call: {hold: {name: "{{user}}"}}}, {say: "went on: {{user}}"}]
  - replies: [{say: heard}]
"""


@pytest_asyncio.fixture
async def models() -> AsyncIterator[ModelServer]:
    """Return a model server that follows the script."""
    async with ModelServer(SCRIPT) as models:
        yield models


async def _world(make_world: MakeWorld, models: ModelServer, **settings: Any) -> World:
    world = await make_world(AGENTS, api_base=models.base_url, **settings)
    await world.worker()
    return world


async def _before_decision(world: World, workflow_id: str, *, with_updates: bool) -> None:
    """Reset a workflow to the task that took its first update `decide`; *with_updates*, Temporal sends it again."""
    temporal = await histories.connect(world.settings)
    handle = temporal.get_workflow_handle(workflow_id)
    run_id = (await handle.describe()).run_id
    task = 0
    async for event in temporal.get_workflow_handle(workflow_id, run_id=run_id).fetch_history_events():
        if event.HasField("workflow_task_completed_event_attributes"):
            task = event.event_id
        accepted = event.workflow_execution_update_accepted_event_attributes
        if accepted.accepted_request.input.name == "decide":
            break
    await temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            reason="test",
            workflow_task_finish_event_id=task,
            request_id=uuid.uuid4().hex,
            reset_reapply_exclude_types=[]
            if with_updates
            else [ResetReapplyExcludeType.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE],
        )
    )


async def _paid(world: World, thread: str) -> RunHandle:
    run = await (await world.client()).start("one", "pay", thread=thread)
    await until(run.approvals, "the approval is pending")
    await run.approve(actor="ann")
    assert (await run.result(timeout=PATIENCE)).output == "paid 5.0"
    return run


@pytest.mark.parametrize("with_updates", [True, False])
async def test_a_reset_to_before_a_decision_of_an_ended_run_does_not_block_its_thread(
    make_world: MakeWorld, models: ModelServer, with_updates: bool
) -> None:
    """Whether or not Temporal brings the decision again, the thread's next message is answered."""
    world = await _world(make_world, models, linger=PATIENCE)
    run = await _paid(world, "again")
    await _before_decision(world, run.workflow_id, with_updates=with_updates)
    later = await (await world.client()).start("one", "hello", thread="again")
    assert (await later.result(timeout=PATIENCE)).output == "heard"
    assert (world.folder / "effects").read_text() == "paid\n"
    audit = await world.rows("select actor, accepted from audit where run_id = $1", run.run_id)
    assert audit == [{"actor": "ann", "accepted": True}]
    assert [approval.state for approval in await run.approvals()] == ["approved"]
    assert (await run.recorded())[-1].kind == "ended"


async def test_a_workflow_that_waits_for_a_decision_on_an_ended_run_ends_by_itself(
    make_world: MakeWorld, models: ModelServer
) -> None:
    """With no message to come and no decision, a look at the run's row ends the wait."""
    world = await _world(make_world, models, look_after=1.0)
    run = await _paid(world, "alone")
    await _before_decision(world, run.workflow_id, with_updates=False)
    handle = (await histories.connect(world.settings)).get_workflow_handle(run.workflow_id)

    async def completed() -> bool:
        return (await handle.describe()).status == WorkflowExecutionStatus.COMPLETED

    await until(completed, "the workflow has ended")
    result = await handle.result()
    assert (result["run_id"], result["state"], result.get("error")) == (run.run_id, "done", None)
    assert result["answer"] == "paid 5.0"


async def test_a_wait_for_an_approval_survives_looks_at_its_run(make_world: MakeWorld, models: ModelServer) -> None:
    """Looked at again and again, and with a message behind it, a pending approval stays pending until it is decided."""
    world = await _world(make_world, models, look_after=0.2)
    client = await world.client()
    run = await client.start("one", "pay", thread="look")
    await until(run.approvals, "the approval is pending")
    later = await client.start("one", "hello", thread="look")
    temporal = await histories.connect(world.settings)

    async def looked() -> bool:
        seen = 0
        async for event in temporal.get_workflow_handle(run.workflow_id).fetch_history_events():
            scheduled = event.activity_task_scheduled_event_attributes
            seen += scheduled.activity_type.name == "request_approvals"
        return seen >= 3

    await until(looked, "it was looked at twice")
    await run.approve()
    assert (await run.result(timeout=PATIENCE)).output == "paid 5.0"
    assert (await later.result(timeout=PATIENCE)).output == "heard"
    kinds = await world.rows("select count(*) as n from events where kind = 'approval_requested'")
    assert kinds == [{"n": 1}]


async def _stopped_by_terminate(world: World, run: RunHandle) -> None:
    """Terminate a run's workflow and wait until a sweep has stopped the run."""
    temporal = await histories.connect(world.settings)
    await temporal.get_workflow_handle(run.workflow_id).terminate()

    async def stopped() -> bool:
        return (await run.status()).state == "stopped"

    await until(stopped, "a sweep has stopped the run")


async def test_a_reset_after_a_terminate_makes_no_effect_of_the_stopped_run(
    make_world: MakeWorld, models: ModelServer
) -> None:
    """A call that was to be tried again when its run was stopped is not made when a Reset undoes the terminate."""
    world = await _world(make_world, models, sweep_every=1.0, linger=0.5)
    client = await world.client()
    run = await client.start("one", "send", thread="undone")
    tried = "select 1 from effects where tool = 'send' and state = 'failed' and sends > 1"
    await until(lambda: world.rows(tried), "the remote has refused twice")
    await _stopped_by_terminate(world, run)
    (world.folder / "up").touch()
    temporal = await histories.connect(world.settings)
    await histories.reset(temporal, run.workflow_id, task=-1)
    handle = temporal.get_workflow_handle(run.workflow_id)

    async def completed() -> bool:
        return (await handle.describe()).status == WorkflowExecutionStatus.COMPLETED

    await until(completed, "the reset workflow has ended")
    assert not (world.folder / "effects").exists()
    assert await world.rows("select state from effects where tool = 'send'") == [{"state": "failed"}]
    assert (await run.status()).state == "stopped"
    result = await handle.result()
    assert (result["state"], result["error"]) == ("stopped", "terminated in Temporal")


@pytest.mark.parametrize("task", [0, 1, -1])
async def test_a_reset_of_a_stopped_run_buys_no_reply(make_world: MakeWorld, models: ModelServer, task: int) -> None:
    """Brought back to any of its tasks, a run that was stopped asks the model nothing more."""
    world = await _world(make_world, models, sweep_every=1.0, linger=0.5)
    client = await world.client()
    run = await client.start("one", "hold", thread="bought")
    await until((world.folder / "hold.held").exists, "the call is under way")
    await _stopped_by_terminate(world, run)
    (world.folder / "hold.go").touch()
    asked = len(models.journal)
    temporal = await histories.connect(world.settings)
    await histories.reset(temporal, run.workflow_id, task=task)
    handle = temporal.get_workflow_handle(run.workflow_id)

    async def completed() -> bool:
        return (await handle.describe()).status == WorkflowExecutionStatus.COMPLETED

    await until(completed, "the reset workflow has ended")
    assert len(models.journal) == asked
    (last, *_) = await world.rows("select kind from events where run_id = $1 order by seq desc", run.run_id)
    assert last == {"kind": "ended"}
    result = await handle.result()
    assert result is None if task == 0 else result["state"] == "stopped"  # admitted anew, the message has had its run


async def _counted(world: World, run: RunHandle, tokens: int) -> None:
    async def counted() -> bool:
        (row,) = await world.rows("select tokens_in + tokens_out as n from runs where run_id = $1", run.run_id)
        return bool(row["n"] == tokens)

    await until(counted, "what was bought is counted")
    late = await world.rows("select tokens, outcome ->> 'run_id' as run_id from late_outcomes")
    assert late == [{"tokens": tokens, "run_id": run.run_id}]
    (row,) = await world.rows("select rounds from runs where run_id = $1", run.run_id)
    assert row["rounds"] == 0, "no reply of it is in the thread"


def _tokens(reply: asyncio.Event, heard: asyncio.Event) -> Any:
    async def answer(_: dict[str, Any]) -> dict[str, Any]:
        heard.set()
        await reply.wait()
        return {"say": "too late", "usage": [30, 12]}

    return answer


async def test_a_reply_that_meets_an_ended_run_is_counted(make_world: MakeWorld) -> None:
    """A run that is ended in the database while its model speaks is charged for that reply."""
    reply, heard = asyncio.Event(), asyncio.Event()
    async with ModelServer(reply=_tokens(reply, heard)) as models:
        world = await _world(make_world, models)
        run = await (await world.client()).start("one", "hello", thread="charged")
        await asyncio.wait_for(heard.wait(), PATIENCE)
        await world.rows("update runs set state = 'stopped', ended_at = now() where run_id = $1", run.run_id)
        reply.set()
        await _counted(world, run, 42)


async def test_a_reply_that_is_being_stored_when_the_run_is_stopped_is_counted(make_world: MakeWorld) -> None:
    """Stopped between the model's answer and its record, the run is charged for what nobody will read."""
    reply, heard = asyncio.Event(), asyncio.Event()
    reply.set()
    async with ModelServer(reply=_tokens(reply, heard)) as models:
        world = await _world(make_world, models)
        run = await (await world.client()).start("one", "hello", thread="stored")
        async with world.held("lock table requests in access exclusive mode"):
            waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            await until(lambda: world.rows(waiting), "the reply is about to be stored")
            assert heard.is_set()
            await run.stop()

            async def ended() -> bool:
                return (await run.status()).ended

            await until(ended, "the run has ended")
        await _counted(world, run, 42)


async def test_what_was_bought_for_nothing_counts_against_the_budget(
    make_world: MakeWorld, models: ModelServer
) -> None:
    """A reply that another workflow of the run had bought in vain leaves that much less, sub-agents or not."""
    world = await _world(make_world, models)
    run = await (await world.client()).start("small", "hold", thread="budget")
    await until((world.folder / "hold.held").exists, "the call is under way")
    await world.rows("update runs set tokens_in = 1000000 where run_id = $1", run.run_id)
    (world.folder / "hold.go").touch()
    with pytest.raises(RunEnded, match="of 1000000 tokens of this run are used") as ended:
        await run.result(timeout=PATIENCE)
    assert ended.value.state == "over_budget"
    assert "sub-agents" not in str(ended.value)


async def _begun(world: World, thread: str) -> tuple[RunHandle, dict[str, Any]]:
    client = await world.client()
    run = await client.start("one", "pay", thread=thread)
    await until(run.approvals, "the approval is pending")
    [row] = await world.rows("select writer, execution, writer_started from threads where thread = $1", thread)
    return run, row


async def test_a_thread_is_taken_over_in_the_order_in_which_decisions_lock(
    make_world: MakeWorld, models: ModelServer
) -> None:
    """A decision that is recorded while the next workflow takes its thread over meets no deadlock."""
    world = await _world(make_world, models, sweep_every=3600.0)
    run, _ = await _begun(world, "order")
    world.processes[-1].kill()
    temporal = await histories.connect(world.settings)
    await temporal.get_workflow_handle(run.workflow_id).terminate()
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_id=run.workflow_id, workflow_run_id="next")
    async with open_deps(world.settings, temporal, role="agents", name="test") as deps:
        async with world.held("select from runs where run_id = $1 for update", run.run_id) as conn:
            admit = Admit(writer="next", started=datetime.now(UTC), open=True)
            taking = asyncio.create_task(environment.run(AdmitActivities(deps).admit, admit))
            waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            await until(lambda: world.rows(waiting), "the next workflow waits for the run")
            await conn.execute("update approvals set decided_at = now() where run_id = $1", run.run_id)
        await taking
    assert (await run.status()).state == "stopped"


async def test_a_decision_on_an_approval_that_is_void_is_refused(make_world: MakeWorld, models: ModelServer) -> None:
    """Another workflow has taken the thread over: the audit does not say that the call was approved."""
    world = await _world(make_world, models, sweep_every=3600.0)
    run, thread = await _begun(world, "void")
    [asked] = await world.rows("select * from approvals where run_id = $1", run.run_id)
    [slot] = await world.rows("select seq from messages where run_id = $1 and role = 'tool'", run.run_id)
    await world.rows("update approvals set state = 'void'")
    temporal = await histories.connect(world.settings)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_id=run.workflow_id)
    inp = RecordDecision(
        writer=thread["writer"],
        run_id=run.run_id,
        step_no=asked["step_no"],
        decision=Decision(approve=True, decision_id="late"),
        definition=asked["policy"],
        tool="pay",
        args_hash=asked["args_hash"],
        seq=slot["seq"],
        call_id=asked["call_id"],
    )
    async with open_deps(world.settings, temporal, role="agents", name="test") as deps:
        recorded = await environment.run(DecisionActivities(deps).record_decision, inp)
    assert (recorded.accepted, recorded.over) == (False, True)
    assert await world.rows("select accepted from audit where decision_id = 'late'") == [{"accepted": False}]
    assert await world.rows("select 1 from events where kind = 'approval_decided'") == []


async def test_a_steering_message_does_not_join_a_run_that_has_ended(
    make_world: MakeWorld, models: ModelServer
) -> None:
    """After a Reset of an ended run a new steering message is not lost in it."""
    world = await _world(make_world, models, sweep_every=3600.0)
    client = await world.client()
    first = await client.start("one", "hello", thread="steer")
    await first.result(timeout=PATIENCE)
    second, thread = await _begun(world, "steer")
    temporal = await histories.connect(world.settings)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_id=second.workflow_id, workflow_run_id=thread["execution"])
    begin = BeginRun(writer=thread["writer"], run_id=second.run_id, step_no=9, into=first.run_id)
    async with open_deps(world.settings, temporal, role="agents", name="test") as deps:
        begun = await environment.run(RunActivities(deps).begin_run, begin)
    assert begun.over == "done"
    assert (await second.status()).state == "waiting"


async def test_a_stop_is_audited_and_told(make_world: MakeWorld, models: ModelServer) -> None:
    """Who stopped a run, when and why stands in the audit and in the run's record, once; a refused stop as well."""
    world = await _world(make_world, models)
    client = await world.client()
    run = await client.start("one", "hold", thread="stop")
    await until((world.folder / "hold.held").exists, "the call is under way")
    queued = await client.start("one", "hello", thread="stop", message_id="queued")
    await until(lambda: world.rows("select 1 from runs where message_id = 'queued'"), "it is admitted")
    await queued.stop(reason="not this one", actor="bob")
    receipt = await run.stop(reason="enough", actor="ann")
    for each in (run, queued):
        with pytest.raises(RunEnded):
            await each.result(timeout=PATIENCE)
    rows = await world.rows(
        "select run_id::text, decision_id, action, actor, verified, accepted, detail ->> 'reason' as reason from audit "
        "where accepted order by actor"  # a stop that comes before the workflow knows the queued run is refused first
    )
    about = {"action": "stop", "verified": False, "accepted": True}
    assert [{**row, "decision_id": bool(row["decision_id"])} for row in rows] == [
        {**about, "run_id": run.run_id, "decision_id": True, "actor": "ann", "reason": "enough"},
        {**about, "run_id": queued.run_id, "decision_id": True, "actor": "bob", "reason": "not this one"},
    ]
    assert rows[0]["decision_id"] == receipt.decision_id
    events = await world.rows("select kind, data::text as data from events where run_id = $1 order by seq", run.run_id)
    assert [event["kind"] for event in events][-2:] == ["stop_requested", "ended"]
    assert '"ann"' in events[-2]["data"]
    handle = (await histories.connect(world.settings)).get_workflow_handle(run.workflow_id)
    await handle.signal("stop", {"run_id": run.run_id, "actor": "eve"})
    refused = "select accepted, action from audit where actor = 'eve'"
    assert await until(lambda: world.rows(refused), "it is audited") == [{"accepted": False, "action": "stop"}]
