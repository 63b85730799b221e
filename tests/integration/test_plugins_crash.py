"""Workers killed inside hooks: the step begins again, its effect takes place once, its change is stored once."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from holdfast import RunHandle
from holdfast.runtime import connect_temporal
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio, json, pathlib
from holdfast import Agent, Event, Plugin, ToolContext, tool
from holdfast.plugins import At, ModelCall, Reply, ToolCall, ToolResult

HERE = pathlib.Path(__file__).parent

def write(name: str, **data) -> None:
    with (HERE / name).open("a") as file:
        file.write(json.dumps(data) + "\\n")

async def pause(hook: str) -> None:
    """Stand still while a file says so, and say that one does."""
    while (HERE / f"block-{hook}").exists():
        (HERE / f"in-{hook}").touch()
        await asyncio.sleep(0.02)

def effect(name: str, cls: str, **more):
    async def body(ctx: ToolContext) -> str:
        write("effects", tool=name, key=ctx.idempotency_key)
        return f"{name} worked"
    return tool(effect=cls, name=name, **more)(body)

async def landed(ctx: ToolContext) -> str | None:
    """Look whether the call took effect."""
    done = (HERE / "effects").read_text() if (HERE / "effects").exists() else ""
    return "sure worked" if ctx.idempotency_key in done else None

pure, once, keyed = effect("pure", "pure"), effect("once", "once"), effect("keyed", "keyed")
sure = effect("sure", "verifiable", lookup=landed, settle=0.1)

class Probe(Plugin):
    required = True

    async def _at(self, hook: str, at: At) -> None:
        write("calls", hook=hook, run=at.run_id, attempt=at.attempt)
        await pause(hook)

    async def message(self, at: At, text: str) -> str | None:
        await self._at("message", at)
        return f"{text} [heard]"

    async def before_model(self, at: At, call: ModelCall) -> ModelCall | None:
        await self._at("before_model", at)

    async def after_model(self, at: At, reply: Reply) -> Reply | None:
        await self._at("after_model", at)

    async def answer(self, at: At, text: str) -> str | None:
        await self._at("answer", at)
        return f"{text} [seen]"

    async def before_tool(self, at: At, call: ToolCall) -> None:
        await self._at("before_tool", at)

    async def after_tool(self, at: At, result: ToolResult) -> str | None:
        await self._at("after_tool", at)
        return f"{result.text} [looked at]"

    async def event(self, event: Event) -> None:
        await pause("event")
        write("events", run=event.run_id, seq=event.seq)

plugins = [Probe()]
probe = Agent("probe", "openai/test", "Help.", tools=[pure, once, keyed, sure])
'''


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """Call the tool that the message names, then say what it said."""
    said = request["messages"]
    last = max(at for at, message in enumerate(said) if message["role"] == "user")
    results = [message["content"] for message in said[last:] if message["role"] == "tool"]
    return {"say": results[0]} if results else {"call": [{said[last]["content"].split()[0]: {}}]}


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, reply, hook_timeout=60.0)]


def lines(world: World, name: str) -> list[dict[str, Any]]:
    """Return what was written to a file."""
    path = world.folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def killed_in(world: World, hook: str, tool: str) -> RunHandle:
    """Start a run, kill the worker while it is in *hook*, and start another."""
    client = await world.client()
    (world.folder / f"in-{hook}").unlink(missing_ok=True)
    (world.folder / f"block-{hook}").touch()
    run = await client.start("probe", tool, thread=f"{hook}-{tool}")
    await until((world.folder / f"in-{hook}").exists, f"a worker is in {hook}")
    world.processes[-1].kill()
    (world.folder / f"block-{hook}").unlink()
    await world.worker()
    return run


async def judge(world: World, run: RunHandle, hook: str, tool: str, *, models: int = 2, times: int = 2) -> None:
    """Check what is on record: once, whatever was called twice."""
    assert (await run.result(timeout=2 * PATIENCE)).output == f"{tool} worked [looked at] [seen]"
    called = [each for each in lines(world, "calls") if each["run"] == run.run_id and each["hook"] == hook]
    assert len(called) == times, called
    events = [event async for event in run.events()]
    kinds = [event.kind for event in events]
    assert (kinds.count("tool_done"), kinds.count("replied"), kinds.count("accepted")) == (1, 2, 1)
    did = [(event.data["hook"], event.data["did"]) for event in events if event.kind == "plugin"]
    assert did == [("message", "changed"), ("after_tool", "changed"), ("answer", "changed")]
    bodies = [str(m.body) for m in await run.messages()]
    assert [sum(mark in body for body in bodies) for mark in ("[heard]", "[looked at]", "[seen]")] == [1, 2, 1]
    asked = [e for e in world.models.journal if f"{tool} [heard]" in str(e["body"]["messages"])]
    of_this = [e for e in asked if e["body"]["messages"][1]["content"] == f"{tool} [heard]"]
    assert len(of_this) >= models


def effects(world: World, run: RunHandle, keys: set[str]) -> list[str]:
    """Return the arrivals of calls with these keys."""
    return [each["key"] for each in lines(world, "effects") if each["key"] in keys]


async def keys_of(world: World, run: RunHandle) -> set[str]:
    """Return the keys of a run's tool calls."""
    rows = await world.rows("select key from effects where run_id = $1 and tool <> 'model'", run.run_id)
    return {row["key"] for row in rows}


