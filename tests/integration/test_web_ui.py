"""What the Temporal Web UI is given to show: summaries, current details with how to decide, and a result."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowHandle
from temporalio.converter import default as plain_converter

from tests import histories
from tests.kit import PATIENCE, World, until

AGENTS = '''
from holdfast import Agent, ToolError, tool

@tool(effect="once", approval="always")
async def pay(note: str, amount: float) -> str:
    """Pay."""
    return f"paid {amount}"

@tool(effect="pure")
async def broken() -> str:
    """Fails."""
    raise ToolError("the printer is on fire")

one = Agent(name="one", model="openai/test", tools=[pay, broken])
'''

SCRIPT = """
conversations:
  - when: short
    replies:
      - call: {pay: {note: "a\\u202eb ``` c", amount: 5}}
      - say: "{{last_tool}}"
  - when: long
    replies:
      - call: {pay: {note: "BEGIN-LONG-END", amount: 5}}
      - say: "{{last_tool}}"
  - when: broken
    replies:
      - call: {broken: {}}
      - say: "it does not work"
""".replace("LONG", "x" * 6000)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT, linger=2.0, linger_asked=0.5)]


async def details(handle: WorkflowHandle[Any, Any]) -> str:
    """Return the current details, as the Web UI asks for them."""
    found: WorkflowMetadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return found.current_details


async def summaries(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """Return the summaries of activities and timers in a history."""
    decode = plain_converter().payload_converter.from_payload
    return [
        str(decode(event.user_metadata.summary, str))
        for event in (await handle.fetch_history()).events
        if event.HasField("user_metadata")
    ]


def pasted(text: str) -> list[Any]:
    """Return the JSON that the details offer to paste."""
    (block,) = re.findall(r"as its input:\n\n```json\n(.*?)\n```", text, re.DOTALL)
    return [json.loads(line) for line in block.splitlines()]


async def test_a_waiting_approval_shows_its_arguments_and_how_to_decide(world: World) -> None:
    """The details have the message, all arguments with hidden characters as escapes, and JSON that works as it is."""
    run = await (await world.client()).start("one", "short one\nand a second line", thread="ui-1")
    await until(run.approvals, "the approval is pending")
    temporal = await histories.connect(world.settings)
    handle = temporal.get_workflow_handle(f"{world.settings.tenant}:ui-1")
    described = await handle.describe()
    assert await described.static_summary() == "one: short one"
    text = await until(lambda: details(handle), "there are details")
    assert "short one" in text
    assert "````json" in text, "no argument ends the block"
    assert '"note":"a\\u202eb ``` c"' in text
    yes, no = pasted(text)
    assert (yes["approve"], no["approve"], no["reason"]) == (True, False, "why not")
    await handle.signal("decide", {**no, "reason": "too much"})
    assert "too much" in str((await run.result(timeout=PATIENCE)).output)
    result = await handle.result()
    assert (result["run_id"], result["state"], result["question"]) == (run.run_id, "done", "short one")
    assert result["answer"].startswith("rejected")
    assert "idle: ends in 2 s unless a message comes" in await summaries(handle)


async def test_long_arguments_show_beginning_and_end(world: World) -> None:
    """Arguments that the workflow does not have are shown too, with what is left out between; nothing hides the end."""
    run = await (await world.client()).start("one", "long one", thread="ui-2")
    await until(run.approvals, "the approval is pending")
    handle = (await histories.connect(world.settings)).get_workflow_handle(f"{world.settings.tenant}:ui-2")

    async def shown() -> str:
        text = await details(handle)
        return text if "left out" in text else ""

    text = await until(shown, "the arguments are shown")
    assert "BEGIN-xxx" in text
    assert "xxx-END" in text
    event = next(event for event in await run.recorded() if event.kind == "approval_requested")
    assert "xxx-END" in event.data["args"]
    await run.approve()
    await run.result(timeout=PATIENCE)


async def test_a_tool_that_failed_is_said(world: World) -> None:
    """The round after it says so in its summary; a question by AskWorkflow leaves no idle timer of seconds."""
    temporal = await histories.connect(world.settings)
    answer = await temporal.execute_workflow(
        "AskWorkflow",
        {"agent": "one", "text": "broken", "thread": "ui-3"},
        id=f"ask-ui-{world.settings.tenant}",
        task_queue=world.settings.task_queue,
        result_type=dict,
    )
    assert answer["answer"] == "it does not work"
    handle = temporal.get_workflow_handle(f"{world.settings.tenant}:ui-3")
    assert (await handle.result())["answer"] == "it does not work"
    found = await summaries(handle)
    assert "one round 2, after broken failed" in found
    assert "idle: ends in 0.5 s unless a message comes" in found
