"""How messages get to a thread, and what a person does to a run besides. The kinds of `subject` are made of these."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from holdfast.errors import HoldfastError, InvalidInput, ThreadOwned
from holdfast.handles import RunHandle
from tests.conformance.offices import TOOL
from tests.conformance.stage import Stage, now
from tests.kit import PATIENCE, until

if TYPE_CHECKING:
    from tests.conformance.subject import Message

__all__ = [
    "Meanwhile",
    "Send",
    "again",
    "asking",
    "by_client",
    "change_a_tool",
    "steering",
    "stop_amid_calls",
    "to_whom_it_belongs",
    "twice",
    "under_another_name",
]

Send = Callable[[Stage, "Message"], Awaitable[list[RunHandle]]]
"""Sends a message; returns the run the sender was told of, once for each time it was told."""

Meanwhile = Callable[[Stage, RunHandle, random.Random], Coroutine[Any, Any, None]]
"""What happens beside a run."""

_TRIES = 5
LANDED = 1.0  # seconds after which no request of a server that was killed takes effect any more


async def by_client(stage: Stage, message: Message, *, steer: bool = False) -> list[RunHandle]:
    """Send by our client; after an error send again, as a client may that gave a message id."""
    for _ in range(_TRIES):
        with suppress(HoldfastError):
            return [
                await stage.client.start(
                    message.kind.agent,
                    message.text,
                    thread=message.thread,
                    message_id=message.name,
                    mode="steer" if steer else "next",
                )
            ]
    raise AssertionError(f"message {message.name} could not be sent: {stage.logs()}")


async def twice(stage: Stage, message: Message) -> list[RunHandle]:
    """Send it again, as a client that missed the answer."""
    return [*await by_client(stage, message), *await by_client(stage, message)]


async def steering(stage: Stage, message: Message) -> list[RunHandle]:
    """Send it into the run under way; when that has just ended, it is a message like any other."""
    return await by_client(stage, message, steer=True)


async def asking(stage: Stage, message: Message, *, agent: str | None = None) -> list[RunHandle]:
    """Send it as any Temporal client can, the Web UI and Schedules too: by an AskWorkflow, in plain JSON."""
    settings = stage.world.settings
    given = {
        "agent": agent or message.kind.agent,
        "text": message.text,
        "thread": message.thread,
        "message_id": message.name,
    }

    async def started() -> bool:
        with suppress(RPCError):
            await stage.plain.start_workflow(
                "AskWorkflow",
                given,
                id=f"ask-{settings.tenant}-{message.name}",
                task_queue=settings.task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            )
            return True
        return False

    async def run_id() -> Any:
        query = (
            "select r.run_id::text from holdfast.runs r join holdfast.threads t on t.id = r.thread_id "
            "where t.thread = $1 and r.message_id = $2"
        )
        return await stage.rows(query, message.thread, message.name)

    await until(started, f"an AskWorkflow for {message.name} is started")
    # Its own time-outs are Temporal's defaults: a worker killed in one of its tasks, while all starves, takes minutes.
    found = await until(run_id, f"{message.name} has a run", patience=4 * PATIENCE)
    return [await again(lambda: stage.client.get(found[0]["run_id"]))]


async def under_another_name(stage: Stage, message: Message) -> list[RunHandle]:
    """Send it to another agent than the thread's: our client says no at once, an AskWorkflow's message is refused."""
    other = "frugal"
    assert other != message.kind.agent
    await until(
        lambda: stage.rows("select 1 from holdfast.threads where thread = $1 and agent is not null", message.thread),
        f"{message.thread} has an owner",
    )

    async def refused() -> bool:
        try:
            await stage.client.start(other, message.text, thread=message.thread, message_id=f"{message.name} refused")
        except ThreadOwned:
            return True
        raise AssertionError(f"{other} was let onto {message.thread}")

    await again(refused)
    return await asking(stage, message, agent=other)


async def to_whom_it_belongs(stage: Stage, message: Message) -> list[RunHandle]:
    """Send it to the agent whose the thread is, which another may become meanwhile: then to that one."""
    for agent in (message.kind.agent, "back"):
        send = partial(stage.client.start, agent, message.text, thread=message.thread, message_id=message.name)
        with suppress(ThreadOwned):
            return [await again(send)]
    raise AssertionError(f"{message.thread} belongs to neither")


async def stop_amid_calls(stage: Stage, run: RunHandle, chance: random.Random) -> None:
    """Stop the run a moment after a call was sent: one of its own, or of a run that it asked for."""
    sent = (
        "select 1 from holdfast.effects e join holdfast.runs r using (run_id) where $1::text::uuid in (run_id, "
        "r.root_run_id) and e.state = 'in_flight' and e.sent_at is not null "
        "union all select 1 from holdfast.runs where run_id = $1::text::uuid and ended_at is not null"
    )
    await until(lambda: stage.rows(sent, run.run_id), f"a call of {run.run_id} is sent", patience=120.0)
    await asyncio.sleep(chance.uniform(0.0, 0.5))
    at, taken = now(), False
    with suppress(InvalidInput):  # it has ended: a fault was first
        await again(lambda: run.stop("enough", actor="person"))
        taken = True
    await stage.note(
        "insert into evidence.words (at, until, run_id, word, taken) values ($1, $2, $3, 'stop', $4)",
        (at, now(), run.run_id, taken),
    )


async def change_a_tool(stage: Stage, run: RunHandle, chance: random.Random) -> None:
    """Let the MCP servers describe a tool otherwise; accept that once calls on the thread were refused for it."""
    suspended = (
        "select 1 from holdfast.messages m join holdfast.runs r using (thread_id) where r.run_id = $1::text::uuid "
        "and m.body::text like '%is suspended and was%' "
        "union all select 1 from holdfast.runs r join holdfast.runs o using (thread_id) "
        "where r.run_id = $1::text::uuid group by r.run_id having count(*) > 1 and bool_and(o.ended_at is not null)"
    )
    async with stage.offices.changing:
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        at, workers = now(), [each.worker for each in stage.offices.under()]
        await stage.offices.change()
        await stage.note(
            "insert into evidence.faults (kind, at, until, pids) values ('kill -9 of every MCP server', $1, $2, $3)",
            (at, now(), [*workers, *(born.pid for born in stage.live)]),
        )
        await asyncio.sleep(LANDED)
        since = now()
        with suppress(AssertionError):  # the run cannot go on: the auditor will say so
            await until(lambda: stage.rows(suspended, run.run_id), f"a call on {run.thread} is refused", patience=90.0)
        until_then = now()
        for server in ("office", "desk"):
            await until(partial(_accepted, stage, server), f"the tools of {server} are accepted")
        await stage.note(
            "insert into evidence.suspended values ($1, $2, $3)",
            *((f"{server}__{TOOL}", since, until_then) for server in ("office", "desk")),
        )


async def _accepted(stage: Stage, server: str) -> bool:
    """Accept what a server says now; true once nothing is suspended, and it is what it lists now."""
    edition = stage.offices.listing.read_text(encoding="utf-8").strip()
    with suppress(HoldfastError):
        found = await stage.client.mcp.tools(server)
        await stage.client.mcp.accept(found, actor="person")
        return any(
            view.state == "pinned" and view.pinned is not None and f"Edition {edition}." in view.pinned.description
            for view in await stage.client.mcp.tools(server, TOOL)
        )
    return False


async def again(word: Callable[[], Awaitable[Any]]) -> Any:
    """Say a word until a server has taken it, and pass on what is the speaker's own mistake."""
    for left in reversed(range(_TRIES)):
        try:
            return await word()
        except (InvalidInput, ThreadOwned):
            raise
        except HoldfastError:
            if not left:
                raise
    raise AssertionError("not reached")
