"""Faults that wait for a commit of a worker: in it the connection breaks, or the worker is killed or frozen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import ClassVar, Literal

from tests.conformance.faults.processes import beyond_lease
from tests.conformance.faults.struck import Struck
from tests.conformance.processes import Born
from tests.conformance.stage import Stage, now

__all__ = ["CutInCommit", "FreezeInCommit", "KillInCommit", "KillInHandOff", "KillInQuestion"]

_PATIENCE = 10.0  # seconds in which some worker will commit, or nobody does

_AT_WORK = "select 1 from holdfast.runs where state in ('queued', 'running', 'waiting') and agent = any($1)"

Word = Literal["pass", "lose", "mute"]


async def _catch(stage: Stage, do: Callable[[Born], Awaitable[Word]], words: tuple[bytes, ...] = (b"",)) -> Born | None:
    """Have *do* done while a worker's COMMIT is on its way, of a transaction that said one of *words*; return who."""
    if stage.database.at_commit is not None:
        return None
    caught: asyncio.Future[Born] = asyncio.get_running_loop().create_future()

    async def ask(port: int, said: bytes) -> Word | None:
        if not any(word in said for word in words):
            return None
        born = next((born for born in stage.workers() if born.owns(port)), None)
        if born is None:
            return None
        word = await do(born)
        caught.set_result(born)
        return word

    stage.database.at_commit = ask
    try:
        return await asyncio.wait_for(caught, _PATIENCE)
    except TimeoutError:
        return None
    finally:
        if stage.database.at_commit is ask:
            stage.database.at_commit = None


class CutInCommit:
    """A worker's connection drops in a commit: before it reached PostgreSQL, or before the worker heard of it."""

    name: ClassVar[str] = "PostgreSQL connection cut in a commit"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Cut one. The worker knows what it did, and finds out: nothing comes in doubt."""
        at = now()
        word: Word = chance.choice(("lose", "mute"))

        async def cut(_: Born) -> Word:
            return word

        born = await _catch(stage, cut)
        return None if born is None else Struck(at, now(), note=f"worker {born.pid}: {word}")


class KillInCommit:
    """SIGKILL of a worker while its commit is on its way; PostgreSQL gets it or not."""

    name: ClassVar[str] = "kill -9 of a worker in a commit"
    words: ClassVar[tuple[bytes, ...]] = (b"",)  # of which the transaction says one
    agents: ClassVar[tuple[str, ...]] = ()  # of which one must be at work, or there will be no such transaction

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill one; another is started."""
        if self.agents and not await stage.rows(_AT_WORK, list(self.agents)):
            return None
        word: Word = chance.choice(("lose", "mute"))
        at = now()

        async def kill(born: Born) -> Word:
            nonlocal at
            at = await stage.reap(born)
            return word

        born = await _catch(stage, kill, self.words)
        if born is None:
            return None
        await stage.bear()
        return Struck(at, at, [born.pid], note=word)


class KillInHandOff(KillInCommit):
    """SIGKILL of a worker while it commits that a conversation moves to another agent."""

    name: ClassVar[str] = "kill -9 of a worker in a hand-off"
    words: ClassVar[tuple[bytes, ...]] = (b"handed_off",)
    agents: ClassVar[tuple[str, ...]] = ("front",)


class KillInQuestion(KillInCommit):
    """SIGKILL of a worker while it commits that a sub-agent is asked, or what it answered."""

    name: ClassVar[str] = "kill -9 of a worker in a sub-agent's commit"
    words: ClassVar[tuple[bytes, ...]] = (b"child_started", b"child_ended")
    agents: ClassVar[tuple[str, ...]] = ("chief", "miser", "middle")


class FreezeInCommit:
    """SIGSTOP of a worker while its commit is on its way: it wakes beyond its lease, and only then hears of it."""

    name: ClassVar[str] = "SIGSTOP of a worker in a commit"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Freeze one and wake it."""
        at = now()

        async def freeze(born: Born) -> Word:
            nonlocal at
            at = now()
            born.freeze()
            return "pass"

        born = await _catch(stage, freeze)
        if born is None:
            return None
        await asyncio.sleep(beyond_lease(stage.world.settings, chance, 4.2))
        born.wake()
        return Struck(at, now(), [born.pid])
