"""How messages get to a thread, and what a person does to a run besides. The kinds of `subject` are made of these."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from holdfast.errors import HoldfastError, InvalidInput, ThreadOwned
from holdfast.handles import RunHandle
from tests.conformance.stage import Stage, now
from tests.kit import PATIENCE, until

if TYPE_CHECKING:
    from tests.conformance.subject import Message

__all__ = ["Meanwhile", "Send", "asking", "by_client", "steering", "stop_amid_calls", "twice", "under_another_name"]

Send = Callable[[Stage, "Message"], Awaitable[list[RunHandle]]]
"""Sends a message; returns the run the sender was told of, once for each time it was told."""

Meanwhile = Callable[[Stage, RunHandle, random.Random], Coroutine[Any, Any, None]]
"""What happens beside a run."""

_TRIES = 5


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
    return [await _again(lambda: stage.client.get(found[0]["run_id"]))]


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

    await _again(refused)
    return await asking(stage, message, agent=other)


async def stop_amid_calls(stage: Stage, run: RunHandle, chance: random.Random) -> None:
    """Stop the run a moment after a call of it was sent."""
    sent = (
        "select 1 from holdfast.effects where run_id = $1::text::uuid and state = 'in_flight' and sent_at is not null "
        "union all select 1 from holdfast.runs where run_id = $1::text::uuid and ended_at is not null"
    )
    await until(lambda: stage.rows(sent, run.run_id), f"a call of {run.run_id} is sent", patience=120.0)
    await asyncio.sleep(chance.uniform(0.0, 0.5))
    at, taken = now(), False
    with suppress(InvalidInput):  # it has ended: a fault was first
        await _again(lambda: run.stop("enough", actor="person"))
        taken = True
    await stage.note(
        "insert into evidence.words (at, until, run_id, word, taken) values ($1, $2, $3, 'stop', $4)",
        (at, now(), run.run_id, taken),
    )


async def _again(word: Callable[[], Awaitable[Any]]) -> Any:
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
