"""Agents that ask agents, on the real servers: in parallel, nested, failing, stopped, over budget, rolling over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.errors import RunEnded
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.integration._family import AGENTS, SCRIPT, family, notes
from tests.kit import World, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def test_twenty_children_at_once(world: World) -> None:
    """Twenty calls of another agent are twenty runs on threads of their own; each answer fills its slot."""
    client = await world.client()
    run = await client.start("boss", "twenty", thread="twenty")
    answer = await run.result(timeout=120)
    assert "leaf: noted number 19" in answer.output
    children = await family(world, run)
    assert [child["state"] for child in children] == ["done"] * 20
    assert {child["parent"] for child in children} == {run.run_id}
    assert sorted(notes(world)) == sorted(f"number {n}" for n in range(20))
    results = [message.body for message in await run.messages() if message.role == "tool"]
    assert [f"leaf: noted number {n}" in str(body) for n, body in enumerate(results)] == [True] * 20
    events = await run.recorded()
    kinds = [event.kind for event in events]
    assert (kinds.count("child_started"), kinds.count("child_ended"), kinds.count("tool_done")) == (20, 20, 20)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_children_of_children(world: World) -> None:
    """A child asks in its turn: its answer comes up level by level; runs know their parent, root and depth."""
    client = await world.client()
    run = await client.start("boss", "nested", thread="nested")
    answer = await run.result(timeout=60)
    assert answer.output == "boss: middle: leaf: noted nested deeper"
    middle, leaf = await family(world, run)
    assert (middle["agent"], middle["depth"], middle["parent"]) == ("middle", 1, run.run_id)
    assert (leaf["agent"], leaf["depth"], leaf["parent"]) == ("leaf", 2, middle["run_id"])
    status = await run.status()
    assert status.parent_run_id is None
    assert answer.tokens_below == status.tokens_below > 0
    assert [child.agent for child in await run.children()] == ["middle"]
    temporal = await histories.connect(world.settings)
    query = f"HoldfastParentRun = '{run.run_id}'"

    async def found() -> list[str]:
        return [each.id async for each in temporal.list_workflows(query)]

    assert await until(found, "the child is found by its parent") == [
        f"{world.settings.tenant}:{(await run.children())[0].thread}"
    ]


async def test_events_of_the_whole_tree_come_inline(world: World) -> None:
    """With `children`, a child's events come between those that say that it started and that it ended."""
    client = await world.client()
    run = await client.start("boss", "nested again", thread="tree")
    told = [(event.run_id, event.kind) async for event in run.events(children=True)]
    middle, leaf = await family(world, run)
    assert {run_id for run_id, _ in told} == {run.run_id, middle["run_id"], leaf["run_id"]}
    for inner, outer in ((leaf["run_id"], middle["run_id"]), (middle["run_id"], run.run_id)):
        own = [number for number, (run_id, _) in enumerate(told) if run_id == inner]
        assert told.index((outer, "child_started")) < own[0]
        assert own[-1] < told.index((outer, "child_ended"))
    assert [kind for run_id, kind in told if run_id == run.run_id] == [event.kind for event in await run.recorded()]


async def test_what_fails_in_a_child_is_an_error_that_the_parent_reads(world: World) -> None:
    """A refused model, a spent budget and an unknown agent are results of their calls; the parent goes on."""
    client = await world.client()
    run = await client.start("boss", "failing", thread="failing")
    assert (await run.result(timeout=60)).output == "went on"
    results = [str(message.body) for message in await run.messages() if message.role == "tool"]
    assert "error: leaf gave no answer, its run is failed" in results[0]
    assert "error: poor gave no answer, its run is over_budget: over budget" in results[1]
    assert "error: nobody gave no answer, its run is refused: there is no agent 'nobody'" in results[2]
    ended = {event.data["agent"]: event.data["state"] for event in await run.recorded() if event.kind == "child_ended"}
    assert ended == {"leaf": "failed", "poor": "over_budget", "nobody": "refused"}


async def test_a_typed_input_is_checked_and_sent_as_json(world: World) -> None:
    """Arguments that do not fit the model are an error the asking model reads; those that fit arrive as JSON."""
    client = await world.client()
    run = await client.start("boss", "typed", thread="typed")
    assert "days: Input should be a valid integer" in (await run.result(timeout=60)).output
    first = next(message.body for message in await run.messages() if message.role == "tool")
    assert first is not None
    assert first["content"] == 'sunny, I was asked {"city":"Bern","days":2}'


async def test_typed_answers_come_up_as_json(world: World) -> None:
    """The asking model reads the value alone, without the words or the wrapping it came in; a wrong one is an error."""
    client = await world.client()
    run = await client.start("boss", "outlook", thread="outlook")
    await run.result(timeout=60)
    results = [message.body["content"] for message in await run.messages() if message.role == "tool" and message.body]
    assert results[:2] == ['{"degrees":7,"sky":"grey"}', '[{"degrees":7,"sky":"grey"},{"degrees":9.5,"sky":"clear"}]']
    assert results[2].startswith(
        "error: seer gave no answer, its run is failed: the answer is not the Weather it must be"
    )
    assert [(child.agent, child.rounds) for child in await run.children()] == [("seer", 1), ("seers", 1), ("seer", 2)]


