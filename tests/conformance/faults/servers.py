"""Faults of the servers the product stands on: crashed, out of reach, slow, connections cut, the model server gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.conformance.faults.struck import Struck
from tests.conformance.proxy import FaultProxy
from tests.conformance.stage import Stage, now
from tests.kit import until

__all__ = [
    "DatabaseCrash",
    "DatabaseCut",
    "DatabaseGone",
    "DatabaseSlow",
    "ModelGone",
    "ServersRestart",
    "SupervisorKill",
    "TemporalCut",
    "TemporalGone",
    "TemporalKill",
    "TemporalSlow",
]


def _everybody(stage: Stage) -> list[int]:
    return [born.pid for born in stage.live]


@dataclass
class DatabaseCrash:
    """`pg_ctl -m immediate`: PostgreSQL ends as in a crash and recovers. Nothing comes in doubt: the workers know."""

    longest: float = 3.0
    name: ClassVar[str] = "pg_ctl -m immediate"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Crash it."""
        at = now()
        await stage.crash_postgres(max(0.0, chance.uniform(-1.0, self.longest)))
        return Struck(at, now())


@dataclass
class TemporalKill:
    """SIGKILL of the Temporal server. Away beyond the heartbeat time-out, calls are given up: doubts."""

    longest: float = 3.0
    name: ClassVar[str] = "kill -9 of the Temporal server"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill it."""
        at, pids = now(), _everybody(stage)
        await stage.ground.servers.kill_temporal(max(0.0, chance.uniform(-1.0, self.longest)))
        return Struck(at, now(), pids)


class SupervisorKill:
    """SIGKILL of the supervisor of PostgreSQL and Temporal; the next starts both again. Doubts as with Temporal."""

    name: ClassVar[str] = "kill -9 of the supervisor"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill it, and start another."""
        at, pids = now(), _everybody(stage)
        await _with_postgres(stage, stage.ground.servers.kill_supervisor())
        return Struck(at, now(), pids)


class ServersRestart:
    """PostgreSQL and Temporal are stopped in order and started again, as for an upgrade. Doubts as with Temporal."""

    name: ClassVar[str] = "restart of PostgreSQL and Temporal"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Stop and start them."""
        at, pids = now(), _everybody(stage)
        await _with_postgres(stage, stage.ground.servers.restart())
        return Struck(at, now(), pids)


async def _with_postgres(stage: Stage, other: Coroutine[Any, Any, None]) -> None:
    """Do something to all servers; a cluster's PostgreSQL is none of the supervisor's, and crashes meanwhile."""
    await asyncio.gather(other, *([] if stage.cluster is None else [stage.cluster.crash_postgres()]))


@dataclass
class DatabaseGone:
    """PostgreSQL away from every process of the product: connections drop and new ones are refused."""

    longest: float = 4.0
    shortest: float = 0.3
    name: ClassVar[str] = "PostgreSQL gone"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Shut the gate for a while."""
        at = now()
        await _away(stage.database, chance.uniform(self.shortest, self.longest))
        return Struck(at, now())


@dataclass
class TemporalGone:
    """Temporal away from every process of the product. Beyond the heartbeat time-out, calls are given up: doubts."""

    longest: float = 3.5
    name: ClassVar[str] = "Temporal gone"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Shut the gate for a while."""
        at, pids = now(), _everybody(stage)
        await _away(stage.temporal, chance.uniform(0.3, self.longest))
        return Struck(at, now(), pids)


class DatabaseCut:
    """Every connection to PostgreSQL drops, at once or in the middle of an answer; new ones are welcome."""

    name: ClassVar[str] = "PostgreSQL connections cut"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Cut them."""
        at = now()
        await _cut(stage.database, chance)
        return Struck(at, now())


class TemporalCut:
    """Every connection to Temporal drops likewise. Workers connect again at once: no beat is missed for long."""

    name: ClassVar[str] = "Temporal connections cut"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Cut them."""
        at = now()
        await _cut(stage.temporal, chance)
        return Struck(at, now())


class DatabaseSlow:
    """Every piece of data from and to PostgreSQL comes late."""

    name: ClassVar[str] = "PostgreSQL slow"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Be slow for a while."""
        at = now()
        await _slow(stage.database, chance)
        return Struck(at, now())


class TemporalSlow:
    """Every piece of data from and to Temporal comes late."""

    name: ClassVar[str] = "Temporal slow"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Be slow for a while."""
        at = now()
        await _slow(stage.temporal, chance)
        return Struck(at, now())


@dataclass
class ModelGone:
    """The model server away: replies under way break off, new requests are refused."""

    longest: float = 4.0
    name: ClassVar[str] = "model server gone"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Stop it and start it again."""
        at = now()
        await stage.models.stop()
        await asyncio.sleep(chance.uniform(0.3, self.longest))
        await stage.models.start()
        return Struck(at, now())


async def _away(proxy: FaultProxy, seconds: float) -> None:
    async with proxy.turn:
        await proxy.shut()
        await asyncio.sleep(seconds)
        await proxy.open()


async def _cut(proxy: FaultProxy, chance: random.Random) -> None:
    """Cut all at once; or let so many bytes more pass, cut the connection that passes the last, and wait for that."""
    if chance.random() < 0.5:
        proxy.cut()
        return
    proxy.allowance = chance.randrange(1, 20_000)
    with suppress(AssertionError):  # nobody said so much
        await until(lambda: proxy.allowance is None, "so many bytes have passed", patience=5.0)
    proxy.allowance = None


async def _slow(proxy: FaultProxy, chance: random.Random) -> None:
    proxy.latency = chance.uniform(0.02, 0.15)
    await asyncio.sleep(chance.uniform(1.0, 3.0))
    proxy.latency = 0.0
