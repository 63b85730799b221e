"""Faults of a PostgreSQL that is switched over: a standby takes its place, and the workers' password changes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from tests.conformance.faults.struck import Struck
from tests.conformance.stage import Stage, now

__all__ = ["Failover", "Rotation"]


@dataclass
class Failover:
    """The primary crashes; a synchronous standby answers reads alone for a while, and is promoted.

    Nothing comes in doubt: what was committed is there, and workers keep what they alone know.
    """

    longest: float = 3.0
    name: ClassVar[str] = "PostgreSQL failover, pg_ctl promote"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Switch over."""
        if stage.cluster is None or stage.cluster.switching.locked():
            return None
        async with stage.cluster.switching:
            standby = await stage.cluster.follow()
            at = now()
            with stage.outage():
                await stage.cluster.fail_over(standby, chance.uniform(0.2, self.longest))
            return Struck(at, now())


@dataclass
class Rotation:
    """The password of the workers' role is another one for seconds, and their sessions end: nothing comes in doubt."""

    longest: float = 4.0
    name: ClassVar[str] = "PostgreSQL password rotated"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Change it, and give them the right one."""
        if stage.cluster is None or stage.cluster.switching.locked():
            return None
        async with stage.cluster.switching:
            at = now()
            with stage.outage():
                await stage.cluster.rotate(chance.uniform(0.5, self.longest))
            return Struck(at, now())
