"""What can never be swept keeps nothing else from being swept: a call, a thread, a run to be told to a listener."""

from __future__ import annotations

import json

from holdfast.runtime import connect_temporal
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, until

AGENTS = '''
import asyncio, json, pathlib
from holdfast import Agent, Event, Plugin, tool

HERE = pathlib.Path(__file__).parent

@tool(effect="pure", timeout=600)
async def hold(name: str) -> str:
    """Wait."""
    (HERE / f"{name}.held").touch()
    await asyncio.sleep(600)
    return name

class Audit(Plugin):
    """Writes down what happens."""
    required = True

    def event(self, event: Event) -> None:
        with (HERE / "heard").open("a") as file:
            file.write(json.dumps([event.run_id, event.seq]) + "\\n")

plugins = [Audit()]
one = Agent("one", "openai/test", tools=[hold])
'''

SCRIPT = """
conversations:
  - {when: hold, replies: [{call: {hold: {name: "{{user}}"}}}, {say: never}]}
  - {replies: [{say: heard}]}
"""

LOST = """
insert into effects (key, run_id, scope, step_no, tool, class, args_hash, state, owner, lease_until, sent_at, sends)
values ($1, $2, 'lost', $3, 'pay', 'once', '-', 'in_flight', 'gone', now() - interval '1 hour', now(), 1)
"""


async def test_a_call_that_cannot_be_settled(make_world: MakeWorld) -> None:
    """The next one is settled, and the threads are looked at."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, sweep_every=0.5)
        await world.worker()
        client = await world.client()
        runs = [await client.start("one", "hello", thread=name) for name in ("poison", "next")]
        for run in runs:
            await run.result(timeout=PATIENCE)
        await world.rows("update heads set seq = seq - 1 where run_id = $1", runs[0].run_id)  # no event can be written
        for number, run in enumerate(runs):
            await world.rows(LOST, f"call-{number}", run.run_id, 90 + number)

        async def settled() -> bool:
            rows = await world.rows("select key, state from effects where scope = 'lost' order by key")
            return [row["state"] for row in rows] == ["in_flight", "in_doubt"]

        await until(settled, "the other call is in doubt")


async def test_a_thread_that_temporal_refuses(make_world: MakeWorld) -> None:
    """The next one, whose workflow was terminated, is found and its run stopped."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url, sweep_every=0.5)
        await world.worker()
        client = await world.client()
        for name in ("poison", "next"):
            run = await client.start("one", f"hold-{name}", thread=name)
            await until((world.folder / f"hold-{name}.held").exists, "the call is under way")
        await world.rows("update threads set thread = repeat('x', 2000) where thread = 'poison'")
        temporal = await connect_temporal(world.settings, identity="test")
        await temporal.get_workflow_handle(run.workflow_id).terminate()

        async def stopped() -> bool:
            return (await run.status()).state == "stopped"

        await until(stopped, "the sweeper has found the terminated one")


async def test_a_run_that_a_listener_cannot_be_told(make_world: MakeWorld) -> None:
    """Its record cannot be read: the listener hears of the other that was found with it."""
    world = await make_world(AGENTS, api_base="http://127.0.0.1:9/v1", sweep_every=0.5)
    await world.worker()
    await until(lambda: world.rows("select from listeners"), "the plugin listens")
    poison, other = (f"{digit * 8}-0000-0000-0000-000000000000" for digit in "0f")
    insert = "insert into events (run_id, seq, kind, data) values ($1, 1, 'x', '[1]'), ($2, 1, 'x', '{}')"
    await world.rows(insert, poison, other)

    def told() -> bool:
        path = world.folder / "heard"
        return path.exists() and json.loads(path.read_text().splitlines()[0]) == [other, 1]

    await until(told, "the other is told")
    await world.rows("delete from events")
