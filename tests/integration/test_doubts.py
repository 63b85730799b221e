"""Words and proofs around a call in doubt: none is lost, refused words are audited, locks have one order."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from holdfast.contracts import Resolution
from holdfast.errors import DecisionRefused
from holdfast.handles import RunHandle
from holdfast.memory import ledger, runs, threads
from holdfast.memory.database import Connection, Pool, connect
from holdfast.memory.resolve import resolve_step
from tests import histories
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio, pathlib
from holdfast import Agent, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="once", timeout=120)
async def lose(name: str) -> str:
    """An effect of which nobody hears."""
    (HERE / f"{name}.sent").touch()
    while not (HERE / f"{name}.open").exists():
        await asyncio.sleep(0.05)
    raise TimeoutError("no answer")

@tool(effect="once", approval="always")
async def pay(note: str) -> str:
    """Pay."""
    (HERE / "paid").touch()
    return f"paid {note[:3]}"

one = Agent(name="one", model="openai/test", tools=[lose, pay])
'''

SCRIPT = """
conversations:
  - when: lose
    replies:
      - call: {lose: {name: "{{user}}"}}
      - say: "{{last_tool}}"
  - when: twice
    replies:
      - call: [{pay: {note: a}}, {pay: {note: b}}]
      - say: "{{last_tool}}"
  - when: pay
    replies:
      - call: {pay: {note: "LONG"}}
      - say: "{{last_tool}}"
""".replace("LONG", "x" * 3000)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def handle_of(world: World, run: RunHandle) -> WorkflowHandle[Any, Any]:
    """Return the workflow of a run's thread."""
    temporal = await histories.connect(world.settings)
    return temporal.get_workflow_handle(f"{world.settings.tenant}:{run.thread}")


async def lost(world: World) -> tuple[RunHandle, str, int]:
    """Return a run with a call under way, the name of that call, and its step."""
    name = f"lose-{uuid.uuid4().hex[:8]}"
    run = await (await world.client()).start("one", name, thread=name)
    await until((world.folder / f"{name}.sent").exists, "the call is under way")
    (step,) = [step.step_no for step in await run.steps() if step.state == "in_flight"]
    return run, name, step


async def row_in_doubt(world: World, run: RunHandle, step: int) -> None:
    """Write down that a call is in doubt, as a worker does that dies before it can tell its workflow."""
    conn = await connect(world.settings.database_url or "")
    try:
        row = await conn.fetchrow("select key, fence from effects where run_id = $1 and step_no = $2", run.run_id, step)
        assert row is not None
        assert await ledger.doubt(conn, row["key"], row["fence"], "test")
    finally:
        await conn.close()


async def test_a_proof_that_comes_before_the_doubt_is_kept(world: World) -> None:
    """`settled` that overtakes the outcome of its attempt has the row read again at once, not after half a minute."""
    run, name, step = await lost(world)
    handle = await handle_of(world, run)
    await handle.signal("settled", step)
    (world.folder / f"{name}.open").touch()

    async def read_again() -> bool:
        events = (await handle.fetch_history()).events
        types = [
            event.activity_task_scheduled_event_attributes.activity_type.name
            for event in events
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        ]
        return types.count("tool_step") == 2

    await until(read_again, "the row is read again", patience=min(PATIENCE, 20.0))
    await run.resolve(step, abandon=True)
    assert "abandoned" in str((await run.result(timeout=PATIENCE)).output)


async def test_a_doubt_that_only_the_ledger_knows_can_be_resolved(world: World) -> None:
    """As soon as the ledger has the doubt the word is taken, the attempt under way ends, and `tool_done` is told."""
    run, _, step = await lost(world)
    await row_in_doubt(world, run, step)
    receipt = await run.resolve(step, done="it was paid", actor="ann")
    assert (await run.result(timeout=PATIENCE)).output == "it was paid"
    audit = await world.rows("select accepted, actor from audit where decision_id = $1", receipt.decision_id)
    assert audit == [{"accepted": True, "actor": "ann"}]
    kinds = [(event.kind, event.data.get("step")) for event in await run.recorded()]
    assert kinds.index(("resolved", step)) < kinds.index(("tool_done", step))
    assert kinds.count(("tool_done", step)) == 1


async def test_refused_words_are_audited(world: World) -> None:
    """A word that is refused leaves a row with the reason: by our client, by another one's update, and by signal."""
    run, _, step = await lost(world)
    handle = await handle_of(world, run)
    with pytest.raises(DecisionRefused, match="in_flight"):
        await run.resolve(step, abandon=True, actor="client")
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update("decide", {"approve": True, "call_id": "999", "actor": "update"})
    await handle.signal("resolve", {"step_no": 999, "outcome": "done", "actor": "signal", "decision_id": f"d-{step}"})
    await handle.signal("decide", {"approve": False, "actor": "again", "decision_id": f"d-{step}"})

    async def audited() -> list[Any]:
        rows = await world.rows("select actor, accepted, action, detail from audit where run_id = $1", run.run_id)
        return rows if len(rows) == 4 else []

    rows = {row["actor"]: row for row in await until(audited, "all four are audited")}
    assert {actor: (row["accepted"], row["action"]) for actor, row in rows.items()} == {
        "client": (False, "resolve"),
        "update": (False, "approve"),
        "signal": (False, "resolve"),
        "again": (False, "reject"),
    }
    assert all(json.loads(row["detail"])["why"] for row in rows.values())
    await run.stop()


