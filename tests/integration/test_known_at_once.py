"""A run that was accepted is found by its id at once, before any worker has stored it."""

from __future__ import annotations

import uuid

import pytest

from holdfast import Client
from holdfast.errors import UnknownRun
from tests.kit import PATIENCE, World

AGENTS = """
from holdfast import Agent
one = Agent(name="one", model="openai/test")
"""
SCRIPT = "conversations: [{replies: [{say: heard}]}]"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def test_a_run_is_found_right_after_it_was_started(world: World) -> None:
    """By the client that started it and by another one, twenty times of twenty."""
    client = await world.client()
    async with await Client.connect(world.settings) as other:
        for number in range(20):
            run = await client.start("one", "hello", thread=f"found-{number}")
            seen = await (other if number % 2 else client).get(run.run_id)
            assert (seen.run_id, seen.thread) == (run.run_id, run.thread)
            assert (await seen.result(timeout=PATIENCE)).output == "heard"


async def test_a_run_that_is_not_stored_yet_is_known_to_who_started_it(world: World) -> None:
    """While no admission can commit, the client that has the word of the workflow gives the run's handle."""
    client = await world.client()
    await client.run("one", "hello", thread="locked", timeout=PATIENCE)
    async with world.held("lock table runs in share mode"):
        run = await client.start("one", "hello", thread="locked")
        seen = await client.get(run.run_id)
        assert (await seen.status()).state == "accepted"
    assert (await seen.result(timeout=PATIENCE)).output == "heard"


async def test_an_unknown_id_is_still_unknown(world: World) -> None:
    """A whole id that no run has, and a beginning that none has."""
    client = await world.client()
    for text in (str(uuid.uuid4()), "ffffffff-ffff", "--"):
        with pytest.raises(UnknownRun):
            await client.get(text)
