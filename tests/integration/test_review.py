"""What a review found: messages at a roll-over, cancels amid a step, words no database holds, Resets, frozen locks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from holdfast.activities.deps import Deps, Here
from holdfast.activities.notify import Notifier
from holdfast.activities.outcome import recorded_outcome
from holdfast.activities.runs import _slide
from holdfast.contracts import ToolStep
from holdfast.ids import run_id_for, storable
from holdfast.memory import threads
from holdfast.memory.database import open_pool
from tests import histories
from tests.kit import World, until

AGENTS = '''
import asyncio, pathlib
from holdfast import Agent, ToolError, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="pure", timeout=120)
async def gate(name: str) -> str:
    """Wait until a person opens the gate."""
    (HERE / f"{name}.waiting").touch()
    while not (HERE / f"{name}.open").exists():
        await asyncio.sleep(0.05)
    return f"{name} is open"

@tool(effect="once", timeout=120)
async def deliver(name: str) -> str:
    """An effect whose end is seen before it is recorded."""
    await gate(name)
    (HERE / f"{name}.delivered").touch()
    return "delivered"

@tool(effect="once", approval="always")
async def pay(amount: float) -> str:
    """Pay."""
    return f"paid {amount}"

@tool(effect="pure")
async def look(page: str) -> str:
    """Look at a page."""
    return f"page {page}"

@tool(effect="once")
async def unreadable() -> str:
    """Refused in words that PostgreSQL cannot hold, as the name of a file may be."""
    raise ToolError("no such file: caf\\udce9 \\0")

one = Agent(name="one", model="openai/test", tools=[gate, deliver, pay, look, unreadable])
'''

SCRIPT = """
conversations:
  - when: gate
    replies:
      - call: {gate: {name: "{{user}}"}}
      - say: "you said {{user}}"
  - when: deliver
    replies:
      - call: {deliver: {name: d1}}
      - say: never
  - when: unreadable
    replies:
      - call: {unreadable: {}}
      - say: "{{last_tool}}"
  - when: nested
    replies:
      - call: {look: "NESTED"}
      - say: "{{last_tool}}"
  - when: first of two
    replies:
      - call: [{look: {page: a}}, {look: {page: b}}]
      - say: the first answer
  - when: second of two
    replies:
      - call: {pay: {amount: 5}}
      - call: [{look: {page: a}}, {look: {page: b}}, {look: {page: c}}]
      - say: the second answer
  - when: pay
    replies:
      - call: {pay: {amount: 7}}
      - say: "{{last_tool}}"
  - replies:
      - say: "you said {{user}}"
