"""Ways in that lead past no plugin: a sub-agent, words that cannot be stored, a text that is stored too late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from holdfast.contracts import Accepted, Message
from holdfast.errors import RunEnded
from holdfast.ids import run_id_for
from holdfast.memory import threads
from holdfast.memory.database import connect
from holdfast.runtime import connect_temporal
from holdfast.sending import update_with_start
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGENTS = '''
import pathlib
from holdfast import Agent, Plugin, Refused, ToolContext, tool
from holdfast.plugins import At, ModelCall, ToolCall, ToolResult

HERE = pathlib.Path(__file__).parent

@tool(effect="local_tx")
async def book(ctx: ToolContext, what: str) -> str:
    """Book into the database."""
    return f"booked {what}"

class Guard(Plugin):
    """Refuses some words."""

    def message(self, at: At, text: str) -> None:
        if "forbidden" in text:
            raise Refused("we do not talk about that")
        if "odd word" in text:
            raise Refused("what is \\0 and \\ud800?")

class Family(Plugin):
    """Writes down who asked, in each hook."""

    def _note(self, at: At, hook: str) -> None:
        with (HERE / "family").open("a") as file:
            file.write(f"{hook} {at.agent} {at.run_id} {at.parent}\\n")

    def message(self, at: At, text: str) -> None:
        self._note(at, "message")

    def before_model(self, at: At, call: ModelCall) -> None:
        self._note(at, "before_model")

    def answer(self, at: At, text: str) -> None:
        self._note(at, "answer")

    def before_tool(self, at: At, call: ToolCall) -> None:
        self._note(at, "before_tool")

    def after_tool(self, at: At, result: ToolResult) -> None:
        self._note(at, "after_tool")

plugins = [Guard(), Family()]

desk = Agent("desk", "openai/test", "Help.", tools=[book])
asker = Agent("asker", "openai/test", "Ask.", tools=[desk.as_tool("ask_desk")])
'''


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """Ask the other agent, who books; then say what came of it."""
    last = request["messages"][-1]
    if last["role"] == "tool":
        return {"say": last["content"]}
    tools = [tool["function"]["name"] for tool in request["tools"]]
    return {"call": {"ask_desk": {"message": "book it"}} if "ask_desk" in tools else {"book": {"what": "x"}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(make_shared_world: MakeWorld) -> AsyncIterator[World]:
    """Return one world with a worker for all tests of this file."""
    async with ModelServer(reply=reply) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        await world.worker()
        yield world


async def test_every_hook_of_a_sub_agents_run_is_told_who_asked(world: World) -> None:
    """And those of the run that asks are told that nobody did."""
    client = await world.client()
    run = await client.start("asker", "have it booked", thread="family")
    assert (await run.result(timeout=PATIENCE)).output == "booked x"
    seen = [line.split() for line in (world.folder / "family").read_text().splitlines()]
    mine = {(hook, parent) for hook, _, run_id, parent in seen if run_id == run.run_id}
    theirs = {hook for hook, _, _, parent in seen if parent == run.run_id}
    assert {parent for _, parent in mine} == {"None"}
    assert theirs == {"message", "before_model", "answer", "before_tool", "after_tool"}


async def test_a_refusal_in_odd_words_ends_the_run_all_the_same(world: World) -> None:
    """What PostgreSQL cannot hold would have the message admitted again and again, and all behind it wait."""
    client = await world.client()
    run = await client.start("desk", "an odd word", thread="odd")
    with pytest.raises(RunEnded, match="Guard refused this message: what is  and"):
        await run.result(timeout=PATIENCE)


async def test_a_text_that_is_stored_too_late_is_not_admitted_unseen(world: World) -> None:
    """Stored between the hook's look and the admission it would pass every guardrail."""
    temporal = await connect_temporal(world.settings, identity="test")
    message = Message(message_id="late", agent="desk", text_ref="late-text")
    waits = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

    async def admitting() -> bool:
        return bool(await world.rows(waits))

    async with world.held("lock table threads in access exclusive mode"):
        thread = f"{world.settings.tenant}:late"
        await update_with_start(
            temporal, world.settings, thread, "message", message, update_id="late", result_type=Accepted
        )
        await until(admitting, "the hooks have looked")
        conn = await connect(world.settings.database_url or "")
        await threads.put_blob(conn, world.settings.tenant, b"a forbidden word", blob_id="late-text")
        await conn.close()
    client = await world.client()
    run = await client.get(run_id_for(world.settings.tenant, "late", "late"))
    with pytest.raises(RunEnded, match="text_ref 'late-text' is not stored"):
        await run.result(timeout=PATIENCE)
    assert await world.rows("select from messages m join runs r on m.run_id = r.run_id where message_id = 'late'") == []
