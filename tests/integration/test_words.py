"""What a person or a program says to a thread: no word wedges it, and each has a bound that every server keeps."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import Client as Temporal
from temporalio.client import WithStartWorkflowOperation, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import RawValue, WorkflowIDConflictPolicy

from holdfast.handles import RunHandle
from tests.conftest import MakeWorld
from tests.kit import World, until

AGENTS = '''
import asyncio, pathlib
from holdfast import Agent, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="once", approval="always")
async def pay(amount: float) -> str:
    """Pay."""
    return f"paid {amount}"

@tool(effect="once", timeout=120)
async def lose(name: str) -> str:
    """An effect of which nobody hears."""
    (HERE / f"{name}.sent").touch()
    while not (HERE / f"{name}.open").exists():
        await asyncio.sleep(0.05)
    raise TimeoutError("no answer")

one = Agent(name="one", model="openai/test", tools=[pay, lose])
'''

SCRIPT = """
conversations:
  - when: pay
    replies:
      - call: {pay: {amount: 5}}
      - say: "{{last_tool}}"
  - when: lose
    replies:
      - call: {lose: {name: "{{user}}"}}
      - say: "{{last_tool}}"
  - replies:
      - say: "you said {{user}}"
"""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


def raw(text: str) -> RawValue:
    """Return JSON as another program may send it, also what no JSON of Python's would have."""
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text.encode()))


async def temporal_of(world: World) -> Temporal:
    """Return a plain Temporal client: no converter, no code of ours."""
    return await Temporal.connect(world.settings.temporal_address or "")


async def send(world: World, thread: str, message: dict[str, Any]) -> WorkflowHandle[Any, Any]:
    """Send a message by update-with-start, as any Temporal client does, and return the thread's workflow."""
    temporal = await temporal_of(world)
    start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
        "AgentWorkflow",
        {},
        id=f"{world.settings.tenant}:{thread}",
        task_queue=world.settings.task_queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    await temporal.execute_update_with_start_workflow("message", message, start_workflow_operation=start)
    return await start.workflow_handle()


