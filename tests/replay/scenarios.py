"""What is recorded: small runs that between them schedule every activity and take every word a workflow knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client as TemporalClient

from holdfast import Client
from holdfast.contracts import ASK_WORKFLOW, MEMORY_WORKFLOW, Ask, AskResult, MemoryAnswer, MemoryQuestion
from holdfast.errors import DecisionRefused
from holdfast.handles import RunHandle
from holdfast.ids import workflow_id_for
from holdfast.testing import ModelServer
from tests.kit import World, until

__all__ = ["AGENTS", "SCENARIOS", "Model", "Scenario", "Stage"]

AGENTS = '''
import asyncio
import time
from collections import Counter

from holdfast import Agent, Budget, ToolContext, tool

TRIES = Counter()

@tool(effect="pure")
async def page(number: int) -> str:
    """Read one page."""
    return f"page {number}"

@tool(effect="pure")
async def nap() -> str:
    """Sleep for ten minutes."""
    await asyncio.sleep(600)
    return "rested"

@tool(effect="once", approval="always")
async def refund(order: str, amount: float) -> str:
    """Pay money back."""
    return f"refunded {amount} for {order}"

@tool(effect="once", timeout=1)
async def pay(ctx: ToolContext, to: str) -> str:
    """Pay, by a line that breaks after the first request has left."""
    TRIES[ctx.step_no] += 1
    if TRIES[ctx.step_no] == 1:
        raise TimeoutError("no answer")
    return f"paid {to}"

@tool(effect="once", timeout=1)
def dawdle() -> str:
    """Do it, later than one is waited for."""
    time.sleep(2)
    return "done at last"

clerk = Agent(name="clerk", model="openai/test", tools=[page, nap, refund, pay, dawdle], budget=Budget(rounds=8))
spender = Agent(name="spender", model="openai/test", tools=[page], budget=Budget(rounds=3))
keeper = Agent(name="keeper", model="openai/test", memory=True)
small = Agent(name="small", model="openai/test", window=400)
'''


class Model:
    """Plays the model: the last message of a user names the replies; `hold` as a reply waits for `let_go`."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Any]] = {}
        self.held = asyncio.Event()
        self.let_go = asyncio.Event()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[ModelServer]:
        """Serve until the block ends."""
        async with ModelServer(reply=self.reply, bodies=False) as server:
            try:
                yield server
            finally:
                self.let_go.set()

    async def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer by how many replies there were since a user named a script."""
        messages = request["messages"]
        named = [at for at, message in enumerate(messages) if message.get("content") in self.replies]
        if not named:
            return {"say": "noted"}
        script = self.replies[messages[named[-1]]["content"]]
        number = sum(message["role"] == "assistant" for message in messages[named[-1] :])
        reply = script[min(number, len(script) - 1)]
        if reply.get("hold"):
            self.held.set()
            await self.let_go.wait()
        return {name: value for name, value in reply.items() if name != "hold"}


@dataclass
class Stage:
    """Where a scenario is played."""

    world: World
    client: Client
    temporal: TemporalClient
    model: Model

    async def ask(self, agent: str, text: str, thread: str, replies: list[Any], **more: Any) -> RunHandle:
        """Send a message that the model answers with these replies."""
        self.model.replies[text] = replies
        self.model.held.clear()
        self.model.let_go.clear()
        return await self.client.start(agent, text, thread=thread, **more)

    async def event(self, run: RunHandle, kind: str, count: int = 1) -> list[Any]:
        """Wait until a run has so many events of a kind, and return them."""

        async def look() -> list[Any]:
            found = [event for event in await run.recorded() if event.kind == kind]
            return found if len(found) >= count else []

        found: list[Any] = await until(look, f"{count} events {kind}")
        return found

    async def closed(self, workflow_id: str) -> str:
        """Wait until a workflow has ended and return its id."""

        async def look() -> bool:
            return (await self.temporal.get_workflow_handle(workflow_id).describe()).close_time is not None

        await until(look, f"{workflow_id} has ended")
        return workflow_id

    async def thread_closed(self, thread: str) -> str:
        """Wait until a thread's workflow has lingered and ended, and return its id."""
        return await self.closed(workflow_id_for(self.world.settings.tenant, thread))


def call(**calls: dict[str, Any]) -> dict[str, Any]:
    """Return a reply that makes calls."""
    return {"call": [{name: args} for name, args in calls.items()]}


