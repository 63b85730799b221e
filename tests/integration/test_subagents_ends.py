"""Agents that ask agents, and how it ends: stopped, cancelled, terminated, or never asked for at all."""

from __future__ import annotations

import time

import pytest
from temporalio.client import WorkflowFailureError

from holdfast.errors import RunEnded
from holdfast.ids import child_thread, effect_key
from tests import histories
from tests.integration._family import AGENTS, SCRIPT, family
from tests.kit import World, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def test_a_stop_reaches_the_leaves_at_once(world: World) -> None:
    """Stopping the parent stops children and their children; nobody is left at work."""
    client = await world.client()
    run = await client.start("boss", "gate-stop", thread="stop")
    for name in ("gate-stop", "gate-stop-deep"):
        await until((world.folder / f"{name}.waiting").exists, f"{name} is under way")
    began = time.monotonic()
    await run.stop(reason="enough")

    async def all_ended() -> bool:
        return {child["state"] for child in await family(world, run)} == {"stopped"}

    await until(all_ended, "all have ended")
    seconds = time.monotonic() - began
    with pytest.raises(RunEnded, match="enough"):
        await run.result(timeout=30)
    errors = await world.rows("select error from runs where root_run_id = $1", run.run_id)
    assert all("with the run that asked: stopped: enough" in row["error"] for row in errors)
    assert seconds < 5 * world.settings.time_scale, f"{seconds:.1f} s"


async def test_a_stop_amid_the_start_of_a_child(world: World) -> None:
    """A child that was started and is not stored yet is stopped as soon as it is: its model is never called."""
    client = await world.client()
    temporal = await histories.connect(world.settings)
    run = await client.start("boss", "careful", thread="amid")
    await until(run.approvals, "the call of the child is to be approved")
    async with world.held("lock table threads in share mode"):  # only the admission writes it here
        await run.approve()
        parent = temporal.get_workflow_handle(run.workflow_id)

        async def started() -> str | None:
            pending = (await parent.describe()).raw_description.pending_children
            return next((each.workflow_id for each in pending), None)

        child = temporal.get_workflow_handle(await until(started, "the child is started"))
        await run.stop(reason="too late")

        async def heard() -> bool:
            events = (await child.fetch_history()).events
            return any(each.workflow_execution_signaled_event_attributes.signal_name == "stop" for each in events)

        await until(heard, "the child has heard of it")
        assert await family(world, run) == []

    async def stopped() -> bool:
        return [each["state"] for each in await family(world, run)] == ["stopped"]

    await until(stopped, "the child is stopped")
    [told] = await run.children()
    assert (told.rounds, told.error) == (0, "stopped: with the run that asked: stopped: too late")


async def test_a_person_may_go_on_where_a_child_ended(world: World) -> None:
    """The child's thread is a conversation like any other; what it costs from then on is not its parent's."""
    client = await world.client()
    run = await client.start("boss", "nested and then", thread="parent-of")
    await run.result(timeout=60)
    before = await run.status()
    [middle] = await run.children()
    more = await client.start("middle", "nested deeper still", thread=middle.thread)
    assert (await more.result(timeout=60)).output == "middle: leaf: noted nested deeper still"
    status = await more.status()
    assert (status.parent_run_id, [child.agent for child in await more.children()]) == (None, ["leaf"])
    assert (await run.status()).tokens_below == before.tokens_below


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_parent_ended_in_temporal_takes_its_children_along(world: World, how: str) -> None:
    """Cancelled or terminated, the parent's run is stopped and so are all below it."""
    client = await world.client()
    run = await client.start("boss", f"gate-{how}", thread=how)
    for name in (f"gate-{how}", f"gate-{how}-deep"):
        await until((world.folder / f"{name}.waiting").exists, f"{name} is under way")
    temporal = await histories.connect(world.settings)
    handle = temporal.get_workflow_handle(run.workflow_id)
    await (handle.cancel() if how == "cancel" else handle.terminate())

    async def all_ended() -> bool:
        return {child["state"] for child in await family(world, run)} == {"stopped"}

    await until(all_ended, "all below have ended")
    with pytest.raises(RunEnded) as end:
        await run.result(timeout=60)
    assert end.value.state == "stopped"


async def test_a_child_terminated_in_temporal_is_an_error_of_its_call(world: World) -> None:
    """The parent hears of it and goes on."""
    client = await world.client()
    run = await client.start("boss", "gate-lost", thread="lost")
    for name in ("gate-lost", "gate-lost-deep"):
        await until((world.folder / f"{name}.waiting").exists, f"{name} is under way")
    temporal = await histories.connect(world.settings)
    leaf, middle = await run.children()
    await temporal.get_workflow_handle(f"{world.settings.tenant}:{leaf.thread}").terminate()
    (world.folder / "gate-lost-deep.open").touch()
    assert "middle: leaf: gate-lost-deep is open" in (await run.result(timeout=60)).output
    first = next(message.body for message in await run.messages() if message.role == "tool")
    assert "its run is stopped: terminated in Temporal" in str(first)
    assert middle.agent == "middle"


async def test_nobody_is_charged_to_a_run_that_did_not_ask(world: World) -> None:
    """A workflow that only claims to be asked for by a run is refused: an unknown run, another thread, malformed."""
    client = await world.client()
    run = await client.start("boss", "nested once more", thread="honest")
    await run.result(timeout=60)
    temporal = await histories.connect(world.settings)
    key = "0" * 64
    [row] = await world.rows("select scope from runs where run_id = $1", run.run_id)
    [step] = [event.data["step"] for event in await run.recorded() if event.kind == "child_started"]
    asked = effect_key(row["scope"], step, "middle")
    wrong = [
        ("claims-1", "leaf", key, "00000000-0000-0000-0000-000000000000", "is not known here"),
        (child_thread("leaf", key), "leaf", key, run.run_id, "does not ask leaf this"),
        ("claims-2", "middle", asked, run.run_id, "is not the one on which that step asks"),
    ]
    for thread, agent, scope, parent, said in wrong:
        message = {"message_id": scope, "agent": agent, "text": "hello"}
        child = {"message": message, "scope": scope, "step_no": step, "parent": parent}
        handle = await temporal.start_workflow(
            "AgentWorkflow",
            {"child": child},
            id=f"{world.settings.tenant}:{thread}",
            task_queue=world.settings.task_queue,
        )
        await handle.result()
        [row] = await world.rows(
            "select state, error from runs r join threads t on t.id = r.thread_id where t.thread = $1", thread
        )
        assert (row["state"], said in row["error"]) == ("refused", True)
    malformed = await temporal.start_workflow(
        "AgentWorkflow",
        {"child": {"message": {"message_id": "m", "agent": "leaf", "text": ""}, "scope": "x", "parent": "y"}},
        id=f"{world.settings.tenant}:claims-3",
        task_queue=world.settings.task_queue,
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await malformed.result()
    assert "scope" in str(failed.value.cause)
    assert [child.agent for child in await run.children()] == ["middle"]