async def healthy(handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether no workflow task of an execution has failed."""
    return not [
        event
        async for event in handle.fetch_history_events()
        if event.HasField("workflow_task_failed_event_attributes")
    ]


@pytest_asyncio.fixture(loop_scope="module")
async def waiting(world: World) -> AsyncIterator[tuple[RunHandle, WorkflowHandle[Any, Any]]]:
    """Return a run that waits for an approval, and its workflow; in the end it is approved and answers."""
    client = await world.client()
    run = await client.start("one", "pay", thread=f"w-{uuid.uuid4().hex[:8]}")
    await until(run.approvals, "the approval is pending")
    yield run, (await temporal_of(world)).get_workflow_handle(f"{world.settings.tenant}:{run.thread}")
    await run.approve()
    assert (await run.result(timeout=60)).output == "paid 5.0"


LONG = "é" * 501  # 1,002 bytes
DEEP = '{"a":' * 150 + "1" + "}" * 150


@pytest.mark.parametrize("wrong", [{"notify": ""}, {"notify": LONG}, {"text_ref": ""}, {"text_ref": LONG}])
async def test_a_message_that_temporal_would_refuse_is_refused_at_the_door(world: World, wrong: dict[str, str]) -> None:
    """A name that is empty or over 1,000 bytes is refused with its size, and the thread answers the next message."""
    thread = f"m-{uuid.uuid4().hex[:8]}"
    text = {} if "text_ref" in wrong else {"text": "hi"}
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await send(world, thread, {"message_id": "m1", "agent": "one", **text, **wrong})
    assert "1,000" in str(refused.value.cause)
    run = await (await world.client()).start("one", "hello", thread=thread)
    assert (await run.result(timeout=60)).output == "you said hello"


POISON = {
    "too large a number": '{"approve": true, "args": {"amount": 1e400}}',
    "not a number": '{"approve": true, "args": {"amount": NaN}}',
    "infinite": '{"approve": true, "args": {"amount": [-Infinity]}}',
    "NUL in a value": '{"approve": true, "args": {"amount": 1, "note": "a\\u0000"}}',
    "NUL in a name": '{"approve": true, "args": {"a\\u0000": 1}}',
    "half a character": '{"approve": true, "args": {"note": "\\ud800"}}',
    "deep": f'{{"approve": true, "args": {DEEP}}}',
    "long decision id": json.dumps({"approve": True, "decision_id": "x" * 3000}),
    "NUL in the decision id": '{"approve": true, "decision_id": "\\u0000"}',
    "long call id": json.dumps({"approve": True, "call_id": "x" * 3000}),
    "long run id": json.dumps({"approve": True, "run_id": "x" * 3000}),
    "long actor": json.dumps({"approve": True, "actor": "x" * 3000}),
    "half a character in the actor": '{"approve": true, "actor": "\\udc00"}',
    "NUL in the reason": '{"approve": false, "reason": "\\u0000"}',
    "large": json.dumps({"approve": True, "args": {"note": "x" * 200_000}}),
}


@pytest.mark.parametrize("text", POISON.values(), ids=list(POISON))
async def test_a_poisonous_decision_is_refused_and_the_next_one_counts(
    waiting: tuple[RunHandle, WorkflowHandle[Any, Any]], text: str
) -> None:
    """What no database holds is refused as an update, and dropped as a signal; no workflow task fails."""
    _, handle = waiting
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update("decide", raw(text))
    await handle.signal("decide", raw(text))
    state = await handle.query("state")
    assert [call["state"] for call in state["current"]["calls"]] == ["approval"]
    assert await healthy(handle)


async def test_other_poisonous_words_are_dropped_as_well(waiting: tuple[RunHandle, WorkflowHandle[Any, Any]]) -> None:
    """Whatever is signalled, the workflow goes on as before."""
    _, handle = waiting
    for name in ("resolve", "stop", "settled", "ended", "child"):
        for word in (
            '{"step_no": 1e400, "outcome": "done", "run_id": "none"}',
            '{"step_no": 99999999999999999999, "outcome": "abandon", "run_id": "none"}',
            json.dumps({"step_no": 3, "outcome": "done", "decision_id": "x" * 3000, "run_id": "none"}),
            '{"step_no": 3, "outcome": "done", "result": "\\ud800", "run_id": "\\u0000", "reason": "\\udfff"}',
            json.dumps({"run_id": "no such run", "actor": "x" * 3000}),
            "[1e999]",
        ):
            await handle.signal(name, raw(word))
    assert (await handle.query("state"))["current"]["calls"][0]["state"] == "approval"
    assert await healthy(handle)


async def test_a_question_with_a_long_workflow_id_is_answered(world: World) -> None:
    """AskWorkflow makes its message's id of its own, which may be longer than a message id."""
    temporal = await temporal_of(world)
    found = await temporal.execute_workflow(
        "AskWorkflow",
        {"agent": "one", "text": "hello"},
        id=f"{world.settings.tenant}-{'x' * 900}",
        task_queue=world.settings.task_queue,
        result_type=dict,
    )
    assert found["answer"] == "you said hello"


async def test_each_word_at_its_limit_passes_every_server(make_shared_world: MakeWorld) -> None:
    """Names, ids, summaries and search attributes of full length reach Temporal and PostgreSQL, and nothing fails."""
    from holdfast.testing import ModelServer

    agent, child, tool = "a" * 128, "c" * 128, "t" * 64
    agents = f'''
from holdfast import Agent, tool

@tool(name="{tool}", effect="once", approval="always")
async def pay(note: str) -> str:
    """Pay."""
    return f"paid {{len(note)}}"

helper = Agent(name="{child}", model="openai/test", description="helps")
one = Agent(name="{agent}", model="openai/test", tools=[pay, helper.as_tool(name="{"h" * 64}")])
'''
    wide = "\U0001f600"  # 4 bytes
    script = f"""
conversations:
  - when: first
    replies:
      - call: {{{tool}: {{note: "{wide * 3000}"}}}}
      - call: {{{"h" * 64}: {{message: "{wide * 400}"}}}}
      - say: "{wide * 300}"
  - replies:
      - say: "{wide * 300}"
"""
    async with ModelServer(script) as models:
        world = await make_shared_world(agents, api_base=models.base_url, tenant="n" * 128)
        await world.worker()
        temporal = await temporal_of(world)
        listener = f"{'l' * 1000}"
        message = {
            "message_id": wide * 256,
            "agent": agent,
            "text": "first " + wide * 510,
            "notify": listener,
        }
        handle = await send(world, "d" * 128, message)
        client = await world.client()
        runs = await until(lambda: client.runs(thread="d" * 128), "the run is there")
        run = await client.get(runs[0].run_id)
        await until(run.approvals, "the approval is pending")
        step = (await run.approvals())[0].step_no
        actor = "é" * 500
        for wrong in ({"actor": actor + "x"}, {"decision_id": "x" * 257}):
            with pytest.raises(WorkflowUpdateFailedError):
                await handle.execute_update("decide", {"approve": True, **wrong})
        decision: dict[str, Any] = {"approve": True, "call_id": str(step), "actor": actor, "decision_id": "é" * 128}
        decision["args"] = {"note": wide * 8000}
        await handle.execute_update("decide", decision)
        assert (await run.result(timeout=120)).output == wide * 300
        assert await healthy(handle)
        async for found in temporal.list_workflows(f"HoldfastTenant = '{'n' * 128}'"):
            assert await healthy(temporal.get_workflow_handle(found.id, run_id=found.run_id))
        audit = await world.rows("select actor, decision_id from audit where accepted")
        assert audit == [{"actor": actor, "decision_id": "é" * 128}]
