"""Twenty children under kill -9, Terminate and Reset: all end right, and a recorder outside counts each effect once."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Client
from holdfast.errors import DecisionRefused, RunEnded, StackError
from holdfast.handles import RunHandle
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

MANY = 20
_HEARD = 5.0  # seconds until every child has heard that its parent has ended

AGENTS = '''
import os
import aiohttp
from holdfast import Agent, ToolContext, tool

RECORDER = os.environ["RECORDER"]

async def send(name: str, ctx: ToolContext, n: str) -> str:
    wait = int(ctx.idempotency_key[:6], 16) % 300
    where = f"{RECORDER}/effect/{name}?delay_before={wait}&delay_after={wait}"
    timeout = aiohttp.ClientTimeout(total=ctx.remaining)
    body = {"n": n, "key": ctx.idempotency_key}
    async with aiohttp.request("POST", where, json=body, timeout=timeout) as answer:
        return (await answer.json())["result"]

async def landed(ctx: ToolContext, n: str) -> str | None:
    where = f"{RECORDER}/lookup/stamp/{ctx.idempotency_key}"
    async with aiohttp.request("GET", where, timeout=aiohttp.ClientTimeout(total=ctx.remaining)) as answer:
        return (await answer.json())["result"] if answer.status == 200 else None

@tool(effect="verifiable", timeout=8, settle=2, lookup=landed)
async def stamp(ctx: ToolContext, n: str) -> str:
    """Each arrival is an effect, and one can look."""
    return await send("stamp", ctx, n)

@tool(effect="once", timeout=20)
async def charge(ctx: ToolContext, n: str) -> str:
    """Each arrival is an effect, and only a person can look."""
    return await send("charge", ctx, n)

clerk = Agent("clerk", "openai/test", "You are clerk.", tools=[stamp, charge])
boss = Agent("boss", "openai/test", "You are boss.", tools=[clerk, stamp])
'''

SCRIPT = """
conversations:
  - when: {system: You are boss}
    replies:
      - call: [CALLS, {stamp: {n: boss}}]
      - say: "all done"
  - when: {system: You are clerk}
    replies:
      - call: [{stamp: {n: "{{user}}"}}, {charge: {n: "{{user}}"}}]
      - call: {stamp: {n: "{{user}}-b"}}
      - say: "clerk: {{user}}"
