"""What workflow histories really carry: a run's are exported and read, payload by payload."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from temporalio.client import Client as Temporal
from temporalio.client import WorkflowUpdateFailedError

from holdfast import RunHandle
from holdfast.errors import InvalidInput
from holdfast.ids import workflow_id_for
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, until

AGENTS = """
from holdfast import Agent, tool

@tool(effect="pure")
async def echo(text: str) -> str:
    "Give a long result. TOOLDOC"
    return "RESULT " + 5000 * "r"

agent = Agent("agent", "openai/test", "INSTRUCTIONS " + 3000 * "i", tools=[echo], window=100_000)
"""
SCRIPT = """
conversations:
  - replies:
      - say: SAID {said}
        call: [{{echo: {{text: "SMALL {small}"}}}}, {{echo: {{text: "LARGE {large}"}}}}]
      - say: ANSWER {said}
""".format(small="s" * 600, large="l" * 5000, said="w" * 3000)


async def test_histories_carry_small_texts_and_previews_and_nothing_longer(make_world: MakeWorld) -> None:
    """Messages up to 2 KiB and arguments up to 1 KiB travel in them, all else as previews of 64 characters."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        short = await client.start("agent", "SHORT " + 1500 * "q", thread="short")
        long = await client.start("agent", "LONG " + 9000 * "q", thread="long")
        for run in (short, long):
            await run.result(timeout=PATIENCE)
        told, untold = await texts(short), await texts(long)
    assert any(text.startswith("SHORT ") and len(text) > 1500 for text in told)
    assert {len(text) for text in untold if "LONG qqq" in text} <= {64}, "its preview"
    assert not any("q" * 65 in text for text in untold)
    for found in (told, untold):
        whole = "\n".join(found)
        assert any("SMALL sss" in text and len(text) > 600 for text in found)
        assert "INSTRUCTIONS" not in whole
        assert "TOOLDOC" not in whole
        for word, most in (("LARGE lll", 64), ("RESULT rrr", 64), ("SAID www", 64), ("ANSWER www", 64)):
            carried = [text for text in found if word in text]
            assert all(len(text) <= most for text in carried), word
        assert max(map(len, found)) <= 2048
        assert not any("l" * 65 in text or "r" * 65 in text or "w" * 65 in text for text in found)


PEOPLE = """
from holdfast import Agent, tool

@tool(effect="once", approval="always")
async def send(text: str) -> str:
    "Send a text."
    return "sent"

@tool(effect="once")
async def letter() -> str:
    "Write a letter."
    raise TimeoutError("the connection was cut")

agent = Agent("agent", "openai/test", "Help.", tools=[send, letter], window=100_000)
"""
ANSWERS = """
conversations:
  - when: send it
    replies: [{{call: {{send: {{text: "ASKED {asked}"}}}}}}, {{say: done}}]
  - when: write it
    replies: [{{call: {{letter: {{}}}}}}, {{say: done}}]
  - replies: [{{say: "TOLD {told}"}}]
""".format(asked="a" * 9000, told="t" * 9000)


async def test_what_comes_through_temporal_is_carried_whole(make_world: MakeWorld) -> None:
    """A question to AskWorkflow with its answer, edited arguments, a given result; of arguments that wait a part."""
    async with ModelServer(ANSWERS) as models:
        world = await make_world(PEOPLE, api_base=models.base_url)
        await world.worker()
        client = await world.client()

        temporal = await Temporal.connect(world.settings.temporal_address or "")
        asking = await temporal.start_workflow(
            "AskWorkflow",
            {"agent": "agent", "text": "QUESTION " + "q" * 9000, "thread": "asked"},
            id=f"ask-{world.settings.tenant}",
            task_queue=world.settings.task_queue,
        )
        await asyncio.wait_for(asking.result(), PATIENCE)
        through_ask = _texts(json.loads((await asking.fetch_history()).to_json()))
        [asked] = await client.runs(thread="asked")
        through_thread = await texts(await client.get(asked.run_id))

        edited = await client.start("agent", "send it", thread="edited")
        await until(edited.waiting, "it waits for approval")
        await edited.approve(args={"text": "EDITED " + "e" * 9000})
        await edited.result(timeout=PATIENCE)

        resolved = await client.start("agent", "write it", thread="resolved")
        [doubt] = await until(resolved.waiting, "it is in doubt")
        await resolved.resolve(doubt.step_no, done="GIVEN " + "g" * 9000)
        await resolved.result(timeout=PATIENCE)

        edits, words = await texts(edited), await texts(resolved)
    assert any(text.startswith("QUESTION ") and len(text) > 9000 for text in through_ask)
    assert any(text.startswith("TOLD ") and len(text) > 9000 for text in through_ask)
    assert max(map(len, through_thread)) <= 2048, "the thread's own history has references to them"
    assert any("EDITED eee" in text and len(text) > 9000 for text in edits)
    assert any("GIVEN ggg" in text and len(text) > 9000 for text in words)
    shown = [text for text in edits if "ASKED aaa" in text]
    assert 1000 < max(map(len, shown)) <= 4000, "of 9,000 characters 2,000 are shown, also as JSON in the details"


async def test_a_word_of_over_128_kib_is_taken_from_nobody(make_world: MakeWorld) -> None:
    """Our client refuses edited arguments earlier, at HOLDFAST_DECISION_ARGS_MAX; a thread refuses any client's."""
    async with ModelServer(ANSWERS) as models:
        world = await make_world(PEOPLE, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        run = await client.start("agent", "send it", thread="edited")
        await until(run.waiting, "it waits for approval")
        with pytest.raises(InvalidInput, match="at most 65536 may travel"):
            await run.approve(args={"text": "e" * 70_000})
        temporal = await Temporal.connect(world.settings.temporal_address or "")
        thread = temporal.get_workflow_handle(workflow_id_for(world.settings.tenant, "edited"))
        for size, taken in ((140_000, False), (100_000, True)):
            try:
                await thread.execute_update("decide", {"approve": True, "args": {"text": "e" * size}})
                assert taken
            except WorkflowUpdateFailedError:
                assert not taken
        await run.result(timeout=PATIENCE)


async def texts(run: RunHandle) -> list[str]:
    """Return every text in a run's histories, those within payloads taken apart."""
    return [text for history in await run.histories() for text in _texts(json.loads(history.to_json()))]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        if set(value) == {"metadata", "data"}:
            return _inside(base64.b64decode(value["data"]))
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _inside(data: bytes) -> list[str]:
    try:
        return _texts(json.loads(data))
    except ValueError:
        return [data.decode(errors="replace")]
