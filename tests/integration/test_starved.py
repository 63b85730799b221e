"""A live owner that Temporal takes for lost, as on a starved machine: its call goes on, and a delay makes no doubt."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from holdfast.activities.leases import Leases
from holdfast.errors import RunEnded
from holdfast.handles import RunHandle
from holdfast.memory import ledger
from holdfast.memory.database import connect
from holdfast.memory.ledger import Step
from holdfast.testing import ModelServer
from tests import histories
from tests.conformance.proxy import FaultProxy
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import asyncio, pathlib
from holdfast import Agent, ToolContext, tool

HERE = pathlib.Path(__file__).parent

async def stay(ctx: ToolContext) -> str:
    with (HERE / ctx.run_id).open("a") as file:
        file.write("sent\\n")
    try:
        while not (HERE / "go").exists():
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        (HERE / f"{ctx.run_id}.cut").touch()
        raise
    return "stayed"

@tool(effect="once", timeout=60)
async def pay(ctx: ToolContext) -> str:
    """An effect that takes as long as the test says."""
    return await stay(ctx)

async def look(ctx: ToolContext) -> str | None:
    return None

@tool(effect="verifiable", timeout=60, settle=1, lookup=look)
async def order(ctx: ToolContext) -> str:
    """The same, and one can look."""
    return await stay(ctx)

one = Agent(name="one", model="openai/test", tools=[pay, order])
'''
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Model:
    """Calls the tool it is asked for; asked for none, it counts and answers when it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = asyncio.Event()

    async def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the reply to one request."""
        last = body["messages"][-1]
        if last["role"] == "tool":
            return {"say": last["content"]}
        if last["content"] in ("pay", "order"):
            return {"call": {last["content"]: {}}}
        self.asked += 1
        await self.may.wait()
        return {"say": "at last"}


class Cut:
    """A world whose one worker can be cut off from Temporal, and whose model is as slow as the test says."""

    def __init__(self, world: World, temporal: FaultProxy, model: Model) -> None:
        self.world, self.temporal, self.model = world, temporal, model

    async def call(self, tool: str) -> RunHandle:
        """Return a run whose call is under way."""
        (self.world.folder / "go").unlink(missing_ok=True)
        run = await (await self.world.client()).start("one", tool)
        await until((self.world.folder / run.run_id).exists, "the call is under way")
        return run

    async def lost(self) -> RunHandle:
        """Return a run whose `once` call goes on although Temporal has given its attempt up."""
        run = await self.call("pay")
        log = self.world.processes[-1].log
        before = log.read_text().count("the call goes on")
        await self.temporal.shut()
        await self.until_given_up(run)
        await self.temporal.open()
        await until(lambda: log.read_text().count("the call goes on") > before, "the worker hears of it")
        return run

    async def ask(self) -> RunHandle:
        """Return a run whose model call is under way."""
        self.model.asked = 0
        self.model.may.clear()
        run = await (await self.world.client()).start("one", "think")
        await until(lambda: self.model.asked, "the model is asked")
        return run

    async def nothing_held(self) -> bool:
        """Whether no lease of a model call is left."""
        return not await self.world.rows("select key from model_leases")

    async def start(self) -> None:
        """Start the worker."""
        await self.world.worker(HOLDFAST_TEMPORAL_ADDRESS=self.temporal.address)

    async def until_given_up(self, run: RunHandle, *, beating: bool = False) -> None:
        """Wait until Temporal has handed the call's step to another attempt, if *beating* until that works."""
        handle = (await histories.connect(self.world.settings)).get_workflow_handle(run.workflow_id)

        async def again() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            return any(
                activity.attempt >= 2
                and (
                    not beating
                    or activity.last_heartbeat_time.ToNanoseconds() > activity.last_started_time.ToNanoseconds() > 0
                )
                for activity in pending
            )

        await until(again, "Temporal takes the worker for lost")

    def cut_off(self, run: RunHandle) -> bool:
        """Whether the tool was cancelled."""
        return (self.world.folder / f"{run.run_id}.cut").exists()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cut(make_shared_world: MakeWorld) -> AsyncIterator[Cut]:
    """Start one worker behind a proxy to Temporal."""
    model = Model()
    async with ModelServer(reply=model.reply) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        temporal = FaultProxy(f"tcp://{world.settings.temporal_address}")
        await temporal.open()
        given = Cut(world, temporal, model)
        await given.start()
        yield given
        await temporal.shut()


@pytest.mark.parametrize("tool", ["pay", "order"])
async def test_a_call_goes_on_when_its_beats_do_not_arrive(cut: Cut, tool: str) -> None:
    """Given up by Temporal alone, a `once` or `verifiable` call ends well, and the next attempt reads its result."""
    run = await cut.call(tool)
    await cut.temporal.shut()
    await cut.until_given_up(run)
    await cut.temporal.open()
    await until(lambda: "the call goes on" in cut.world.processes[0].log.read_text(), "the worker hears of it")
    (cut.world.folder / "go").touch()
    assert (await run.result(timeout=PATIENCE)).output == "stayed"
    assert not cut.cut_off(run)
    assert (cut.world.folder / run.run_id).read_text() == "sent\n"
    assert "in_doubt" not in [event.kind for event in await run.recorded()]


