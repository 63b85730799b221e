"""A conversation moves to another agent on its own thread: once, whole, and with all that waits behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.contracts import ASK_WORKFLOW, Ask, AskResult
from holdfast.errors import RunEnded, ThreadOwned
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.integration._family import TOOLS, notes
from tests.kit import World, until

AGENTS = (
    TOOLS
    + """
billing = Agent(
    "billing", "openai/test", "You are billing.", tools=[note], handoffs=["triage"], description="Knows of invoices."
)
triage = Agent("triage", "openai/test", "You are triage.", tools=[note, gate], handoffs=[billing, "gone"])
other = Agent("other", "openai/test")
ping = Agent("ping", "openai/test", "You are ping.", handoffs=["pong"], budget=Budget(rounds=6))
pong = Agent("pong", "openai/test", "You are pong.", handoffs=[ping])
"""
)

SCRIPT = """
conversations:
  - when: {system: You are triage, user: both}
    replies:
      - call: [{hand_off_to_billing: {note: please}}, {note: {text: by triage}}, {hand_off_to_gone: {}}]
      - say: never
  - when: {system: You are triage, user: gone}
    replies:
      - call: {hand_off_to_gone: {}}
      - say: "triage: {{last_tool}}"
  - when: {system: You are triage, user: /gate-/}
    replies:
      - call: [{gate: {name: "{{user}}"}}, {hand_off_to_billing: {}}]
      - say: never
  - when: {system: You are billing, user: /both|gate-/}
    replies:
      - say: never
      - call: {note: {text: by billing}}
      - say: "billing: {{last_tool}}"
  - when: {system: You are billing, user: back}
    replies:
      - call: {hand_off_to_triage: {}}
      - say: never
  - when: {system: You are triage, user: back}
    replies:
      - say: never
      - say: "triage again"
  - when: {system: You are ping}
    replies:
      - repeat: 9
        call: {hand_off_to_pong: {}}
  - when: {system: You are pong}
    replies:
      - repeat: 9
        call: {hand_off_to_ping: {}}
  - when: {system: You are triage}
    replies:
      - say: "triage: {{user}}"
  - when: {system: You are billing}
    replies:
      - say: "billing: {{user}}"
"""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT, linger=30.0)]


async def _owner(world: World, thread: str) -> list[dict[str, Any]]:
    return await world.rows(
        "select t.agent as thread, r.agent as run from threads t join runs r on r.thread_id = t.id"
        " where t.thread = $1 order by r.created_at",
        thread,
    )


async def test_the_conversation_moves_and_stays(world: World) -> None:
    """Other calls of the reply are made first; the next words are the new agent's; a second hand-off is refused."""
    client = await world.client()
    run = await client.start("triage", "both", thread="both")
    assert (await run.result(timeout=60)).output == "billing: noted by billing"
    assert notes(world) == ["by triage", "by billing"]
    results = [str(message.body) for message in await run.messages() if message.role == "tool"]
    assert "from here on billing speaks" in results[0]
    assert "handed over by another call" in results[2]
    kinds = [event.kind for event in await run.recorded()]
    made = ["accepted", "started", "replied", "tool_done", "tool_done", "handed_off", "tool_done"]
    assert kinds == [*made, "replied", "tool_done", "replied", "ended"]
    assert await _owner(world, "both") == [{"thread": "billing", "run": "billing"}]
    systems = {entry["body"]["messages"][0]["content"] for entry in world.models.journal}
    assert systems == {"You are triage.", "You are billing."}
    with pytest.raises(ThreadOwned, match="belongs to agent 'billing'"):
        await client.start("other", "hello", thread="both")
    for agent in ("billing", "triage"):  # who knows of the move, and who does not
        later = await client.start(agent, f"hello {agent}", thread="both")
        assert (await later.result(timeout=60)).output == f"billing: hello {agent}"
        assert (await later.status()).agent == "billing"


async def test_it_may_move_back_and_an_unknown_agent_is_an_error(world: World) -> None:
    """Agents may name one another in a circle; nobody to hand over to is a result that the model reads."""
    client = await world.client()
    run = await client.start("billing", "back", thread="back")
    assert (await run.result(timeout=60)).output == "triage again"
    other = await client.start("triage", "gone", thread="gone")
    assert "no worker knows the agent gone" in (await other.result(timeout=60)).output


async def test_handing_over_to_and_fro_ends_with_the_budget(world: World) -> None:
    """Each hand-off takes a round of the run's own budget, whoever it belongs to by then."""
    client = await world.client()
    run = await client.start("ping", "who will?", thread="to-and-fro")
    with pytest.raises(RunEnded, match="6 of 6 rounds are used") as end:
        await run.result(timeout=60)
    assert end.value.state == "over_budget"
    moves = [
        (event.data["before"], event.data["agent"]) for event in await run.recorded() if event.kind == "handed_off"
    ]
    assert moves == [("ping", "pong"), ("pong", "ping")] * 3