""".replace("NESTED", "[" * 5000)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.world(AGENTS, SCRIPT, roll_after_events=200, linger=5.0),
]


async def _thread(world: World, thread: str) -> WorkflowHandle[Any, Any]:
    temporal = await histories.connect(world.settings)
    return temporal.get_workflow_handle(f"{world.settings.tenant}:{thread}")


def _message(number: int) -> dict[str, str]:
    return {"message_id": f"m{number}", "agent": "one", "text": f"hello {number}"}


async def test_a_message_accepted_as_the_workflow_rolls_over_is_not_lost(world: World) -> None:
    """Accepted while an admission holds the roll-over up, a message goes along, and is answered."""
    client = await world.client()
    run = await client.start("one", "pay", thread="roll")
    await until(run.approvals, "the approval is pending")
    handle = await _thread(world, "roll")
    async with world.held("lock table agents in access exclusive mode"):  # of what goes on here, admissions read it
        await handle.execute_update("message", _message(1))

        async def long_enough() -> bool:
            await handle.signal("settled", 999)
            return (await handle.describe()).history_length > 205

        await until(long_enough, "only the admission keeps the workflow from rolling over")
        await handle.execute_update("message", _message(2))
    await run.approve()
    assert (await run.result(timeout=60)).output == "paid 7.0"
    for number in (1, 2):
        run_id = run_id_for(world.settings.tenant, "roll", f"m{number}")
        await until(
            lambda run_id=run_id: world.rows("select 1 from runs where run_id = $1", run_id), f"m{number} is there"
        )
        assert (await (await client.get(run_id)).result(timeout=60)).output == f"you said hello {number}"
    executions = (await handle.query("state"))["executions"]
    assert executions > 1, "it did roll over"


async def test_a_cancel_amid_a_short_step_stops_what_waits_and_begins_nothing(world: World) -> None:
    """Cancelled in Temporal while a run begins, that run and the next are stopped, neither failed nor begun."""
    client = await world.client()
    first = await client.start("one", "gate-cancel", thread="cancel")
    await until((world.folder / "gate-cancel.waiting").exists, "the tool is under way")
    later = [await client.start("one", f"hello {n}", thread="cancel") for n in range(2)]
    ids = [run.run_id for run in later]

    async def admitted() -> bool:
        return len(await world.rows("select 1 from runs where run_id = any($1)", ids)) == 2

    await until(admitted, "both are admitted")
    handle = await _thread(world, "cancel")
    async with world.held("select from runs where run_id = $1 for update", ids[0]):
        (world.folder / "gate-cancel.open").touch()
        await first.result(timeout=60)

        async def beginning() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return [activity.activity_type.name for activity in pending] == ["begin_run"]

        await until(beginning, "the second run begins")
        await handle.cancel()

        async def ending() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return any(activity.activity_type.name == "end_run" for activity in pending)

        await until(ending, "the cancel has arrived")

    async def ended() -> list[dict[str, Any]]:
        rows = await world.rows("select state, rounds, error from runs where run_id = any($1) order by accept_no", ids)
        return rows if all(row["state"] not in ("queued", "running") for row in rows) else []

    stopped = {"state": "stopped", "rounds": 0, "error": "cancelled in Temporal"}
    assert await until(ended, "both have ended") == [stopped, stopped]


async def test_words_that_no_database_holds_are_refused_or_stored_without_them(world: World) -> None:
    """A NUL from any client is refused, not tried for ever; odd words of a tool and odd JSON of a model end a call."""
    client = await world.client()
    handle = await _thread(world, "words")
    odd = [await client.start("one", text, thread="words") for text in ("unreadable", "nested")]
    outputs = [(await run.result(timeout=60)).output for run in odd]
    assert "no such file: caf" in outputs[0]
    assert "cannot be used" in outputs[1]
    assert [row["state"] for row in await world.rows("select state from effects where tool = 'unreadable'")] == [
        "failed"
    ]
    waiting = await client.start("one", "pay", thread="words")
    await until(waiting.approvals, "the approval is pending")
    for update, wrong in (
        ("message", {"message_id": "a\0b", "agent": "one", "text": "hello"}),
        ("message", {"message_id": "ab", "agent": "o\0ne", "text": "hello"}),
        ("stop", {"reason": "a\0b"}),
        ("decide", {"approve": True, "actor": "a\0b"}),
        ("decide", {"approve": True, "args": {"amount": "9" * 200_000}}),
    ):
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(update, wrong)
    await handle.signal("decide", {"approve": True, "actor": "a\0b"})
    await waiting.approve()
    assert (await waiting.result(timeout=60)).output == "paid 7.0"


async def test_a_reset_to_the_first_task_takes_no_step_of_another_run(world: World) -> None:
    """Begun anew, each run has the step numbers it had: it finds its own recorded steps, and no other run's."""
    client = await world.client()
    first = await client.start("one", "first of two", thread="anew")
    assert (await first.result(timeout=60)).output == "the first answer"
    second = await client.start("one", "second of two", thread="anew")
    await until(second.approvals, "the approval is pending")
    handle = await _thread(world, "anew")
    await histories.reset(await histories.connect(world.settings), handle.id)

    async def asks_again() -> bool:
        current = (await handle.query("state")).get("current") or {}
        return any(call.get("state") == "approval" for call in current.get("calls", []))

    await until(asks_again, "the reset execution has come to the approval")
    await second.approve()
    assert (await second.result(timeout=60)).output == "the second answer"
    steps = await world.rows("select step_no, tool from effects where run_id = $1 order by step_no", second.run_id)
    assert [step["tool"] for step in steps] == ["model", "pay", "model", "look", "look", "look", "model"]


async def test_a_reset_before_the_first_admission_finds_every_recorded_step(world: World) -> None:
    """Reset amid a round, the run goes through its recorded steps again: nothing is bought or counted twice."""
    client = await world.client()
    run = await client.start("one", "gate-reset", thread="reset")
    await until((world.folder / "gate-reset.waiting").exists, "the tool is under way")
    handle = await _thread(world, "reset")
    await histories.reset(await histories.connect(world.settings), handle.id)
    (world.folder / "gate-reset.open").touch()
    answer = await run.result(timeout=60)
    assert (answer.output, answer.rounds) == ("you said gate-reset", 2)
    steps = await world.rows("select step_no, tool from effects where run_id = $1 order by step_no", run.run_id)
    assert [step["tool"] for step in steps] == ["model", "gate", "model"]
    assert "interrupted" not in json.dumps([message.body for message in await run.messages()])
    late = "select 1 from late_outcomes join effects using (key) where effects.run_id = $1 and tool = 'model'"
    assert await world.rows(late, run.run_id) == [], "no model call was bought again"


