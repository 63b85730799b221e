"""What activities are given by the runtime, and where an activity finds itself."""

from __future__ import annotations

import asyncio
import gc
import os
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast import llm
from holdfast.activities.leases import Leases
from holdfast.contracts import AgentDefinition, StepRef
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.ids import effect_scope, split_workflow_id
from holdfast.memory import runs
from holdfast.memory.database import UNAVAILABLE, Connection, Pool
from holdfast.plugins.host import Host
from holdfast.secrets import Secrets

if TYPE_CHECKING:
    from temporalio.client import Client

    from holdfast.activities.notify import Notifier
    from holdfast.agent import Agent
    from holdfast.memory.longterm import LongTermMemory
    from holdfast.settings import Settings
    from holdfast.tools.runner import ToolRunner
    from holdfast.tools.tool import AnyTool

__all__ = ["Deps", "Here", "here"]

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Deps:
    """One worker's connections and loaded code. `memory` is there only where the memory queue is served."""

    settings: Settings
    pool: Pool
    notifier: Notifier
    client: Client
    agents: dict[str, Agent] = field(default_factory=dict)
    runner: ToolRunner | None = None
    tool_pool: Pool | None = None  # on the tool loop: connections of `local_tx` tools
    # On the tool loop: those of `ctx.stored`. Of their own, because a `local_tx` tool that asks there holds one of the
    # others: with one pool for both, as many such calls as it has connections waited for each other.
    stored_pool: Pool | None = None
    memory: LongTermMemory | None = None
    hooks: Host = field(default_factory=Host)
    secrets: Secrets = field(default_factory=Secrets)
    leases: Leases = field(default_factory=Leases)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    definitions: dict[str, AgentDefinition] = field(default_factory=dict)
    warmed: set[str] = field(default_factory=set)
    handed_back: dict[str, int] = field(default_factory=dict)  # calls of newer code: how often, by key, oldest first
    background: set[asyncio.Task[Any]] = field(default_factory=set)

    async def definition(self, digest: str) -> AgentDefinition:
        """Return a stored definition; they never change, so each is read once.

        Raises:
            ConfigurationError: the database has no such definition.

        """
        found = self.definitions.get(digest)
        if found is None:
            async with self.pool.acquire() as conn:
                found = await runs.definition(conn, digest)
            if found is None:
                raise ConfigurationError(f"definition {digest} is not in the database")
            self.definitions[digest] = found
        return found

    async def warm(self, model: str) -> None:
        """Load what answers for a model, in a thread: a loop that imports for seconds misses its heartbeats."""
        family = "offline" if model == llm.OFFLINE_MODEL else "other"
        if family not in self.warmed:
            await asyncio.to_thread(llm.warm, model)
            # LiteLLM alone is 400,000 objects. To look through them for garbage takes 0.2 CPU-seconds in which no
            # thread runs: on a starved machine longer than a lease, and every call in hand was taken for lost.
            gc.freeze()
            self.warmed.add(family)

    def with_runner(self, runner: ToolRunner) -> Deps:
        """Return the same with another runner of tools."""
        return replace(self, runner=runner)

    def tool(self, agent: str, name: str) -> AnyTool | None:
        """Return the code of an agent's tool, if this worker has it."""
        loaded = self.agents.get(agent)
        return loaded.tools.get(name) if loaded is not None else None

    async def insist(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run *work* in a transaction, over and over while the database is away.

        For what this worker alone knows: how a call ended, or a reply that is paid. Giving up now would leave a doubt,
        or buy it again. The activity beats on meanwhile, so nobody takes over; that a commit was made whose answer got
        lost, *work* must see.
        """
        while True:
            try:
                async with self.pool.acquire() as conn, conn.transaction():
                    return await work(conn)
            except UNAVAILABLE as exc:
                if self.pool.is_closing() or isinstance(exc, ValueError):  # our own mistake, not an outage
                    raise
                log.info("the database is away: what a step came to waits", error=repr(exc))
            await asyncio.sleep(self.settings.scaled(self.settings.beat))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something beside the activity and keep hold of it; its failure is logged."""
        return self.keep(asyncio.create_task(work))

    def keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Keep hold of a task that nobody waits for; its failure is logged."""
        self.background.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self.background.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ApplicationError | HoldfastError):
            log.info("a background task ended", error=repr(error))
        elif error is not None:
            log.warning("a background task failed", error=repr(error))


@dataclass(frozen=True, slots=True)
class Here:
    """Where an activity runs: its thread, and who it is among all attempts; *parent* as `hooks.placed` finds it.

    *execution* is the run id of the workflow execution that asked for it.
    """

    workflow_id: str
    tenant: str
    thread: str
    owner: str
    attempt: int
    parent: str | None = None
    execution: str = ""

    def scope(self, step: StepRef) -> str:
        """Return the scope of this thread's effects: by what another run gave it, or by the chain that writes it."""
        return effect_scope(self.workflow_id, step.scope or step.writer)


def here() -> Here:
    """Return where the running activity is.

    The owner is new for each attempt: two attempts must never be one owner. It begins with the worker's process id, so
    that after a crash one can tell from the ledger which calls that worker had in hand.
    """
    info = activity.info()
    workflow_id = info.workflow_id or ""
    tenant, thread = split_workflow_id(workflow_id)
    owner = f"{os.getpid()}.{info.activity_id}.{info.attempt}.{uuid.uuid4().hex[:12]}"
    return Here(workflow_id, tenant, thread, owner, info.attempt, execution=info.workflow_run_id or "")