async def approvals(stage: Stage) -> str:
    """Two calls at once: one approved with other arguments after refusals, one rejected by signal; then one more."""
    both = {"call": [{"refund": {"order": order, "amount": 10}} for order in ("17", "18")]}
    run = await stage.ask(
        "clerk", "refund 17 and 18", "approvals", [both, call(refund={"order": "19", "amount": 1}), {"say": "done"}]
    )
    first, second = await stage.event(run, "approval_requested", 2)
    with suppress(DecisionRefused):
        await run.approve("999", actor="ann")
    with suppress(DecisionRefused):
        await run.approve(str(first.data["step"]), args={"order": "17", "amount": "much"}, actor="ann")
    await run.approve(str(first.data["step"]), args={"order": "17", "amount": 5.0}, actor="ann")
    await stage.event(run, "tool_done")
    handle = stage.temporal.get_workflow_handle(workflow_id_for(stage.world.settings.tenant, "approvals"))
    await handle.signal("decide", {"approve": False, "call_id": str(second.data["step"]), "reason": "too late"})
    await stage.event(run, "approval_requested", 3)
    await run.approve(actor="ann")
    await run.result(timeout=60)
    return await stage.thread_closed("approvals")


async def doubts(stage: Stage) -> str:
    """Three calls in doubt: done, not done and made again, abandoned."""
    replies = [call(pay={"to": to}) for to in ("ann", "bob", "cid")]
    run = await stage.ask("clerk", "pay all three", "doubts", [*replies, {"say": "done"}])
    for number, word in enumerate(({"done": "paid ann"}, {"not_done": True}, {"abandon": True}), 1):
        step = (await stage.event(run, "in_doubt", number))[-1].data["step"]
        try:
            await run.resolve(step, **word)  # type: ignore[arg-type]
        except DecisionRefused:  # the request may still be under way
            await until(lambda step=step: _over(stage.world, run.run_id, step), "the call can no longer land")
            await run.resolve(step, **word)  # type: ignore[arg-type]
    await run.result(timeout=60)
    return await stage.thread_closed("doubts")


async def _over(world: World, run_id: str, step: int) -> bool:
    over = "greatest(lease_until, deadline) < clock_timestamp()"
    return bool(await world.rows(f"select 1 from effects where run_id = $1 and step_no = $2 and {over}", run_id, step))


async def settled(stage: Stage) -> str:
    """A call in doubt proves itself done after all."""
    run = await stage.ask("clerk", "dawdle", "settled", [call(dawdle={}), {"say": "done"}])
    await stage.event(run, "in_doubt")
    await run.result(timeout=60)
    return await stage.thread_closed("settled")


async def steering(stage: Stage) -> str:
    """A message joins the run under way, another waits its turn."""
    run = await stage.ask("clerk", "read two", "steering", [call(page={"number": 1}) | {"hold": True}, {"say": "read"}])
    await stage.model.held.wait()
    joined = await stage.client.start("clerk", "and be brief", thread="steering", mode="steer")
    after = await stage.client.start("clerk", "thank you", thread="steering")
    stage.model.let_go.set()
    for one in (run, joined, after):
        await one.result(timeout=60)
    return await stage.thread_closed("steering")


async def stops(stage: Stage) -> str:
    """A run is stopped in its model call, one in its tool, one in the queue; one ends by its own."""
    first = await stage.ask("clerk", "think long", "stops", [{"say": "never"} | {"hold": True}])
    await stage.model.held.wait()
    queued = await stage.client.start("clerk", "never begun", thread="stops")
    await queued.stop(reason="not needed")
    await first.stop(reason="too slow", actor="ann")
    stage.model.let_go.set()
    napping = await stage.ask("clerk", "nap", "stops", [call(nap={})])
    await stage.event(napping, "replied")
    await napping.stop()
    await (await stage.ask("clerk", "read one", "stops", [call(page={"number": 1}), {"say": "read"}])).result(60)
    return await stage.thread_closed("stops")


async def limits(stage: Stage) -> str:
    """A run makes a malformed call and goes over budget, another goes in circles."""
    await stage.event(await stage.ask("spender", "read the same", "limits", [call(page={"number": 1})]), "ended")
    pages = [call(page={"number": number}, nowhere={}) for number in range(20)]
    run = await stage.ask("spender", "read for ever", "limits", pages)
    await stage.event(run, "ended")
    return await stage.thread_closed("limits")


async def compaction(stage: Stage) -> str:
    """The window slides, before a call that would not fit and after one that nearly filled it."""
    for number in range(4):
        run = await stage.ask("small", f"{number}: " + "very long words " * 40, "compaction", [{"say": "yes " * 20}])
        await run.result(timeout=60)
    return await stage.thread_closed("compaction")


