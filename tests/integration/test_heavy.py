"""What is large, wide, long or crowded: big results, many calls at once, long threads, many messages, no memory."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from holdfast import Client
from holdfast.contracts import MEMORY_WORKFLOW, MemoryAnswer, MemoryQuestion
from holdfast.ids import workflow_id_for
from holdfast.memory import threads
from holdfast.memory.database import connect as connect_postgres
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio
import random

from holdfast import Agent, Budget, tool

SEEN = set()
ALL = asyncio.Event()

@tool(effect="pure")
def big() -> str:
    """Return 10 MiB of text."""
    return random.Random(7).randbytes(5 * 1024 * 1024).hex()

@tool(effect="pure")
async def meet(number: int) -> str:
    """Return once fifty calls are under way at the same time."""
    SEEN.add(number)
    if len(SEEN) == 50:
        ALL.set()
    await ALL.wait()
    return f"met {number}"

heavy = Agent(name="heavy", model="openai/test", tools=[big, meet])
'''

SCRIPT: dict[str, Any] = {
    "conversations": [
        {"when": "big", "replies": [{"call": {"big": {}}}, {"say": "read"}]},
        {"when": "meet", "replies": [{"call": [{"meet": {"number": n}} for n in range(50)]}, {"say": "met"}]},
        {"replies": [{"say": "heard: {{user}}"}]},
    ]
}


class Heavy:
    """One world with one worker, for the tests that leave it as it was."""

    def __init__(self, world: World, client: Client, models: ModelServer) -> None:
        self.world, self.client, self.models = world, client, models

    async def history(self, thread: str) -> int:
        """Return the bytes of a thread's history."""
        found = await self.world.rows("select writer from threads where thread = $1", thread)
        temporal = await histories.connect(self.world.settings)
        workflow_id = workflow_id_for(self.world.settings.tenant, thread)
        return histories.total(await histories.chain(temporal, workflow_id, found[0]["writer"]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def heavy(make_shared_world: MakeWorld) -> AsyncIterator[Heavy]:
    """Start one worker for the module."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        await world.worker()
        yield Heavy(world, await world.client(), models)


@pytest.mark.asyncio(loop_scope="module")
async def test_ten_megabytes_of_result_are_stored_whole_and_passed_on_trimmed(heavy: Heavy) -> None:
    """A result of 10 MiB lies in blobs to the byte; the model reads head and tail; history and thread stay small."""
    run = await heavy.client.start("heavy", "big", thread="big")
    assert (await run.result(timeout=PATIENCE)).output == "read"
    whole = random.Random(7).randbytes(5 * 1024 * 1024).hex()
    row = (await heavy.world.rows("select m.body, b.body as whole from messages m join blobs b on b.id = m.blob"))[0]
    assert row["whole"] == whole.encode()
    passed_on = json.loads(row["body"])["content"]
    assert len(passed_on) < 17 * 1024
    assert passed_on.startswith(whole[:1000])
    assert passed_on.endswith(whole[-1000:])
    sent = [entry for entry in heavy.models.journal if entry["body"]["messages"][-1]["role"] == "tool"]
    assert sent[-1]["body"]["messages"][-1]["content"] == passed_on
    assert await heavy.history("big") < 20_000


@pytest.mark.asyncio(loop_scope="module")
async def test_fifty_calls_of_one_round_are_under_way_at_once(heavy: Heavy) -> None:
    """Fifty calls that wait for each other all return, each into its own slot, in the model's order."""
    run = await heavy.client.start("heavy", "meet", thread="meet")
    answer = await run.result(timeout=PATIENCE)
    assert (answer.output, answer.rounds) == ("met", 2)
    rows = await heavy.world.rows(
        "select body from messages where run_id = $1 and role = 'tool' order by seq", run.run_id
    )
    assert [json.loads(row["body"])["content"] for row in rows] == [f"met {n}" for n in range(50)]
    effects = await heavy.world.rows("select state from effects where run_id = $1 and tool = 'meet'", run.run_id)
    assert Counter(row["state"] for row in effects) == {"done": 50}
    events = await run.recorded()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_thread_of_a_thousand_messages_takes_another_question(heavy: Heavy) -> None:
    """The window slides over a long thread: the model reads its end and the question, and nothing is removed."""
    await (await heavy.client.start("heavy", "hello", thread="long")).result(timeout=PATIENCE)
    await _lengthen(heavy.world, "long", 1000)
    run = await heavy.client.start("heavy", "what now?", thread="long")
    assert (await run.result(timeout=PATIENCE)).output == "heard: what now?"
    assert "compacted" in [event.kind for event in await run.recorded()]
    sent = heavy.models.journal[-1]["body"]["messages"]
    assert sent[-1]["content"] == "what now?"
    assert sent[-2]["content"].startswith("said 999 ")
    assert 10 < len(sent) < 200
    row = (await heavy.world.rows("select window_from, last_seq from threads where thread = 'long'"))[0]
    assert row["last_seq"] == 1004
    assert row["window_from"] > 800
    stored = await heavy.world.rows(
        "select count(*) n from messages m join threads t on t.id = m.thread_id where t.thread = 'long'"
    )
    assert stored[0]["n"] == 1004
    assert await heavy.history("long") < 30_000


async def _lengthen(world: World, thread: str, count: int) -> None:
    """Append messages as 500 runs would have, in their place and by the thread's writer."""
    conn = await connect_postgres(world.settings.database_url or "")
    try:
        row = (await world.rows("select writer from threads where thread = $1", thread))[0]
        run_id = (await world.rows("select run_id from runs"))[0]["run_id"]
        async with conn.transaction():
            held = await threads.lock_for_writer(conn, world.settings.tenant, thread, row["writer"])
            for number in range(count):
                role = ("user", "assistant")[number % 2]
                body = {"role": role, "content": f"said {number} " + "and then some more " * 12}
                await threads.append(conn, held, run_id=str(run_id), step_no=None, role=role, body=body)
    finally:
        await conn.close()


# ---------------------------------------------------------------------------------------- a crowd

CROWD = """
from holdfast import Agent, Budget

crowd = Agent(name="crowd", model="openai/test", window=100_000)
"""


def reply_to_all(request: dict[str, Any]) -> dict[str, Any]:
    """Answer every message that came since the model spoke last, by name."""
    heard: list[str] = []
    for message in reversed(request["messages"]):
        if message["role"] != "user":
            break
        heard.insert(0, message["content"])
    return {"say": "heard " + " ".join(f"<{text}>" for text in heard)}


async def test_a_hundred_messages_at_once_and_again_are_each_answered_once(make_world: MakeWorld) -> None:
    """With the worker killed meanwhile, each message is answered once, in order of acceptance, however often sent."""
    async with ModelServer(reply=reply_to_all, bodies=False) as models:
        world = await make_world(CROWD, api_base=models.base_url)
        workers = [world.start(), world.start()]
        await asyncio.gather(*(worker.ready() for worker in workers))
        client = await world.client()

        async def send(number: int) -> str:
            mode = "steer" if number % 10 == 9 else "next"
            run = await client.start("crowd", f"m{number}", thread="c", message_id=f"m{number}", mode=mode)  # type: ignore[arg-type]
            return run.run_id

        async with asyncio.TaskGroup() as group:
            first = [group.create_task(send(number)) for number in range(100)]
            await until(lambda: world.rows("select 1 from runs where state = 'done' offset 4"), "five runs are done")
            await _kill_the_writer(world, "c")
        run_ids = [task.result() for task in first]
        again = await asyncio.gather(*(send(number) for number in range(100)))
        assert again == run_ids
        await until(lambda: _none_open(world), "every run has ended", patience=3 * PATIENCE)
        assert [await send(number) for number in (0, 9, 99)] == [run_ids[number] for number in (0, 9, 99)]

        rows = await world.rows("select * from runs order by accept_no")
        assert sorted(row["message_id"] for row in rows) == sorted(f"m{number}" for number in range(100))
        assert [row["accept_no"] for row in rows] == list(range(1, 101))
        done = [row for row in rows if row["state"] == "done"]
        merged = [row for row in rows if row["state"] == "merged"]
        assert len(done) + len(merged) == 100
        assert merged, "no steering message joined another run"
        assert {row["mode"] for row in merged} == {"steer"}
        assert {row["merged_into"] for row in merged} <= {row["run_id"] for row in done}
        # Answered in order of acceptance, each by name, once.
        assert [row["answer_seq"] for row in done] == sorted(row["answer_seq"] for row in done)
        replies = await world.rows("select run_id, body from messages where role = 'assistant' order by seq")
        assert [row["run_id"] for row in replies] == [row["run_id"] for row in done]
        said = {row["run_id"]: re.findall(r"<(\w+)>", json.loads(row["body"])["content"]) for row in replies}
        assert Counter(name for names in said.values() for name in names) == Counter(f"m{n}" for n in range(100))
        for row in rows:
            assert row["message_id"] in said[row["merged_into"] or row["run_id"]]
        asked = await world.rows("select count(*) n, count(distinct seq) seqs from messages where role = 'user'")
        assert asked == [{"n": 100, "seqs": 100}]


async def _none_open(world: World) -> bool:
    return not await world.rows("select 1 from runs where state in ('queued', 'running', 'waiting')")


async def _kill_the_writer(world: World, thread: str) -> None:
    """Kill -9 the worker that has the thread's workflow in its cache."""
    temporal = await histories.connect(world.settings)
    history = await temporal.get_workflow_handle(workflow_id_for(world.settings.tenant, thread)).fetch_history()
    completed = [event for event in history.events if event.HasField("workflow_task_completed_event_attributes")]
    holder = completed[-1].workflow_task_completed_event_attributes.identity
    victim = next(process for process in world.processes if f"-{process.pid}-" in holder)
    victim.kill()


# ---------------------------------------------------------------------------------------- no memory

MEMORY = """
from holdfast import Agent

keeper = Agent(name="keeper", model="openai/test", instructions="Keep.", memory=True)
"""


async def test_runs_go_on_without_memory_and_nothing_is_forgotten(make_world: MakeWorld) -> None:
    """With the memory process away a run says so and ends; on its return it knows what was to be remembered."""
    async with ModelServer({"conversations": [{"replies": [{"say": "Noted: {{user}}"}]}]}) as models:
        world = await make_world(MEMORY, api_base=models.base_url, memory_wait=0.5)
        await world.worker()
        client = await world.client()
        run = await client.start("keeper", "The harbour master is called Quimby.", thread="a")
        assert "Quimby" in (await run.result(timeout=PATIENCE)).output
        assert "memory_unavailable" in [event.kind for event in await run.recorded()]
        assert len(await world.rows("select 1 from outbox")) == 1

        await world.worker("memory")
        await until(lambda: _outbox_empty(world), "the outbox is empty")
        temporal = await histories.connect(world.settings)
        found = await temporal.execute_workflow(
            MEMORY_WORKFLOW,
            MemoryQuestion(tenant=world.settings.tenant, text="Who is the harbour master?"),
            id=f"{world.settings.tenant}-question",
            task_queue=world.settings.memory_queue,
            result_type=MemoryAnswer,
        )
        assert [("Quimby" in hit.text, hit.run_id) for hit in found.hits] == [(True, run.run_id)]

        # On a busy machine memory may miss half a second now and then; it is asked until it is in time.
        await until(lambda: _recalls(client), "a later run recalls it")
        assert "Quimby" in models.journal[-1]["body"]["messages"][1]["content"]


async def _recalls(client: Client) -> bool:
    run = await client.start("keeper", "What is the harbour master called?", thread="a")
    await run.result(timeout=PATIENCE)
    return "recalled" in [event.kind for event in await run.recorded()]


async def _outbox_empty(world: World) -> bool:
    return not await world.rows("select 1 from outbox")
