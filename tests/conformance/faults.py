"""The faults: each kind a small class with one method. What strikes whom, when and how long comes from one generator.

A fault strikes a `Stage` and returns what it did, which the drive writes down for the auditor. A new kind is a class
and an entry in `SMOKE` or `CAMPAIGN`. `Elsewhere` names those that need servers of their own and are not here yet.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from tests.conformance.stage import Born, Stage, now
from tests.kit import until

__all__ = ["CAMPAIGN", "SMOKE", "Fault", "Struck"]


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


async def _victim(stage: Stage, chance: random.Random) -> Born:
    await until(stage.workers, "a worker is awake")
    return chance.choice(stage.workers())


class Kill:
    """SIGKILL of an agent worker; another one is started."""

    name: ClassVar[str] = "kill -9 of a worker"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill one."""
        victim = await _victim(stage, chance)
        at = await stage.reap(victim)
        await stage.bear()
        return Struck(at, at, [victim.pid])


@dataclass
class Freeze:
    """SIGSTOP of a worker for longer than its lease, then SIGCONT: a zombie that believes it still owns its calls."""

    longest: float = (
        4.2  # seconds; above lease + settle, 5 s here, it may double a `verifiable` call, as the design says
    )
    name: ClassVar[str] = "SIGSTOP of a worker beyond its lease"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Freeze one and wake it."""
        victim = await _victim(stage, chance)
        at = now()
        victim.frozen = True
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(2.5, self.longest))
        with suppress(ProcessLookupError):  # it had just ended by itself
            victim.signal(signal.SIGCONT)
        victim.frozen = False
        return Struck(at, now(), [victim.pid])


class Roll:
    """SIGTERM of a worker, as in a rolling restart: another one is started first. It may leave nothing in doubt."""

    name: ClassVar[str] = "SIGTERM of a worker"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Replace one."""
        victim = await _victim(stage, chance)
        victim.leaving = True
        await stage.bear()
        at = now()
        victim.signal(signal.SIGTERM)
        await until(lambda: victim.ended, f"worker {victim.pid} drains")
        await stage.reap(victim)
        return Struck(at, now(), note=f"worker {victim.pid}")


class KillMemory:
    """SIGKILL of the memory process; another one is started a moment later."""

    name: ClassVar[str] = "kill -9 of the memory process"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Kill it."""
        victims = [born for born in stage.live if born.role == "memory"]
        if not victims:
            return None
        at = await stage.reap(victims[0])
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        await stage.bear("memory")
        return Struck(at, now(), note=f"process {victims[0].pid}")


@dataclass
class DatabaseGone:
    """PostgreSQL away from every process of the product: connections drop and new ones are refused."""

    longest: float = 4.0
    name: ClassVar[str] = "PostgreSQL gone"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Shut the gate for a while."""
        at = now()
        await stage.database.shut()
        await asyncio.sleep(chance.uniform(0.3, self.longest))
        await stage.database.open()
        return Struck(at, now())


class DatabaseCut:
    """Every connection to PostgreSQL drops, at once or in the middle of an answer; new ones are welcome."""

    name: ClassVar[str] = "PostgreSQL connections cut"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Cut them; or let so many bytes more pass and cut the one that passes the last."""
        at = now()
        if chance.random() < 0.5:
            stage.database.cut()
        else:
            stage.database.allowance = chance.randrange(1, 20_000)
        return Struck(at, now())


class DatabaseSlow:
    """Every piece of data from and to PostgreSQL comes late."""

    name: ClassVar[str] = "PostgreSQL slow"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Be slow for a while."""
        at = now()
        stage.database.latency = chance.uniform(0.02, 0.15)
        await asyncio.sleep(chance.uniform(1.0, 3.0))
        stage.database.latency = 0.0
        return Struck(at, now())


@dataclass
class TemporalGone:
    """Temporal away from every process of the product. Beyond the heartbeat time-out, calls are given up: doubts."""

    longest: float = 3.5
    name: ClassVar[str] = "Temporal gone"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Shut the gate for a while."""
        at, pids = now(), [born.pid for born in stage.live]
        await stage.temporal.shut()
        await asyncio.sleep(chance.uniform(0.3, self.longest))
        await stage.temporal.open()
        return Struck(at, now(), pids)


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


class Terminate:
    """A thread's workflow is terminated in Temporal: the run under way ends there or is taken up, the queue goes on."""

    name: ClassVar[str] = "Terminate through Temporal"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Terminate one."""
        if not stage.active:
            return None
        thread = chance.choice(sorted(stage.active))
        at = now()
        try:
            await stage.plain.get_workflow_handle(f"{stage.world.settings.tenant}:{thread}").terminate("a fault")
        except RPCError:  # it has just ended by itself
            return None
        return Struck(at, now(), threads=[thread], note=thread)


class Reset:
    """A thread's workflow is reset to one of its workflow tasks: it goes that way again and repeats nothing."""

    name: ClassVar[str] = "Reset through Temporal"

    async def strike(self, stage: Stage, chance: random.Random) -> Struck | None:
        """Reset one."""
        if not stage.active:
            return None
        thread = chance.choice(sorted(stage.active))
        workflow_id = f"{stage.world.settings.tenant}:{thread}"
        handle = stage.plain.get_workflow_handle(workflow_id)
        try:
            described = await handle.describe()
            if described.status != WorkflowExecutionStatus.RUNNING:
                return None
            history = await stage.plain.get_workflow_handle(workflow_id, run_id=described.run_id).fetch_history()
            tasks = [
                event.event_id
                for event in history.events
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
            ]
            if not tasks:
                return None
            at = now()
            await stage.plain.workflow_service.reset_workflow_execution(
                ResetWorkflowExecutionRequest(
                    namespace=stage.world.settings.temporal_namespace,
                    workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=described.run_id),
                    reason="a fault",
                    workflow_task_finish_event_id=chance.choice(tasks),
                    request_id=f"{chance.getrandbits(64):x}",
                )
            )
        except RPCError:  # it ended meanwhile
            return None
        return Struck(at, now(), threads=[thread], note=thread)


class Elsewhere:
    """Named in the plan and not done here: they need PostgreSQL, Temporal and a supervisor of the drive's own."""

    KINDS: ClassVar[tuple[str, ...]] = (
        "pg_ctl -m immediate",
        "kill and restart of the Temporal server",
        "kill -9 of the supervisor",
        "clock jumps by faketime",
    )


# Each round of faults takes every entry once, in an order of chance.
SMOKE: Sequence[Fault] = (
    *(Kill() for _ in range(6)),
    Freeze(),
    Freeze(),
    Roll(),
    KillMemory(),
    DatabaseGone(),
    DatabaseCut(),
    DatabaseSlow(),
    TemporalGone(),
    ModelGone(),
    Terminate(),
    Reset(),
)
CAMPAIGN: Sequence[Fault] = (
    *SMOKE,
    Freeze(longest=9.0),
    DatabaseGone(longest=20.0),
    TemporalGone(longest=20.0),
    Reset(),
)
