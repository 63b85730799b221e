"""HoldfastPlugin in a Temporal worker of a user's own: its workflow asks an agent, its activities stay its own."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.converter import CompositePayloadConverter, DataConverter, PayloadCodec
from temporalio.exceptions import ActivityError
from temporalio.exceptions import TimeoutError as TimedOut
from temporalio.worker import Replayer, Worker

from holdfast.errors import ConfigurationError, DecisionRefused
from holdfast.plugin import HoldfastPlugin
from holdfast.settings import Settings
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.integration._orders import Handle, Waits, hangs, price
from tests.kit import PATIENCE, World, until

AGENTS = '''
from holdfast import Agent, tool

@tool(effect="once")
async def order_status(order_id: str) -> str:
    """Look up one order."""
    return f"order {order_id} is late"

support = Agent("support", "openai/test", "Help.", tools=[order_status])
'''

SCRIPT = """
conversations:
  - replies:
      - call: {order_status: {order_id: "17"}}
      - say: "It says: {{last_tool}}"
"""


HANGING = '''
import pathlib, time
from holdfast import Agent, ToolContext, tool

HERE = pathlib.Path(__file__).parent

def note(name: str, ctx: ToolContext) -> None:
    with (HERE / name).open("a") as file:
        file.write(ctx.idempotency_key + "\\n")

def hang(name: str, ctx: ToolContext) -> str:
    note(f"{name}.begun", ctx)
    while not (HERE / f"{name}.go").exists():
        time.sleep(0.02)
    note(name, ctx)
    return "sent"

def sent(ctx: ToolContext) -> str | None:
    path = HERE / "ships"
    return "found" if path.exists() and ctx.idempotency_key in path.read_text() else None

@tool(effect="verifiable", lookup=sent, settle=0.1, timeout=600)
def ships(ctx: ToolContext) -> str:
    """Ship when the test says."""
    return hang("ships", ctx)

@tool(effect="once", timeout=600)
def posts(ctx: ToolContext) -> str:
    """Post when the test says."""
    return hang("posts", ctx)

one = Agent("one", "openai/test", "Help.", tools=[ships, posts])
'''

HANG = """
conversations:
  - when: ships
    replies: [{call: {ships: {}}}, {say: "{{last_tool}}"}]
  - when: posts
    replies: [{call: {posts: {}}}, {say: "{{last_tool}}"}]
"""


class Codec(PayloadCodec):
    """A user's codec: bytes are turned round."""

    async def encode(self, payloads: Any) -> Any:
        """Turn them round."""
        return [self._turned(payload) for payload in payloads]

    async def decode(self, payloads: Any) -> Any:
        """Turn them back."""
        return [self._turned(payload) for payload in payloads]

    def _turned(self, payload: Any) -> Any:
        turned = type(payload)()
        turned.CopyFrom(payload)
        turned.data = payload.data[::-1]
        return turned


async def connect(world: World, **options: Any) -> Client:
    """Return a user's own client."""
    return await Client.connect(world.settings.temporal_address or "", **options)


