"""What a fault is, and what it leaves behind for the auditor. Every kind and the drive import these."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol

from tests.conformance.processes import Born
from tests.conformance.stage import Stage
from tests.kit import until

__all__ = ["Fault", "Struck", "victim"]


@dataclass
class Struck:
    """What a fault did. Workers or threads named here may have calls in doubt; those of no fault may not."""

    at: datetime
    until: datetime
    pids: list[int] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    note: str = ""


class Fault(Protocol):
    """One kind of fault."""

    name: ClassVar[str]

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Do it, wait until it is over, mend what must be mended. None: there was nobody to strike."""


async def victim(stage: Stage, chance: random.Random) -> Born:
    """Return an agent worker that serves and is awake."""
    await until(stage.workers, "a worker is awake")
    return chance.choice(stage.workers())