@pytest.mark.parametrize("hook", ["message", "before_model", "after_model", "answer"])
async def test_killed_in_a_hook_of_a_message_or_a_model_call(world: World, hook: str) -> None:
    """The step begins again; a reply that was not on record is bought again, one that was is not shown again."""
    run = await killed_in(world, hook, "once")
    times = {"before_model": 3, "after_model": 3}.get(hook, 2)  # of two model calls, one is done twice
    await judge(world, run, hook, "once", times=times)
    assert len(effects(world, run, await keys_of(world, run))) == 1


@pytest.mark.parametrize("tool", ["pure", "once", "keyed", "sure"])
async def test_killed_before_a_call_is_sent(world: World, tool: str) -> None:
    """Nothing was sent, so the next attempt sends it: once, of any class, and nobody is asked."""
    run = await killed_in(world, "before_tool", tool)
    await judge(world, run, "before_tool", tool)
    key = await keys_of(world, run)
    assert len(effects(world, run, key)) == 1


@pytest.mark.parametrize(("tool", "arrivals"), [("pure", 2), ("keyed", 2), ("sure", 1)])
async def test_killed_while_a_result_is_looked_at(world: World, tool: str, arrivals: int) -> None:
    """As a kill between sending and record: run again, sent again with its key, or looked up; stored once, changed."""
    run = await killed_in(world, "after_tool", tool)
    await judge(world, run, "after_tool", tool)
    found = effects(world, run, await keys_of(world, run))
    assert (len(found), len(set(found))) == (arrivals, 1), "a second sending has the first one's key"
    before = [e for e in lines(world, "calls") if e["run"] == run.run_id and e["hook"] == "before_tool"]
    assert len(before) == (2 if tool == "pure" else 1), "a call that was let through once is not shown again"


async def test_killed_while_the_result_of_a_once_call_is_looked_at(world: World) -> None:
    """The call is in doubt, as at any kill after sending: it is not made again, and a person says what came of it."""
    run = await killed_in(world, "after_tool", "once")

    async def doubtful() -> bool:
        return any(event.kind == "in_doubt" for event in await run.recorded())

    await until(doubtful, "the call is in doubt")
    [step] = [event.data["step"] for event in await run.recorded() if event.kind == "in_doubt"]
    await run.resolve(step, done="once worked")
    assert (await run.result(timeout=2 * PATIENCE)).output == "once worked [seen]", "a person's word is no tool's"
    assert len(effects(world, run, await keys_of(world, run))) == 1


async def test_a_reset_shows_nothing_on_record_again(world: World) -> None:
    """Recorded replies and results are returned as they were changed then; no hook of a step is called for them."""
    client = await world.client()
    run = await client.start("probe", "once", thread="reset")
    said = (await run.result(timeout=2 * PATIENCE)).output
    before = [each for each in lines(world, "calls") if each["run"] == run.run_id]
    temporal = await connect_temporal(world.settings, identity="test")
    handle = temporal.get_workflow_handle(f"{world.settings.tenant}:reset")
    history = await handle.fetch_history()
    done = [e.event_id for e in history.events if e.HasField("workflow_task_completed_event_attributes")]
    await temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=(await handle.describe()).run_id),
            reason="test",
            workflow_task_finish_event_id=next(number for number in done if number > 5),
            request_id=uuid.uuid4().hex,
        )
    )

    async def caught_up() -> bool:
        state = await handle.query("state", rpc_timeout=timedelta(seconds=10))
        return not state.get("current") and state.get("step_no", 0) >= 4

    await until(caught_up, "the reset execution has caught up")
    assert [each for each in lines(world, "calls") if each["run"] == run.run_id] == before
    assert (await run.result(timeout=PATIENCE)).output == said == "once worked [looked at] [seen]"


async def test_a_listener_hears_all_though_its_worker_is_killed(world: World) -> None:
    """Of every run each event at least once, in order; also what happened while no worker told it."""
    await killed_in(world, "event", "pure")

    async def complete() -> bool:
        rows = await world.rows("select run_id::text as run, seq from heads")
        heard = lines(world, "events")
        return all({e["seq"] for e in heard if e["run"] == row["run"]} >= set(range(1, row["seq"] + 1)) for row in rows)

    await until(complete, "everything was heard", 2 * PATIENCE)
    for run in {each["run"] for each in lines(world, "events")}:
        heard = [each["seq"] for each in lines(world, "events") if each["run"] == run]
        first = list(dict.fromkeys(heard))
        assert first == sorted(first)
        assert len(heard) - len(first) <= len(world.processes), "told again only where a kill came in between"