async def test_an_outcome_known_when_the_run_is_stopped_is_recorded_all_the_same(world: World) -> None:
    """A call has ended and the database is slow: stopping the run leaves the call done, not in doubt."""
    client = await world.client()
    run = await client.start("one", "deliver", thread="deliver")
    await until((world.folder / "d1.waiting").exists, "the call is under way")
    async with world.held("select from effects where run_id = $1 and tool = 'deliver' for update", run.run_id):
        (world.folder / "d1.open").touch()
        await until((world.folder / "d1.delivered").exists, "the call has ended")
        waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        await until(lambda: world.rows(waiting), "its record waits for the lock")
        await run.stop()

        async def ended() -> bool:
            return (await run.status()).ended

        await until(ended, "the run has ended, and the stop has reached the call")
    query = "select state from effects where run_id = $1 and tool = 'deliver' and state <> 'in_flight'"
    assert await until(lambda: world.rows(query, run.run_id), "the call is settled") == [{"state": "done"}]


async def test_a_recorded_outcome_fills_the_slot_of_a_new_reply(world: World) -> None:
    """Where a Reset brings a recorded step under a new reply, the model reads its result, not `interrupted`."""
    client = await world.client()
    run = await client.start("one", "gate-again", thread="again")
    (world.folder / "gate-again.open").touch()
    await run.result(timeout=60)
    tenant = world.settings.tenant
    effect = (
        await world.rows("select key, result, step_no from effects where run_id = $1 and tool = 'gate'", run.run_id)
    )[0]
    writer = (await world.rows("select writer from threads where tenant = $1 and thread = 'again'", tenant))[0][
        "writer"
    ]
    pool = await open_pool(world.settings.database_url or "", size=2, name="test")
    try:
        async with pool.acquire() as conn, conn.transaction():
            thread = await threads.lock_for_writer(conn, tenant, "again", writer)
            slot = await threads.append(
                conn, thread, run_id=run.run_id, step_no=99, role="tool", call_id="new", body=None
            )
        temporal = await histories.connect(world.settings)
        deps = Deps(world.settings, pool, Notifier(pool), temporal)
        step = ToolStep(
            writer=writer,
            run_id=run.run_id,
            step_no=99,
            definition="",
            call_id="new",
            tool="gate",
            seq=slot,
            effect="pure",
            args_hash="",
        )
        at = Here(f"{tenant}:again", tenant, "again", "test", 1)
        outcome = await recorded_outcome(deps, at, step, effect["key"], json.loads(effect["result"]))
    finally:
        await pool.close()
    assert outcome.status == "done"
    filled = next(message for message in await run.messages() if message.seq == slot)
    assert filled.body is not None
    assert filled.body["content"] == "gate-again is open"


async def test_a_frozen_process_does_not_keep_its_locks(world: World) -> None:
    """A transaction in which nothing happens is rolled back by PostgreSQL, and its lock is free."""
    pool = await open_pool(world.settings.database_url or "", size=1, name="frozen", idle=0.5)
    conn = await pool.acquire()
    try:
        await conn.execute("begin")
        await conn.execute("lock table outbox in access exclusive mode")
        assert await world.rows("select 1 from outbox") == []
    finally:
        pool.terminate()


async def test_the_window_slides_past_results_too_large_together(world: World) -> None:
    """What is kept begins with the reply that asked for the results, however large they are together."""
    old = [(seq, "user" if seq % 2 else "assistant", 100) for seq in range(1, 21)]
    asked = [(21, "user", 10), (22, "assistant", 10), *((seq, "tool", 4000) for seq in range(23, 31))]
    assert _slide([*old, *asked], 14_000, 1) == (22, 32_010)
    assert _slide(old, 1000, 1) == (11, 1000)


async def test_halves_of_a_character_are_put_together_or_replaced(world: World) -> None:
    """What a model streams in two pieces is stored as one character; what no text can hold is left out."""
    assert storable("a\ud83d\ude00b\0c") == "a\U0001f600bc"
    assert storable("caf\udce9") == "caf\N{REPLACEMENT CHARACTER}"
