"""The client against real servers and a real worker: events without gaps, refusals, long texts, ended runs."""

from __future__ import annotations

import itertools

import pytest

from holdfast.errors import InvalidInput, ThreadOwned, UnknownAgent, UnknownRun
from tests.kit import PATIENCE, until
from tests.terminal import AGENTS, SCRIPT, Terminal

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, SCRIPT)]


async def test_events_have_no_gap_over_lost_connections(terminal: Terminal) -> None:
    """A reader whose connections are cut, and one that resumes, see every event once and the tokens meanwhile."""
    run = await terminal.client.start("support", "a story", thread="c1")
    tokens: list[str] = []
    numbers: list[int] = []
    async for event in run.events(tokens=True):
        if event.kind != "tokens":
            numbers.append(event.seq)
            continue
        tokens.append(event.data["text"])
        if len(tokens) == 1:
            await terminal.world.rows(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name like 'holdfast-client%' and datname = current_database()"
            )
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(tokens) > 1
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(tokens))
    assert [event.seq async for event in run.events(after=2)] == numbers[2:]
    assert [event.seq async for event in run.events(after=numbers[-1])] == []
    assert [event.seq async for event in run.events(after=numbers[-1], tokens=True)] == []


async def test_the_client_refuses_what_cannot_be(terminal: Terminal) -> None:
    """Unknown agent, a thread of another agent, an unknown run, a long id: nothing is stored."""
    client = terminal.client
    with pytest.raises(UnknownAgent):
        await client.start("nobody", "hi")
    await client.start("support", "hi", thread="c1")

    async def stored() -> bool:
        return bool(await client.runs())

    await until(stored, "the run is stored")
    with pytest.raises(ThreadOwned, match="support"):
        await client.start("clerk", "hi", thread="c1")
    with pytest.raises(UnknownRun):
        await client.get("00000000")
    with pytest.raises(InvalidInput):
        await client.start("support", "hi", message_id="m" * 257)
    assert len(await client.runs()) == 1


async def test_a_long_text_travels_by_reference(terminal: Terminal) -> None:
    """Text over 2 KiB is stored before it is sent, and stands in the thread whole."""
    text = "long " * 2000
    run = await terminal.client.start("support", text, thread="c1")
    await run.result(timeout=PATIENCE)
    assert (await run.status()).message == text
    assert (await run.messages())[0].body == {"role": "user", "content": text}


async def test_a_call_in_doubt_of_an_ended_run_can_still_be_settled(terminal: Terminal) -> None:
    """Its workflow has other work or is gone: the word is carried out, audited, and not twice."""
    run = await terminal.client.start("support", "hi", thread="c1")
    await run.result(timeout=PATIENCE)
    await terminal.world.rows(
        "insert into effects (key, run_id, scope, step_no, tool, class, args_hash, state, sent_at) "
        "values ('k', $1, 's', 77, 'refund', 'once', 'h', 'in_doubt', clock_timestamp())",
        run.run_id,
    )
    assert f"holdfast resolve {run.run_id[:8]} 77 --done" in (await terminal("show", run.run_id)).out
    with pytest.raises(InvalidInput):
        await run.resolve(77)
    assert (await terminal("resolve", run.run_id, "77", "--done", "paid")).code == 0
    again = await terminal("resolve", run.run_id, "77", "--abandon")
    assert again.code == 2
    assert "not in doubt" in again.err
    assert [step.state for step in await run.steps() if step.step_no == 77] == ["done"]


async def test_a_result_is_waited_for_only_so_long(terminal: Terminal) -> None:
    """The time-out says that the run goes on, and it does."""
    run = await terminal.client.start("support", "slow", thread="c1")
    with pytest.raises(TimeoutError, match="goes on"):
        await run.result(timeout=0.2)
    assert not (await run.status()).ended
    assert await run.trouble() == []
    await run.stop()
