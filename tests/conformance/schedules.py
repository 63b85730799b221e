"""The directed schedules: each makes the moment certain at which one guard is needed. `controls` says which."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from temporalio.client import WorkflowExecutionStatus

from holdfast.errors import DecisionRefused
from tests.conformance.scene import Scene
from tests.kit import until

__all__ = [
    "approved",
    "changes_hands",
    "dies",
    "dies_remembering",
    "killed_in_all_calls",
    "killed_in_one_call",
    "killed_on_its_way",
    "mute_worker",
    "not_done_too_early",
    "plain",
    "reset_after_reply",
    "sent_again_late",
    "wakes_at_guard",
    "wakes_at_record",
    "wakes_at_reply",
]


async def plain(scene: Scene) -> None:
    """Nothing happens."""
    await scene.send()
    await scene.ended()


async def approved(scene: Scene) -> None:
    """A person approves what is asked; with the guard off nobody may be asked, or the word never be confirmed."""
    await scene.send()
    asked = await scene.row(
        "select coalesce((select step_no from holdfast.approvals where state = 'pending'), 0) as step_no "
        "where exists (select from holdfast.approvals) or exists (select from holdfast.runs where ended_at is not null)"
    )
    if not asked["step_no"]:
        return
    word = asyncio.create_task(scene.approve(asked["step_no"]))
    await scene.ended()
    word.cancel()
    await asyncio.gather(word, return_exceptions=True)


async def killed_in_all_calls(scene: Scene) -> None:
    """Two requests have taken effect and a row is committed, and Temporal knows of none, when the worker is killed."""
    await scene.send()
    await scene.arrivals(2)
    await scene.row("select 1 from public.notes")
    await scene.kill()
    scene.attend()
    await scene.let("answer")
    await scene.ended()


async def killed_in_one_call(scene: Scene) -> None:
    """The request has taken effect and is not answered when the worker is killed."""
    await scene.send()
    await scene.arrivals(1)
    await scene.kill()
    await scene.let("answer")
    await scene.ended()


async def killed_on_its_way(scene: Scene) -> None:
    """The worker is killed when its request has left it; it lands when others had the time to look."""
    await scene.send()
    await scene.sent()
    await scene.kill()
    await scene.tried_again(arrivals=1)
    await scene.let("land")
    await scene.landed()
    await scene.ended()


async def mute_worker(scene: Scene) -> None:
    """The first has sent and waits for the answer; Temporal believes it dead and has the call tried again."""
    await scene.second()
    await scene.send()
    await scene.tried_again(arrivals=1)
    await scene.let("land")
    await scene.landed()
    await scene.ended()


async def not_done_too_early(scene: Scene) -> None:
    """The worker is killed, and a person says "not done" at once, while the request is under way."""
    await scene.send()
    await scene.sent()
    await scene.kill()
    doubt = await scene.row("select step_no from holdfast.effects where state = 'in_doubt'")
    with suppress(DecisionRefused):
        await (await scene.run()).resolve(doubt["step_no"], not_done=True, actor="hasty")
    await scene.let("land")
    await scene.landed()
    scene.attend()
    await scene.ended()


async def wakes_at_guard(scene: Scene) -> None:
    """The first stops before its guard; the second takes the call over and has sent it when the first wakes."""
    await scene.send()
    await scene.frozen()
    await scene.second()
    await scene.arrivals(1)
    scene.wake()
    await scene.refused_or(lambda: len(scene.arrived()) > 1, "the lease ran out")
    await scene.let("answer")
    await scene.ended()


async def dies(scene: Scene) -> None:
    """The first dies by a trap; the second goes on."""
    await scene.send()
    await until(lambda: scene.first.ended, "the first worker dies")
    await scene.kill()
    await scene.ended()


async def sent_again_late(scene: Scene) -> None:
    """The message comes again when its workflow has ended; the next one has to ask the database whether it knows it."""
    await scene.send()
    await scene.over(WorkflowExecutionStatus.COMPLETED)
    await scene.send()
    await scene.over(WorkflowExecutionStatus.COMPLETED)


async def wakes_at_reply(scene: Scene) -> None:
    """The first has a reply in hand and stops; the second buys its own and records it; the first wakes."""
    await scene.send()
    await scene.frozen()
    await scene.second()
    await until(scene.replies, "the second has a reply")
    scene.wake()

    async def two() -> bool:
        return await scene.replies() > 1 or bool(await scene.stage.rows("select 1 from holdfast.late_outcomes"))

    await until(two, "a second reply, kept or set aside")
    await scene.let("answer")
    await scene.ended()


async def wakes_at_record(scene: Scene) -> None:
    """The first stops in the transaction that records its reply; the second has bought its own when the first wakes."""
    await scene.send()
    await scene.frozen()
    await scene.second()
    await until(lambda: len(scene.stage.models.journal) > 1, "the second asks the model")
    scene.wake()

    async def two() -> bool:
        return await scene.replies() > 1 or bool(await scene.stage.rows("select 1 from holdfast.late_outcomes"))

    await until(two, "a second reply, kept or set aside")
    await scene.let("answer")
    await scene.ended()


async def changes_hands(scene: Scene) -> None:
    """The first has a reply in hand and stops; its workflow, which another client had started, times out.

    That is nobody's wish: the next workflow takes the thread over and goes on with the run. Then the first wakes.
    """
    await scene.start(execution_timeout=timedelta(seconds=5))
    await scene.send()
    await scene.frozen()
    await scene.over(WorkflowExecutionStatus.TIMED_OUT)
    await scene.strike("time-out in Temporal", thread=True)
    await scene.second()
    await scene.send()
    await until(scene.replies, "the run goes on in another workflow")
    scene.wake()

    async def two() -> bool:
        return await scene.replies() > 1

    await scene.refused_or(two, "StaleWriter")
    await scene.let("answer")
    await scene.ended()


async def reset_after_reply(scene: Scene) -> None:
    """The workflow is reset to its start when the model has replied and its call is under way."""
    await scene.send()
    await scene.arrivals(1)
    await scene.reset((await scene.workflow.describe()).run_id)
    await scene.let("answer")
    await scene.ended()


async def dies_remembering(scene: Scene) -> None:
    """The memory process dies when it has stored a memory, and before it says so; the next one stores it again."""
    memory = await scene.stage.bear("memory", switches=(*scene.off, "die:drop"))
    await scene.send()
    await until(lambda: memory.ended, "the memory process dies")
    await scene.stage.reap(memory)
    await scene.second("memory")

    async def carried() -> bool:
        return not await scene.stage.rows("select 1 from holdfast.outbox")

    await until(carried, "the outbox is empty")