async def test_an_agent_in_a_worker_of_ones_own(make_world: MakeWorld) -> None:
    """One line on the worker; the user's workflow, activity and codec go on as before, and the history replays."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        plugin = HoldfastPlugin(world.settings)
        client = await connect(world, data_converter=DataConverter(payload_codec=Codec()), plugins=[plugin])
        queue = f"orders-{uuid.uuid4().hex[:8]}"
        async with Worker(client, task_queue=queue, workflows=[Handle, Waits], activities=[price, hangs]):
            handle = await client.start_workflow(Handle.run, "17", id=f"handle-{queue}", task_queue=queue)
            assert await asyncio.wait_for(handle.result(), PATIENCE) == "42: It says: order 17 is late"
            with pytest.raises(WorkflowFailureError) as caught:
                await asyncio.wait_for(
                    client.execute_workflow(Waits.run, id=f"waits-{queue}", task_queue=queue), PATIENCE
                )
            failed = caught.value.cause
            assert isinstance(failed, ActivityError)
            assert isinstance(failed.cause, TimedOut), "nobody beats for an activity of the user's"
        [effect] = await world.rows("select state, tool from effects where class = 'once'")
        assert effect == {"state": "done", "tool": "order_status"}
        history = await handle.fetch_history()
        replayer = Replayer(
            workflows=[Handle], plugins=[HoldfastPlugin(world.settings)], data_converter=client.data_converter
        )
        await replayer.replay_workflow(history)


async def test_only_one_worker_of_a_client_serves(make_world: MakeWorld) -> None:
    """A second worker of the same client has the converter and sandbox alone; the queue that was named is served."""
    world = await make_world(AGENTS)
    queue = f"second-{uuid.uuid4().hex[:8]}"
    plugin = HoldfastPlugin(world.settings, task_queue=queue)
    client = await connect(world, plugins=[plugin])
    first = Worker(client, task_queue=f"first-{queue}", workflows=[Handle], activities=[price])
    second = Worker(client, task_queue=queue, workflows=[Handle], activities=[price])
    third = Worker(client, task_queue=f"third-{queue}", workflows=[Handle], activities=[price])
    names = [
        {each.__name__ for each in worker.config(active_config=True).get("workflows", [])}
        for worker in (first, second, third)
    ]
    assert names == [{"Handle"}, {"Handle", "AgentWorkflow", "AskWorkflow"}, {"Handle"}]


def test_a_converter_that_may_not_write_our_models_is_refused() -> None:
    """A user's own payload converter is named, with what to do; a codec beside the usual one stays."""

    class Mine(CompositePayloadConverter):
        pass

    plugin = HoldfastPlugin(Settings())
    with pytest.raises(ConfigurationError, match="Mine may not write"):
        plugin.configure_client({"data_converter": DataConverter(payload_converter_class=Mine)})  # type: ignore[typeddict-item]
    codec = Codec()
    made = plugin.configure_client({"data_converter": DataConverter(payload_codec=codec)})  # type: ignore[typeddict-item]
    assert made["data_converter"].payload_codec is codec


async def test_a_body_that_outlives_the_worker_keeps_its_call(make_world: MakeWorld) -> None:
    """The process lives on, so does the thread: nobody repeats its call, and nobody may say that it was not done."""
    async with ModelServer(HANG) as models:
        world = await make_world(HANGING, api_base=models.base_url, shutdown_grace=1.0)
        temporal = await connect(world, plugins=[HoldfastPlugin(world.settings)])
        ours = await world.client()
        async with Worker(temporal, task_queue=world.settings.task_queue):
            await until(lambda: world.rows("select 1 from agents"), "the worker has said which agents there are")
            ships, posts = await ours.start("one", "ships"), await ours.start("one", "posts")
            for name in ("ships", "posts"):
                await until((world.folder / f"{name}.begun").exists, "the body has begun")
        await world.worker()
        later = (
            "select 1 from effects where tool = 'ships' and clock_timestamp() > created_at + make_interval(secs => $1)"
        )
        [row] = await world.rows(
            "select extract(epoch from clock_timestamp() - min(created_at))::float8 s from effects"
        )
        past = row["s"] + world.settings.scaled(4 * world.settings.lease)
        await until(lambda: world.rows(later, past), "several leases have passed since the worker was closed")
        which = "from effects where class <> 'pure' order by tool"
        held = f"select tool, step_no, fence, lease_until > clock_timestamp() as held {which}"
        calls = await world.rows(held)
        assert [(call["tool"], call["fence"], call["held"]) for call in calls] == [
            ("posts", 1, True),
            ("ships", 1, True),
        ]
        with pytest.raises(DecisionRefused, match=r"body is still running|may still be under way"):
            await posts.resolve(calls[0]["step_no"], not_done=True)
        for name in ("ships", "posts"):
            (world.folder / f"{name}.go").touch()
        assert (await ships.result(timeout=PATIENCE)).output == "found"
        over = "select 1 from effects where tool = 'posts' and lease_until < clock_timestamp()"
        await until(lambda: world.rows(over), "the lease ends with the body")
        await posts.resolve(calls[0]["step_no"], done="it was in the box")
        assert (await posts.result(timeout=PATIENCE)).output == "it was in the box"
        for name in ("ships", "posts"):
            assert len((world.folder / name).read_text().split()) == 1