async def test_a_child_may_hand_over(world: World) -> None:
    """The answer is that of whom the child's conversation moved to, and the record names who that was."""
    client = await world.client()
    run = await client.start("boss", "mood", thread="mood")
    assert (await run.result(timeout=60)).output == "boss: leaf: noted what a mood"
    ended = [event.data for event in await run.recorded() if event.kind == "child_ended"]
    assert [(data["agent"], data["state"]) for data in ended] == [("leaf", "done")]
    assert [(child["agent"], child["depth"]) for child in await family(world, run)] == [("leaf", 1)]


async def test_an_approval_may_be_asked_for_the_child_or_within_it(world: World) -> None:
    """`approval=` holds the child back; a child's own approval waits in the child, and its parent is named."""
    client = await world.client()
    run = await client.start("boss", "careful", thread="careful")
    await until(run.approvals, "the call of the child is to be approved")
    assert await run.children() == []
    await run.approve(args={"message": "another line"})
    told = '[a person changed the arguments of this call: {"message":"another line"}]\nleaf: noted another line'
    assert (await run.result(timeout=60)).output == f"boss: {told}"
    other = await client.start("boss", "pay", thread="pay")

    async def waiting() -> Any:
        return [child for child in await client.runs(state="waiting") if child.parent_run_id == other.run_id]

    child = (await until(waiting, "the child waits"))[0]
    assert (child.approvals, (await other.status()).state) == (1, "running")
    await (await client.get(child.run_id)).approve()
    assert (await other.result(timeout=60)).output == "boss: leaf: paid 3.0"


async def test_a_large_answer_is_stored_whole_and_passed_on_trimmed(world: World) -> None:
    """A child's answer is like any tool's result."""
    client = await world.client()
    run = await client.start("boss", "long", thread="long")
    await run.result(timeout=60)
    result = next(message for message in await run.messages() if message.role == "tool")
    assert result.blob is not None
    assert len(str(result.body)) < 20_000
    sizes = await world.rows("select bytes from blobs where id = $1", result.blob)
    assert sizes == [{"bytes": 40_000}]


async def test_agents_ask_one_another_only_so_deep(world: World) -> None:
    """An agent that asks itself ends at the depth limit, by an error that the deepest one reads."""
    client = await world.client()
    run = await client.start("self", "again", thread="again")
    answer = await run.result(timeout=60)
    assert answer.output.startswith("self: self: self: self: self: self: error: self was not asked")
    assert [child["depth"] for child in await family(world, run)] == [1, 2, 3, 4, 5]


async def test_a_budget_holds_for_the_whole_tree(world: World) -> None:
    """What children spend counts for the parent: a child stops when it is spent, and so does the parent."""
    client = await world.client()
    run = await client.start("thrifty", "tokens", thread="budget")
    with pytest.raises(
        RunEnded, match=r"over budget: \d+ of 200 tokens of this run are used, sub-agents included"
    ) as end:
        await run.result(timeout=60)
    assert end.value.state == "over_budget"
    states = {child["state"] for child in await family(world, run)}
    assert states, "it asked nobody"
    assert states <= {"done", "over_budget"}
    status = await run.status()
    total = await world.rows(
        "select sum(tokens_in + tokens_out)::int as n from runs where run_id = $1 or root_run_id = $1", run.run_id
    )
    assert status.tokens + status.tokens_below == total[0]["n"] >= 200


async def test_twenty_at_once_exceed_a_budget_by_the_calls_under_way(world: World) -> None:
    """None begins a model call once the budget is spent: over it are at most the twenty that had begun."""
    client = await world.client()
    run = await client.start("crowded", "twenty", thread="crowded")
    with pytest.raises(RunEnded, match="of 1500 tokens of this run are used, sub-agents included"):
        await run.result(timeout=120)
    children = await family(world, run)
    assert len(children) == 20
    assert {child["state"] for child in children} <= {"done", "over_budget"}
    [calls] = await world.rows(
        "select sum(t)::int as total, max(t) as largest from (select (e.data ->> 'tokens_in')::int"
        " + (e.data ->> 'tokens_out')::int as t from events e join runs r on r.run_id = e.run_id"
        " where e.kind = 'replied' and r.root_run_id = $1) as below",
        run.run_id,
    )
    own = (await run.status()).tokens
    assert 1500 <= own + calls["total"] <= 1500 + 20 * calls["largest"]
    assert (await run.status()).tokens_below == calls["total"]


async def test_parent_and_child_roll_over_while_others_work(make_shared_world: MakeWorld) -> None:
    """Both continue as new in between; each hears of the other all the same."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url, roll_after_events=60, linger=0.5)
        await world.worker()
        client = await world.client()
        run = await client.start("boss", "twenty", thread="roll")
        assert "leaf: noted number 19" in (await run.result(timeout=120)).output
        assert sorted(notes(world)) == sorted(f"number {n}" for n in range(20))
        rows = await world.rows("select writer from threads where thread = 'roll'")
        temporal = await histories.connect(world.settings)
        chain = await histories.chain(temporal, run.workflow_id, rows[0]["writer"])
        assert len(chain) > 2
        assert await asyncio.wait_for(client.runs(thread="roll"), 30)
