"""Faults of the product's own processes: killed, frozen, told to stop, and clocks that jump under them."""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import dataclass
from typing import ClassVar

from holdfast.settings import Settings
from tests.conformance import clock
from tests.conformance.faults.struck import Struck, victim
from tests.conformance.processes import Born
from tests.conformance.stage import Stage, now
from tests.kit import until

__all__ = [
    "ClockJump",
    "Freeze",
    "FreezeMemory",
    "Kill",
    "KillMemory",
    "Leave",
    "MemoryClockJump",
    "Roll",
    "beyond_lease",
]


class Kill:
    """SIGKILL of an agent worker; another one is started."""

    name: ClassVar[str] = "kill -9 of a worker"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill one."""
        struck = await victim(stage, chance)
        at = await stage.reap(struck)
        await stage.bear()
        return Struck(at, at, [struck.pid])


def beyond_lease(settings: Settings, chance: random.Random, longest: float) -> float:
    """Return seconds beyond the lease; *longest* is as `time_scale` 1 has it."""
    return settings.scaled(chance.uniform(settings.lease + 0.5, longest))


async def _freeze(born: Born, seconds: float) -> None:
    born.freeze()
    await asyncio.sleep(seconds)
    born.wake()


@dataclass
class Freeze:
    """SIGSTOP of a worker for longer than its lease, then SIGCONT: a zombie that believes it still owns its calls."""

    # Seconds, which `time_scale` multiplies. Above lease + settle, 5 s here, it may double a `verifiable` call, as
    # docs/howto/effects.md says.
    longest: float = 4.2
    name: ClassVar[str] = "SIGSTOP of a worker beyond its lease"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Freeze one and wake it."""
        struck = await victim(stage, chance)
        at = now()
        await _freeze(struck, beyond_lease(stage.world.settings, chance, self.longest))
        return Struck(at, now(), [struck.pid])


class Roll:
    """SIGTERM of a worker, as in a rolling restart: another one is started first. It may leave nothing in doubt."""

    name: ClassVar[str] = "SIGTERM of a worker"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Replace one."""
        struck = await victim(stage, chance)
        struck.leaving = True
        await stage.bear()
        return await _drain(stage, [struck])


class Leave:
    """SIGTERM of every worker at once, as in a deployment gone wrong: new ones come when the last has gone."""

    name: ClassVar[str] = "SIGTERM of every worker at once"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Replace all. It may leave nothing in doubt."""
        leaving = stage.workers()
        if not leaving:
            return None
        struck = await _drain(stage, leaving)
        for _ in leaving:
            await stage.bear()
        return struck


async def _drain(stage: Stage, leaving: list[Born]) -> Struck:
    """Tell them to stop and wait until they have, within a patience far below `shutdown_grace`: nothing is cut off.

    So it accounts for no doubt, whatever else is away meanwhile.
    """
    at = now()
    for born in leaving:
        born.leaving = True
        born.signal(signal.SIGTERM)
    for born in leaving:
        await until(lambda born=born: born.ended, f"worker {born.pid} drains")
        over = await stage.reap(born)
        if born.code:  # told to stop it ends with 0
            await stage.exited(born, over)
    return Struck(at, now(), note=f"workers {', '.join(str(born.pid) for born in leaving)}")


class KillMemory:
    """SIGKILL of the memory process; another one is started a moment later."""

    name: ClassVar[str] = "kill -9 of the memory process"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill it."""
        struck = _memory(stage)
        if struck is None:
            return None
        at = await stage.reap(struck)
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        await stage.bear("memory")
        return Struck(at, now(), note=f"process {struck.pid}")


@dataclass
class FreezeMemory:
    """SIGSTOP of the memory process, then SIGCONT: runs go on without it, and what it holds is not lost."""

    longest: float = 6.0
    name: ClassVar[str] = "SIGSTOP of the memory process"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Freeze it and wake it."""
        struck = _memory(stage)
        if struck is None:
            return None
        at = now()
        await _freeze(struck, chance.uniform(1.0, self.longest))
        return Struck(at, now(), note=f"process {struck.pid}")


class ClockJump:
    """A worker's wall clock jumps by minutes to days, ahead or back, and later to what is right.

    It may put nothing in doubt: all times of the ledger are PostgreSQL's.
    """

    name: ClassVar[str] = "clock jump of a worker"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Set its clock wrong and right."""
        return await _jump(stage, await victim(stage, chance), chance)


class MemoryClockJump:
    """The memory process's wall clock jumps likewise."""

    name: ClassVar[str] = "clock jump of the memory process"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Set its clock wrong and right."""
        return await _jump(stage, _memory(stage), chance)


def _memory(stage: Stage) -> Born | None:
    return next((born for born in stage.live if born.role == "memory" and not born.frozen), None)


async def _jump(stage: Stage, struck: Born | None, chance: random.Random) -> Struck | None:
    seconds = chance.choice((-1, 1)) * 60.0 * 10 ** chance.uniform(0.0, 4.2)  # a minute to eleven days
    if not clock.environment():
        stage.missing.add(clock.MISSING)
        return None
    if struck is None:
        return None
    at = now()
    clock.jump(struck.clock, seconds)
    await asyncio.sleep(clock.SEEN + chance.uniform(1.0, 4.0))
    clock.jump(struck.clock, 0.0)
    return Struck(at, now(), note=f"process {struck.pid} by {seconds:+.0f} s")