async def cancelled(stage: Stage) -> str:
    """Temporal is asked to cancel the workflow: the run under way and those that wait are stopped."""
    run = await stage.ask("clerk", "think on", "cancelled", [{"say": "never"} | {"hold": True}])
    await stage.model.held.wait()
    queued = await stage.client.start("clerk", "never begun", thread="cancelled")
    await stage.event(queued, "accepted")
    workflow_id = workflow_id_for(stage.world.settings.tenant, "cancelled")
    await stage.temporal.get_workflow_handle(workflow_id).cancel()
    for one in (run, queued):
        await stage.event(one, "ended")
    stage.model.let_go.set()
    return await stage.closed(workflow_id)


async def no_memory(stage: Stage) -> str:
    """Memory does not answer: the run says so and goes on."""
    run = await stage.ask("keeper", "my name is Ann", "no-memory", [{"say": "noted"}])
    await run.result(timeout=60)
    return await stage.thread_closed("no-memory")


async def outbox(stage: Stage) -> str:
    """What was to be remembered meanwhile is carried over when memory is back."""
    await stage.world.worker("memory")
    await until(lambda: _nothing_waits(stage.world), "the outbox is empty")
    return await stage.closed(f"{stage.world.settings.memory_queue}-outbox")


async def _nothing_waits(world: World) -> bool:
    return not await world.rows("select 1 from outbox")


async def memory(stage: Stage) -> str:
    """Recall, both tools of memory, remember."""
    replies = [
        call(remember={"text": "Ann likes tea"}),
        call(recall={"query": "what does Ann like", "limit": 3}),
        {"say": "tea"},
    ]
    run = await stage.ask("keeper", "what is my name, and what do I like?", "memory", replies)
    await run.result(timeout=60)
    return await stage.thread_closed("memory")


async def memory_question(stage: Stage) -> str:
    """A question to long-term memory."""
    workflow_id = f"{stage.world.settings.tenant}-memory-question"
    await stage.temporal.execute_workflow(
        MEMORY_WORKFLOW,
        MemoryQuestion(tenant=stage.world.settings.tenant, text="tea"),
        id=workflow_id,
        task_queue=stage.world.settings.memory_queue,
        result_type=MemoryAnswer,
    )
    return workflow_id


async def ask_and_wait(stage: Stage) -> str:
    """A question of any Temporal client, answered after a tool call."""
    stage.model.replies["ask one"] = [call(page={"number": 1}), {"say": "asked"}]
    workflow_id = f"{stage.world.settings.tenant}-ask"
    await stage.temporal.execute_workflow(
        ASK_WORKFLOW,
        Ask(agent="clerk", text="ask one", thread="asked"),
        id=workflow_id,
        task_queue=stage.world.settings.task_queue,
        result_type=AskResult,
    )
    return workflow_id


async def asked(stage: Stage) -> str:
    """The thread that was asked: it tells AskWorkflow of the run's end."""
    return await stage.thread_closed("asked")


async def ask_and_leave(stage: Stage) -> str:
    """A message sent without waiting for its answer."""
    workflow_id = f"{stage.world.settings.tenant}-leave"
    await stage.temporal.execute_workflow(
        ASK_WORKFLOW,
        Ask(agent="clerk", text="just so", wait=False),
        id=workflow_id,
        task_queue=stage.world.settings.task_queue,
        result_type=AskResult,
    )
    return workflow_id


async def rolling(stage: Stage) -> str:
    """A run rolls over between rounds and with an approval pending; a message arrives on the way."""
    pages = [call(page={"number": number}) for number in range(5)]
    run = await stage.ask(
        "clerk", "read, then refund", "rolling", [*pages, call(refund={"order": "17", "amount": 1}), {"say": "done"}]
    )
    await stage.event(run, "replied", 2)
    after = await stage.client.start("clerk", "and then?", thread="rolling")
    await stage.event(run, "approval_requested")
    await run.approve(actor="ann")
    for one in (run, after):
        await one.result(timeout=60)
    return await stage.thread_closed("rolling")


@dataclass(frozen=True)
class Scenario:
    """One recording. With `rolling`, the world's workflows continue as new after 50 events."""

    play: Callable[[Stage], Awaitable[str]]
    rolling: bool = False


SCENARIOS = {  # in the order in which they are played
    "agent-approvals": Scenario(approvals),
    "agent-doubts": Scenario(doubts),
    "agent-settled": Scenario(settled),
    "agent-steering": Scenario(steering),
    "agent-stops": Scenario(stops),
    "agent-limits": Scenario(limits),
    "agent-compaction": Scenario(compaction),
    "agent-cancelled": Scenario(cancelled),
    "agent-no-memory": Scenario(no_memory),
    "outbox": Scenario(outbox),
    "agent-memory": Scenario(memory),
    "memory": Scenario(memory_question),
    "ask-and-wait": Scenario(ask_and_wait),
    "agent-asked": Scenario(asked),
    "ask-and-leave": Scenario(ask_and_leave),
    "agent-rolling": Scenario(rolling, rolling=True),
}
