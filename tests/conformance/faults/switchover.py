"""Faults of a PostgreSQL that is switched over: a standby takes its place, and the workers' password changes."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from tests.conformance.cluster import Cluster
from tests.conformance.faults.struck import Struck
from tests.conformance.stage import Stage, now

__all__ = ["Failover", "Rotation"]


class Switchover(ABC):
    """One at a time on a cluster. Nothing comes in doubt: what was committed is there, and workers keep the rest."""

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Prepare it, then do it."""
        cluster = stage.cluster
        if cluster is None or cluster.switching.locked():
            return None
        async with cluster.switching:
            switch = await self.prepare(cluster, chance)
            at = now()
            await switch()
            return Struck(at, now())

    @abstractmethod
    async def prepare(self, cluster: Cluster, chance: random.Random) -> Callable[[], Awaitable[None]]:
        """Do what harms nobody, and return what does."""


@dataclass
class Failover(Switchover):
    """The primary crashes; a synchronous standby answers reads alone for a while, and is promoted."""

    longest: float = 3.0
    name: ClassVar[str] = "PostgreSQL failover, pg_ctl promote"

    async def prepare(self, cluster: Cluster, chance: random.Random) -> Callable[[], Awaitable[None]]:
        """Have a standby follow."""
        standby, read_only = await cluster.follow(), chance.uniform(0.2, self.longest)
        return lambda: cluster.fail_over(standby, read_only)


@dataclass
class Rotation(Switchover):
    """The password of the workers' role is another one for seconds, and their sessions end."""

    longest: float = 4.0
    name: ClassVar[str] = "PostgreSQL password rotated"

    async def prepare(self, cluster: Cluster, chance: random.Random) -> Callable[[], Awaitable[None]]:
        """Choose how long."""
        away = chance.uniform(0.5, self.longest)
        return lambda: cluster.rotate(away)