async def test_a_call_does_not_outlive_its_workflow(cut: Cut) -> None:
    """The server says of a terminated workflow's call, too, that it knows it no more: then the tool is cut off."""
    run = await cut.call("pay")
    handle = (await histories.connect(cut.world.settings)).get_workflow_handle(run.workflow_id)
    await handle.terminate()
    await until(lambda: cut.cut_off(run), "the tool is cut off")
    with pytest.raises(RunEnded):
        await run.result(timeout=PATIENCE)


async def test_a_stop_reaches_a_call_that_goes_on(cut: Cut) -> None:
    """Temporal knows the attempt no more, so the stop reaches another one: the tool is cut off all the same."""
    run = await cut.lost()
    await run.stop(reason="enough")
    await until(lambda: cut.cut_off(run), "the tool is cut off")


async def test_a_reply_under_way_is_not_bought_by_another_worker(cut: Cut) -> None:
    """Temporal has given the attempt up and asks a second worker: that one waits for the first one's reply."""
    run = await cut.ask()
    second = await cut.world.worker()
    await cut.temporal.shut()
    await cut.until_given_up(run, beating=True)
    assert cut.model.asked == 1
    cut.model.may.set()
    assert (await run.result(timeout=PATIENCE)).output == "at last"
    await cut.temporal.open()
    assert cut.model.asked == 1
    await until(cut.nothing_held, "no lease stays behind")
    await second.end()
    cut.world.processes.remove(second)


async def test_a_reply_of_a_lost_worker_is_asked_for_again(cut: Cut) -> None:
    """A lease that nobody renews runs out: the next worker makes the call."""
    run = await cut.ask()
    cut.world.processes[-1].kill()
    cut.model.may.set()
    await cut.start()
    assert (await run.result(timeout=PATIENCE)).output == "at last"
    assert cut.model.asked == 2


async def test_a_worker_that_is_told_to_go_lets_such_a_call_finish(cut: Cut) -> None:
    """It has the same grace as a call whose attempt Temporal knows: a restart leaves no doubt."""
    run = await cut.lost()
    worker = cut.world.processes[-1]
    worker.signal(signal.SIGTERM)
    await until(lambda: "worker takes no more work" in worker.log.read_text(), "the worker goes")
    with pytest.raises(AssertionError, match="cuts it off"):
        await until(lambda: cut.cut_off(run), "somebody cuts it off", patience=3.0)
    (cut.world.folder / "go").touch()
    await worker.end()
    assert not cut.cut_off(run)
    rows = await cut.world.rows("select state from effects where run_id = $1 and tool = 'pay'", run.run_id)
    assert [row["state"] for row in rows] == ["done"]
    await cut.start()
    assert (await run.result(timeout=PATIENCE)).output == "stayed"


async def test_leases_are_renewed_together_and_past_a_lock(cut: Cut) -> None:
    """What is held is prolonged with each beat; a locked row holds the others up no more than a lost connection."""
    held = Leases()
    conn, other = [await connect(cut.world.settings.database_url or "") for _ in range(2)]
    steps = [Step(f"lease-{n}", "00000000-0000-0000-0000-000000000000", "s", n, "t", "once", "a") for n in range(3)]
    for step in steps:
        await ledger.claim(conn, step, "one", 0.0)

    async def left(step: Step) -> float:
        query = "select extract(epoch from lease_until - clock_timestamp())::float8 from effects where key = $1"
        return float(await conn.fetchval(query, step.key))

    async def prolonged(step: Step) -> bool:
        return await left(step) > 1.0

    serving = asyncio.create_task(held.serve(cut.world.settings, "test-leases"))
    lock = other.transaction()
    await lock.start()
    await other.execute("select 1 from effects where key = $1 for update", steps[1].key)
    with held.hold(steps[0].key, 1), held.hold(steps[1].key, 1), held.hold(steps[2].key, 7):
        await until(lambda: prolonged(steps[0]), "a lease is renewed beside a locked row")
        assert await left(steps[1]) < 0, "locked"
        assert await left(steps[2]) < 0, "not ours: another fence"
        await lock.rollback()
        await until(lambda: prolonged(steps[1]), "it is renewed once it is free")
        await conn.execute("update effects set lease_until = clock_timestamp() - interval '1 h' where key = 'lease-0'")
        await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'test-leases'"
        )
        await until(lambda: prolonged(steps[0]), "leases are renewed on a new connection")
        with capture_logs() as logs:
            await conn.execute("alter table effects rename to away")
            await until(lambda: logs, "a renewal fails for a reason that is no outage")
            await conn.execute("alter table away rename to effects")
        await conn.execute("update effects set lease_until = clock_timestamp() - interval '1 h' where key = 'lease-0'")
        await until(lambda: prolonged(steps[0]), "leases are renewed after that")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await conn.close()
    await other.close()
