"""What is recorded of agents that ask agents, or hand a conversation over; other scenarios are in `scenarios.py`."""

from __future__ import annotations

from typing import Any

from holdfast.handles import RunHandle
from holdfast.ids import workflow_id_for
from tests import histories
from tests.kit import until
from tests.replay.scenarios import Scenario, Stage, call

__all__ = ["FAMILY", "FAMILY_AGENTS"]

FAMILY_AGENTS = """
from holdfast.tools import agent_tool

helper = Agent("helper", "openai/test", tools=[page, nap], description="Looks into things.")
manager = Agent("manager", "openai/test", tools=[helper, page, agent_tool("nobody", description="Not there.")])
desk = Agent("desk", "openai/test", tools=[page], handoffs=["manager"])
"""

HELD = {"say": "looked"} | {"hold": True}


def asks(*messages: str, **more: dict[str, Any]) -> dict[str, Any]:
    """Return a reply that asks the helper these things at once, and makes other calls."""
    return {
        "call": [{"helper": {"message": each}} for each in messages] + [{name: args} for name, args in more.items()]
    }


async def workflow_of_child(stage: Stage, run: RunHandle, number: int = 0) -> str:
    """Return the id of the workflow of a run's child."""
    return workflow_id_for(stage.world.settings.tenant, (await run.children())[number].thread)


async def children(stage: Stage) -> str:
    """Two are asked beside a tool, one by a long message; nobody answers for an agent that is not there."""
    long = "look into this: " + "a " * 1500
    stage.model.replies["look into A"] = [call(page={"number": 1}), {"say": "A is well"}]
    stage.model.replies[long.strip()] = [{"say": "read it"}]
    replies = [
        asks("look into A", long.strip(), page={"number": 2}),
        call(nobody={"message": "hello"}),
        {"say": "done"},
    ]
    await (await stage.ask("manager", "look into all", "children", replies)).result(timeout=60)
    return await stage.thread_closed("children")


async def child(stage: Stage) -> str:
    """One of those that were asked."""
    return await stage.closed(await workflow_of_child(stage, (await _runs(stage, "children"))[0]))


async def _runs(stage: Stage, thread: str) -> list[RunHandle]:
    return [await stage.client.get(found.run_id) for found in await stage.client.runs(thread=thread)]


async def stopped(stage: Stage) -> str:
    """The one who asks is stopped, and with it who was asked."""
    stage.model.replies["look into B"] = [HELD]
    run = await stage.ask("manager", "look into B for me", "stopped", [asks("look into B"), {"say": "never"}])
    await stage.model.held.wait()
    await run.stop(reason="enough")
    await stage.event(run, "ended")
    stage.model.let_go.set()
    return await stage.thread_closed("stopped")


async def stopped_child(stage: Stage) -> str:
    """Who was asked by the one who was stopped."""
    return await stage.closed(await workflow_of_child(stage, (await _runs(stage, "stopped"))[0]))


async def asked_again(stage: Stage) -> str:
    """The one who asks is reset and asks again; who was asked is at work still."""
    stage.model.replies["look into C"] = [HELD]
    run = await stage.ask("manager", "look into C for me", "asked-again", [asks("look into C"), {"say": "done"}])
    await stage.model.held.wait()
    await histories.reset(stage.temporal, run.workflow_id)
    other = stage.temporal.get_workflow_handle(await workflow_of_child(stage, run))

    async def heard() -> bool:
        events = (await other.fetch_history()).events
        return any(e.workflow_execution_signaled_event_attributes.signal_name == "child" for e in events)

    await until(heard, "the child was asked again")
    stage.model.let_go.set()
    await run.result(timeout=60)
    await stage.thread_closed("asked-again")
    return await stage.closed(other.id)


async def hand_off(stage: Stage) -> str:
    """The conversation moves after another call of the same reply, with a message that waits behind."""
    replies = [
        {"call": [{"hand_off_to_manager": {"note": "please"}}, {"page": {"number": 3}}]} | {"hold": True},
        {"say": "it is mine now"},
    ]
    run = await stage.ask("desk", "who is in charge?", "hand-off", replies)
    await stage.model.held.wait()
    after = await stage.client.start("desk", "thank you", thread="hand-off")
    await stage.event(after, "accepted")
    stage.model.let_go.set()
    for one in (run, after):
        await one.result(timeout=60)
    return await stage.thread_closed("hand-off")


async def rolling_parent(stage: Stage) -> str:
    """The one who asks rolls over while two are at work, and hears of both."""
    stage.model.replies["look into D"] = [HELD]
    stage.model.replies["look into E"] = [HELD]
    pages = [call(page={"number": number}) for number in range(3)]
    replies = [*pages, asks("look into D", "look into E"), {"say": "done"}]
    run = await stage.ask("manager", "look into D and E", "rolling-parent", replies)
    await stage.event(run, "child_started", 2)
    handle = stage.temporal.get_workflow_handle(run.workflow_id)

    async def waits_anew() -> bool:
        state = await handle.query("state", result_type=dict)
        calls = (state.get("current") or {}).get("calls", [])
        return state.get("executions", 0) > 1 and [each.get("state") for each in calls] == ["child", "child"]

    await until(waits_anew, "it has rolled over")
    stage.model.let_go.set()
    await run.result(timeout=60)
    return await stage.thread_closed("rolling-parent")


FAMILY = {
    "agent-children": Scenario(children),
    "agent-child": Scenario(child),
    "agent-stopped-parent": Scenario(stopped),
    "agent-stopped-child": Scenario(stopped_child),
    "agent-asked-again": Scenario(asked_again),
    "agent-hand-off": Scenario(hand_off),
    "agent-rolling-parent": Scenario(rolling_parent, rolling=True),
}