async def test_a_decision_id_counts_for_one_call(world: World) -> None:
    """The id of another call's decision is refused, in the audit too; without its own row no call is made."""
    run = await (await world.client()).start("one", "twice", thread=f"t-{uuid.uuid4().hex[:8]}")

    async def both() -> Any:
        found = await run.approvals()
        return found if len(found) == 2 else None

    first, second = await until(both, "both wait")
    handle = await handle_of(world, run)
    word = {"approve": True, "decision_id": f"id-{run.run_id}"}
    await handle.execute_update("decide", {**word, "call_id": str(first.step_no)})
    await until(lambda: world.rows("select 1 from audit where run_id = $1", run.run_id), "the first is audited")
    await handle.execute_update("decide", {**word, "call_id": str(second.step_no)})
    query = "select step_no, accepted from audit where run_id = $1 order by id"

    async def refused() -> Any:
        found = await world.rows(query, run.run_id)
        return found if len(found) == 2 else None

    assert await until(refused, "the second is audited") == [
        {"step_no": first.step_no, "accepted": True},
        {"step_no": second.step_no, "accepted": False},
    ]
    states = {each.step_no: each.state for each in await run.approvals()}
    assert states == {first.step_no: "approved", second.step_no: "pending"}
    with pytest.raises(DecisionRefused, match="give its step number"):
        await run.approve(second.call_id)
    await run.stop()


async def test_arguments_that_were_changed_behind_an_approval_are_not_used(world: World) -> None:
    """Long arguments are read again from PostgreSQL: with another hash than was approved, nothing is done."""
    run = await (await world.client()).start("one", "pay", thread=f"t-{uuid.uuid4().hex[:8]}")
    await until(run.approvals, "the approval is pending")
    (world.folder / "paid").unlink(missing_ok=True)
    changed = (
        "update messages set body = replace(body::text, 'xxx', 'yyy')::json where role = 'assistant' and run_id = $1"
    )
    await world.rows(changed, run.run_id)
    await run.approve()
    assert "differ from those that were requested or approved" in str((await run.result(timeout=PATIENCE)).output)
    assert not (world.folder / "paid").exists()
    assert await world.rows("select sends from effects where run_id = $1 and class = 'once'", run.run_id) == [
        {"sends": 0}
    ]


# ------------------------------------------------------------------------------------ locks, without a worker


async def two_doubts(conn: Connection) -> tuple[int, str, list[str]]:
    """Make a thread with a waiting run that has two calls in doubt; return thread, run and the calls' keys."""
    run_id = str(uuid.uuid4())
    thread: int = await conn.fetchval(
        "insert into threads (tenant, thread, writer, last_seq) values ('t', $1, 'w', 2) returning id", run_id
    )
    await conn.execute(
        "insert into runs (run_id, thread_id, message_id, agent, mode, state) "
        "values ($1, $2, 'm', 'a', 'next', 'waiting')",
        run_id,
        thread,
    )
    await conn.execute("insert into heads (run_id, seq) values ($1, 0)", run_id)
    keys = []
    for number in (1, 2):
        key = hashlib.sha256(f"{run_id}{number}".encode()).hexdigest()
        keys.append(key)
        await conn.execute(
            "insert into effects (key, run_id, scope, step_no, tool, class, args_hash, state, sent_at) "
            "values ($1, $2, 's', $3, 'pay', 'once', 'h', 'in_doubt', clock_timestamp())",
            key,
            run_id,
            number,
        )
        await conn.execute(
            "insert into messages (thread_id, seq, run_id, step_no, role, call_id) values ($1, $2, $3, $5, 'tool', $4)",
            thread,
            number,
            run_id,
            f"c{number}",
            number,
        )
    return thread, run_id, keys


@pytest.mark.asyncio
async def test_two_late_proofs_that_commit_together_leave_no_run_waiting(pool: Pool) -> None:
    """Whichever commits last sees that nothing is in doubt any more, and the run goes on."""
    async with pool.acquire() as one, pool.acquire() as two:
        _, run_id, keys = await two_doubts(one)
        first, second = one.transaction(), two.transaction()
        await first.start()
        await second.start()
        for conn, key in ((one, keys[0]), (two, keys[1])):
            assert await ledger.complete(conn, key, 1, "h", {"status": "done"}) == "in_doubt"
        await runs.resume(one, run_id)
        waiting = asyncio.create_task(runs.resume(two, run_id))
        await asyncio.wait([waiting], timeout=1.0)
        await first.commit()
        await waiting
        await second.commit()
        assert await one.fetchval("select state from runs where run_id = $1", run_id) == "running"


@pytest.mark.asyncio
async def test_a_resolution_and_the_end_of_its_run_do_not_lock_each_other_out(pool: Pool) -> None:
    """Both take the run before the slot: whoever comes second waits, and nobody is rolled back."""
    async with pool.acquire() as ending, pool.acquire() as resolving:
        thread, run_id, _ = await two_doubts(ending)
        async with ending.transaction():
            await ending.execute("select from threads where id = $1 for update", thread)
            await runs.lock(ending, run_id)

            async def resolve() -> bool:
                word = Resolution(step_no=1, outcome="done", result="paid", decision_id=uuid.uuid4().hex)
                async with resolving.transaction():
                    said, _ = await resolve_step(resolving, tenant="t", thread=run_id, run_id=run_id, resolution=word)
                return said.accepted

            told = asyncio.create_task(resolve())
            pid = resolving.get_server_pid()

            async def blocked() -> bool:
                locked = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
                return bool(await ending.fetchval(locked, pid))

            await until(blocked, "the resolution waits")
            assert await threads.fill_interrupted(ending, thread, run_id) == 2
        assert await told
