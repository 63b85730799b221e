"""Storage is linear: a hundred rounds store a hundred times one round, in history and in PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.client import WorkflowHistory

from holdfast.ids import workflow_id_for
from holdfast.memory.database import connect as connect_postgres
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import random
import string

from holdfast import Agent, Budget, tool

@tool(effect="pure")
async def page(number: int) -> str:
    """Read one page: 2,000 words of four random letters, none of which any compression shortens much."""
    letters = random.SystemRandom()
    return " ".join("".join(letters.choices(string.ascii_letters, k=4)) for _ in range(2000))

reader = Agent(name="reader", model="openai/test", tools=[page], budget=Budget(rounds=200), window=128_000)
'''

GATES = (10, 50, 60, 100)
HISTORY_MOST = 300_000  # bytes over the chain, for 100 rounds
GROWTH_MOST = 1.2
TABLES = "select tablename from pg_tables where schemaname = 'holdfast'"


class Reader:
    """A model that asks for one page after the other, and stops at some rounds until the test lets it go on."""

    def __init__(self) -> None:
        self.rounds = 0
        self.reached = {gate: asyncio.Event() for gate in GATES}
        self.release = {gate: asyncio.Event() for gate in GATES}

    async def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request; the rounds before it are complete."""
        gate = self.rounds
        if gate in self.reached:
            self.reached[gate].set()
            await self.release[gate].wait()
        if gate == 100:
            return {"say": "read"}
        self.rounds += 1
        return {"call": {"page": {"number": self.rounds}}}


async def stored(world: World) -> dict[str, int]:
    """Return the bytes of every table with its indexes and TOAST, after a vacuum."""
    conn = await connect_postgres(world.settings.database_url or "")
    try:
        await conn.execute("vacuum")
        return {
            row["tablename"]: await conn.fetchval("select pg_total_relation_size($1::regclass)", row["tablename"])
            for row in await conn.fetch(TABLES)
        }
    finally:
        await conn.close()


async def test_a_hundred_rounds_store_a_hundred_times_one(make_world: MakeWorld) -> None:
    """History stays under 300 kB, history and tables grow no faster late than early, each message is stored once."""
    reader = Reader()
    history: dict[int, int] = {}
    tables: dict[int, dict[str, int]] = {}
    async with ModelServer(reply=reader.reply, bodies=False) as models:
        # A low roll-over, so that the chain has several executions and what each carries over is counted.
        world = await make_world(AGENTS, api_base=models.base_url, roll_after_events=400)
        await world.worker()
        client = await world.client()
        temporal = await histories.connect(world.settings)
        run = await client.start("reader", "Read a hundred pages.", thread="pages", message_id="m1")
        workflow_id = workflow_id_for(world.settings.tenant, "pages")

        async def chain() -> list[WorkflowHistory]:
            writer = (await world.rows("select writer from threads"))[0]["writer"]
            return await histories.chain(temporal, workflow_id, writer)

        for gate in GATES:
            await until(reader.reached[gate].is_set, f"round {gate}", patience=2 * PATIENCE)
            history[gate], tables[gate] = histories.total(await chain()), await stored(world)
            reader.release[gate].set()
        answer = await run.result(timeout=PATIENCE)
        whole = await chain()
        messages = (await world.rows("select count(*) n, sum(length(body::text)) bytes from messages"))[0]

    assert (answer.output, answer.rounds) == ("read", 101)
    assert len(whole) > 1, "no roll-over, so the chain was not measured"
    assert histories.total(whole) < HISTORY_MOST, histories.sizes(whole)
    assert history[100] - history[50] <= GROWTH_MOST * (history[60] - history[10]), history
    at = {gate: sum(tables[gate].values()) for gate in GATES}
    assert at[100] - at[50] <= GROWTH_MOST * (at[60] - at[10]), tables
    assert messages["n"] == 1 + 100 + 100 + 1, "question, requests, results, answer"
    # All else of a round (its ledger rows, events, indexes) takes less than another copy of its text would.
    assert at[100] - at[50] < 2 * messages["bytes"] / 2, (tables, messages)