""".replace("CALLS", ", ".join(f"{{clerk: {{message: 'n{n}'}}}}" for n in range(MANY)))

EXPECTED = Counter({"stamp": 2 * MANY + 1, "charge": MANY})


class Recorder:
    """The recorder's process and its log."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "effects.jsonl"
        program = Path(__file__).parents[1] / "outside" / "recorder.py"
        self.process = subprocess.Popen(
            [sys.executable, str(program), "--port", "0", "--log", str(self.log)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def effects(self) -> list[dict[str, Any]]:
        """Return every effect so far."""
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return [entry for entry in found if entry["kind"] == "effect"]

    def close(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Give a recorder of this test's own."""
    made = Recorder(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    """Serve the script."""
    async with ModelServer(SCRIPT, bodies=False) as server:
        yield server


async def _person(client: Client, world: World, recorder: Recorder) -> None:
    """Settle calls in doubt as somebody would who can ask outside."""
    rows = await world.rows("select run_id::text, step_no, key from effects where state = 'in_doubt'")
    for row in rows:
        landed = [entry for entry in recorder.effects() if entry["key"] == row["key"]]
        run = await client.get(row["run_id"])
        try:
            if landed:
                await run.resolve(row["step_no"], done=landed[0]["result"])
            else:
                await run.resolve(row["step_no"], not_done=True)
        except (DecisionRefused, StackError):  # it may still land, or its workflow is being taken up again
            continue


async def _all_ended(world: World, recorder: Recorder, run: RunHandle) -> None:
    client = await world.client()

    async def look() -> bool:
        await _person(client, world, recorder)
        return not await world.rows("select 1 from runs where state in ('queued', 'running', 'waiting')")

    await until(look, f"all of {run.run_id} has ended", 4 * PATIENCE)


async def _check(world: World, recorder: Recorder, run: RunHandle) -> None:
    """All went well, whatever happened on the way."""
    assert (await run.result(timeout=10)).output == "all done"
    results = [str(message.body) for message in await run.messages() if message.role == "tool"]
    assert [f"clerk: n{n}" in results[n] for n in range(MANY)] == [True] * MANY, results
    states = await world.rows(
        "select state, count(*)::int as n from runs where parent_run_id = $1 group by 1", run.run_id
    )
    assert states == [{"state": "done", "n": MANY}]
    effects = recorder.effects()
    assert Counter(entry["tool"] for entry in effects) == EXPECTED
    assert max(Counter((entry["tool"], entry["args"]["n"]) for entry in effects).values()) == 1
    told = Counter((event.kind, event.data.get("step")) for event in await run.recorded() if "step" in event.data)
    assert {count for (kind, _), count in told.items() if kind in ("child_started", "child_ended", "tool_done")} == {1}


async def _started(world: World, run: RunHandle, count: int) -> list[dict[str, Any]]:
    async def look() -> list[dict[str, Any]]:
        rows = await world.rows(
            "select t.thread from runs r join threads t on t.id = r.thread_id"
            " where r.parent_run_id = $1 and r.state = 'running' order by r.created_at",
            run.run_id,
        )
        return rows if len(rows) >= count else []

    found: list[dict[str, Any]] = await until(look, f"{count} children are at work")
    return found


async def test_workers_killed_again_and_again(make_world: MakeWorld, recorder: Recorder, models: ModelServer) -> None:
    """Each time a worker is killed amid calls, of the parent's or of children's, another goes on."""
    world = await make_world(AGENTS, api_base=models.base_url)
    workers = [world.start(RECORDER=recorder.url) for _ in range(2)]
    await asyncio.gather(*(worker.ready() for worker in workers))
    client = await world.client()
    run = await client.start("boss", "go", thread="boss")
    for count in (1, 12, 30):
        await until(lambda count=count: len(recorder.effects()) >= count, f"{count} effects")
        workers.pop(0).kill()
        workers.append(world.start(RECORDER=recorder.url))
    await _all_ended(world, recorder, run)
    await _check(world, recorder, run)


@pytest.mark.parametrize("task", [0, -2], ids=["to the first task", "to a late task"])
async def test_a_reset_of_the_parent_finds_its_children(
    make_world: MakeWorld, recorder: Recorder, models: ModelServer, task: int
) -> None:
    """Asked again, children that are at work or have ended are found by their names; nothing is done twice."""
    world = await make_world(AGENTS, api_base=models.base_url)
    await world.worker(RECORDER=recorder.url)
    client = await world.client()
    temporal = await histories.connect(world.settings)
    run = await client.start("boss", "go", thread="boss")
    await until(lambda: len(recorder.effects()) >= 6, "some effects")
    await histories.reset(temporal, run.workflow_id, task=task)
    await _all_ended(world, recorder, run)
    await _check(world, recorder, run)


async def test_children_reset_killed_and_begun_anew(
    make_world: MakeWorld, recorder: Recorder, models: ModelServer
) -> None:
    """A child's own Reset, and children ended and started again by the parent's, meet the same ledger rows."""
    world = await make_world(AGENTS, api_base=models.base_url, sweep_every=3600.0)
    worker = await world.worker(RECORDER=recorder.url)
    client = await world.client()
    temporal = await histories.connect(world.settings)
    run = await client.start("boss", "go", thread="boss")
    threads = await _started(world, run, 6)
    await until(lambda: len(recorder.effects()) >= 2, "some effects")
    tenant = world.settings.tenant
    await histories.reset(temporal, f"{tenant}:{threads[0]['thread']}")
    # As later servers do by themselves when a parent is reset: its children are terminated, then started again.
    for row in threads[1:6]:
        await temporal.get_workflow_handle(f"{tenant}:{row['thread']}").terminate()
    await histories.reset(temporal, run.workflow_id)
    worker.kill()
    await world.worker(RECORDER=recorder.url)
    await _all_ended(world, recorder, run)
    await _check(world, recorder, run)


async def test_a_terminated_parent_leaves_nobody_at_work(
    make_world: MakeWorld, recorder: Recorder, models: ModelServer
) -> None:
    """Its children are stopped, also with the workers killed in between; no effect is made twice."""
    world = await make_world(AGENTS, api_base=models.base_url)
    worker = await world.worker(RECORDER=recorder.url)
    client = await world.client()
    temporal = await histories.connect(world.settings)
    run = await client.start("boss", "go", thread="boss")
    await until(lambda: len(recorder.effects()) >= 3, "some effects")
    await temporal.get_workflow_handle(run.workflow_id).terminate()
    worker.kill()
    await world.worker(RECORDER=recorder.url)
    await _all_ended(world, recorder, run)
    with pytest.raises(RunEnded, match="terminated in Temporal"):
        await run.result(timeout=10)
    over = (await world.rows("select ended_at as at from runs where run_id = $1", run.run_id))[0]["at"].timestamp()
    runs = await world.rows("select state, ended_at as at from runs where parent_run_id = $1", run.run_id)
    states = Counter(row["state"] for row in runs)
    assert set(states) <= {"stopped", "done"}
    assert states["stopped"], "all its children went on to their answers"
    heard = world.settings.scaled(_HEARD)
    longest = max(row["at"].timestamp() - over for row in runs if row["state"] == "done") if states["done"] else 0.0
    assert longest < heard, f"a child came to its answer {longest:.1f} s after its parent's end"
    assert [entry for entry in models.journal if entry["at"] > over + heard] == [], "a model was called for nobody"
    effects = Counter(entry["key"] for entry in recorder.effects())
    assert max(effects.values()) == 1
    done = await world.rows("select key from effects where state = 'done' and tool in ('stamp', 'charge')")
    assert {row["key"] for row in done} <= set(effects), "done, and it did not take place"