async def test_what_waits_behind_is_the_new_agents(world: World) -> None:
    """A message queued before the hand-off is answered by whom the conversation belongs to now."""
    client = await world.client()
    run = await client.start("triage", "gate-queue", thread="queue")
    await until((world.folder / "gate-queue.waiting").exists, "the first call is under way")
    queued = await client.start("triage", "and then?", thread="queue")
    await until(lambda: world.rows("select 1 from runs where run_id = $1", queued.run_id), "it is admitted")
    (world.folder / "gate-queue.open").touch()
    assert (await run.result(timeout=60)).output == "billing: noted by billing"
    assert (await queued.result(timeout=60)).output == "billing: and then?"
    assert {row["run"] for row in await _owner(world, "queue")} == {"billing"}


async def test_a_thread_that_nobody_was_found_for_is_free(world: World) -> None:
    """A question to an agent that is not there leaves the thread to whoever comes."""
    client = await world.client()
    temporal = await histories.connect(world.settings)
    refused: AskResult = await temporal.execute_workflow(
        ASK_WORKFLOW,
        Ask(agent="nobody", text="hello", thread="free"),
        id=f"{world.settings.tenant}-free",
        task_queue=world.settings.task_queue,
        result_type=AskResult,
    )
    assert refused.state == "refused"
    run = await client.start("billing", "hello", thread="free")
    assert (await run.result(timeout=60)).output == "billing: hello"


async def test_whoever_could_not_know_is_answered_by_the_new_owner(world: World) -> None:
    """A question to the former agent, which was on its way or comes from a Schedule, is not turned away."""
    client = await world.client()
    run = await client.start("triage", "both", thread="late")
    assert (await run.result(timeout=60)).output == "billing: noted by billing"
    temporal = await histories.connect(world.settings)
    late, stranger = [
        await temporal.execute_workflow(
            ASK_WORKFLOW,
            Ask(agent=agent, text="on its way", thread="late"),
            id=f"{world.settings.tenant}-late-{agent}",
            task_queue=world.settings.task_queue,
            result_type=AskResult,
        )
        for agent in ("triage", "other")
    ]
    assert (late.state, late.answer) == ("done", "billing: on its way")
    assert stranger.state == "refused"
    assert "belongs to agent 'billing'" in (stranger.error or "")


async def test_a_reset_moves_nothing_twice(world: World) -> None:
    """Reset to its first task, the run finds recorded replies, calls and hand-off, and says the same."""
    client = await world.client()
    before = len(notes(world))
    run = await client.start("triage", "both", thread="reset")
    await run.result(timeout=60)
    temporal = await histories.connect(world.settings)
    await histories.reset(temporal, run.workflow_id)
    again = await client.start("billing", "hello", thread="reset")
    assert (await again.result(timeout=60)).output == "billing: hello"
    assert len(notes(world)) == before + 2
    assert [event.kind for event in await run.recorded()].count("handed_off") == 1


async def test_a_kill_amid_hand_offs_loses_and_repeats_nothing(make_shared_world: MakeWorld) -> None:
    """Workers killed while conversations move: each moves once and is answered by the new agent."""
    async with ModelServer(SCRIPT) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        worker = await world.worker()
        client = await world.client()
        runs = [await client.start("triage", f"gate-{n}", thread=f"k{n}") for n in range(6)]
        for n in range(6):
            await until((world.folder / f"gate-{n}.waiting").exists, f"run {n} is about to hand over")
        for n in range(6):
            (world.folder / f"gate-{n}.open").touch()
            if n in (1, 3):
                await until(lambda: world.rows("select 1 from events where kind = 'handed_off'"), "some have moved")
                worker.kill()
                worker = await world.worker()

        async def person() -> None:  # a `once` call that was under way when its worker was killed
            for row in await world.rows("select run_id::text, step_no from effects where state = 'in_doubt'"):
                done = "noted by billing"
                await asyncio.gather(
                    (await client.get(row["run_id"])).resolve(row["step_no"], done=done), return_exceptions=True
                )

        async def all_ended() -> bool:
            await person()
            return all([(await run.status()).ended for run in runs])

        await until(all_ended, "all have ended")
        for run in runs:
            assert (await run.result()).output == "billing: noted by billing"
            assert [event.kind for event in await run.recorded()].count("handed_off") == 1
        owners = await world.rows("select agent, count(*) as n from threads group by 1")
        assert owners == [{"agent": "billing", "n": 6}]
        assert notes(world).count("by billing") <= 6
