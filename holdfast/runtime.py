"""Wires a worker process: connections, agents, activities, workflows, an orderly end. `worker.py` runs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, NoReturn

import structlog
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from holdfast import __version__, llm
from holdfast.activities.admit import AdmitActivities
from holdfast.activities.answers import check_model
from holdfast.activities.ask import AskActivities
from holdfast.activities.children import ChildActivities
from holdfast.activities.decisions import DecisionActivities
from holdfast.activities.deps import Deps
from holdfast.activities.interceptor import BeatInterceptor
from holdfast.activities.memory import MemoryActivities, MemoryToolRunner
from holdfast.activities.model import ModelActivities
from holdfast.activities.notify import Notifier
from holdfast.activities.requests import model_of
from holdfast.activities.runs import RunActivities
from holdfast.activities.tools import ToolActivities
from holdfast.agent import definition_hash
from holdfast.convert import data_converter, quiet_runtime
from holdfast.errors import ConfigurationError, HoldfastError, StackError, StorageError
from holdfast.ids import control_queue
from holdfast.log import configure_logging
from holdfast.long_term import drain_outbox, keep_opening, open_memory
from holdfast.mcp.serve import Equipment, open_servers
from holdfast.memory import runs
from holdfast.memory.connections import shortage, tool_pool
from holdfast.memory.database import UNAVAILABLE, Pool, open_pool
from holdfast.plugins.equip import check_secrets, equip
from holdfast.plugins.opened import open_plugins
from holdfast.process import stay_ready, stop_on_signals
from holdfast.search_attributes import ensure_search_attributes
from holdfast.secrets import use
from holdfast.settings import Settings, load_settings
from holdfast.sweeper import Sweeper
from holdfast.teller import Teller
from holdfast.tools.registry import load_agents
from holdfast.tools.runner import CLOSING, ToolRunner
from holdfast.workflows.agent import AgentWorkflow
from holdfast.workflows.ask import AskWorkflow
from holdfast.workflows.memory import MemoryWorkflow, OutboxWorkflow

__all__ = [
    "WORKFLOWS",
    "Role",
    "agent_activities",
    "connect_temporal",
    "control_activities",
    "control_worker",
    "finish_background",
    "main",
    "memory_worker",
    "open_deps",
    "run_worker",
    "serve",
    "serve_agents",
    "worker_name",
    "workflow_runner",
    "workflow_slots",
]

Role = Literal["agents", "memory"]

WORKFLOWS: list[type] = [AgentWorkflow, AskWorkflow]
MEMORY_WORKFLOWS: list[type] = [MemoryWorkflow, OutboxWorkflow]
_MISCONFIGURED = 3  # exit code, for the supervisor: starting again will not help

log = structlog.get_logger(__name__)


def workflow_runner(restrictions: SandboxRestrictions = SandboxRestrictions.default) -> SandboxedWorkflowRunner:
    """Return the sandbox of our workflows: contracts pass through, so that a model is one class on both sides."""
    return SandboxedWorkflowRunner(
        restrictions=restrictions.with_passthrough_modules(
            "holdfast.contracts", "holdfast.errors", "holdfast.ids", "holdfast.visible"
        )
    )


async def connect_temporal(settings: Settings, *, identity: str, patience: float = 60.0) -> Client:
    """Connect to Temporal, waiting up to *patience* seconds for it.

    Raises:
        StackError: it does not answer.

    """
    address = settings.temporal_address or "127.0.0.1:7233"
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await Client.connect(
                address,
                namespace=settings.temporal_namespace,
                data_converter=data_converter,
                identity=identity,
                runtime=quiet_runtime(),
            )
        except (RuntimeError, RPCError) as exc:
            if asyncio.get_running_loop().time() > deadline:
                raise StackError(f"Temporal at {address} does not answer: {exc}. Check TEMPORAL_ADDRESS.") from exc
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def open_deps(settings: Settings, client: Client, *, role: Role, name: str) -> AsyncIterator[Deps]:
    """Open what activities need, and close it in order."""
    if not settings.database_url:
        raise ConfigurationError("HOLDFAST_DATABASE_URL is not set: a worker needs PostgreSQL; `holdfast dev` has one.")
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(settings.database_url, size=settings.database_pool, name=f"holdfast-{name}")
        stack.push_async_callback(_close_pool, pool)
        notifier = Notifier(pool)
        notifier.start()
        stack.push_async_callback(notifier.close)
        agents = load_agents(settings.agents)
        deps = Deps(settings, pool, notifier, client, agents=dict(agents))
        await _serve_beside(stack, deps.leases.serve(settings, f"holdfast-{name}-leases"))
        if role == "agents":
            runner = await stack.enter_async_context(ToolRunner(settings))
            deps.runner = runner
            # Connections belong to the loop they were made on: those of `local_tx` tools to the tool loop.
            url, size = settings.database_url, tool_pool(settings)
            deps.tool_pool = await runner.call(open_pool, url, size=size, name=f"holdfast-{name}-tools", idle=None)
            stack.push_async_callback(runner.let_go, deps.tool_pool.close)
            deps.stored_pool = await runner.call(open_pool, url, size=size, name=f"holdfast-{name}-stored")
            stack.push_async_callback(runner.let_go, deps.stored_pool.close)
        await _warn_of_few_connections(deps, role, name)
        deps.hooks = await stack.enter_async_context(open_plugins(settings, agents.plugins))
        deps.secrets = deps.hooks.secrets
        if role == "memory" or settings.qdrant_url:
            deps.memory = open_memory(settings)
            stack.push_async_callback(deps.memory.close)
            if settings.qdrant_url:
                opening = await _serve_beside(stack, keep_opening(deps.memory, settings))
                await asyncio.wait([opening], timeout=settings.scaled(settings.memory_wait))
            else:
                await deps.memory.open()
        yield deps


async def _warn_of_few_connections(deps: Deps, role: Role, name: str) -> None:
    """Say it now, not when PostgreSQL refuses connections under load."""
    with contextlib.suppress(*UNAVAILABLE):
        async with deps.pool.acquire() as conn:
            short = await shortage(conn, deps.settings, role, name)
        if short is not None:
            log.warning("PostgreSQL may run out of connections", why=short.why, do=short.advice)


async def _close_pool(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), CLOSING)
    except TimeoutError:  # cancelled, it has cut its connections
        log.warning("PostgreSQL connections were closed although they were still in use")


def agent_activities(deps: Deps) -> list[Any]:
    """Return the activities of the agents' queue: the calls of models and tools, which may take minutes."""
    return [ModelActivities(deps).model_step, ToolActivities(deps).tool_step]


def control_activities(deps: Deps) -> list[Any]:
    """Return the activities of the control queue; `contracts.CONTROL` names the same."""
    run, decide, ask, child = RunActivities(deps), DecisionActivities(deps), AskActivities(deps), ChildActivities(deps)
    return [
        AdmitActivities(deps).admit,
        run.begin_run,
        run.compact,
        run.recall_missed,
        run.end_run,
        decide.request_approvals,
        decide.record_decision,
        decide.resolve_effect,
        decide.audit_refusals,
        ask.send_message,
        ask.read_answer,
        child.prepare_child,
        child.child_result,
        child.hand_off,
    ]


def _memory_activities(deps: Deps, runner: ToolRunner) -> list[Any]:
    memory = MemoryActivities(deps)
    tools = ToolActivities(replace(deps, runner=runner))
    return [memory.recall, memory.remember, memory.search_memory, tools.tool_step]


def worker_name(role: Role) -> str:
    """Return a name that no other worker has: in a container every worker has the same process id."""
    return f"{role}-{os.getpid()}-{secrets.token_hex(3)}"


def workflow_slots(settings: Settings) -> int:
    """Return how many workflow tasks a worker carries out at once; with fewer than two the SDK keeps no workflows.

    All replay under one interpreter lock, 500 events in 0.2 s: eight at once are half of the task time-out.
    """
    return max(2, settings.max_concurrent_workflow_tasks or min(2 * (os.cpu_count() or 1), 8))


def control_worker(deps: Deps) -> Worker:
    """Return the worker of short activities: no model call or tool ever takes one of its slots."""
    queue = control_queue(deps.settings.task_queue)
    return _worker(deps, queue, [], control_activities(deps), slots=deps.settings.max_concurrent_control)


def _worker(
    deps: Deps, queue: str, workflows: list[type], activities: list[Any], *, slots: int | None = None
) -> Worker:
    settings = deps.settings
    return Worker(
        deps.client,
        task_queue=queue,
        workflows=workflows,
        activities=activities,
        build_id=f"holdfast-{__version__}",  # else the SDK hashes the code of every loaded module: 3.5 CPU-seconds
        workflow_runner=workflow_runner(),
        interceptors=[BeatInterceptor(settings)],
        max_concurrent_activities=slots or settings.max_concurrent_steps,
        max_concurrent_workflow_tasks=workflow_slots(settings),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=settings.scaled(1.0)),
        max_heartbeat_throttle_interval=timedelta(seconds=settings.scaled(0.3)),
        default_heartbeat_throttle_interval=timedelta(seconds=settings.scaled(0.3)),
        graceful_shutdown_timeout=timedelta(seconds=settings.shutdown_grace),
    )


async def _publish(deps: Deps) -> None:
    """Tell clients which agents there are; new runs get these definitions.

    A model without its key fails here, and a budget in USD where a price is not known.
    """
    definitions = {agent.name: agent.definition for agent in deps.agents.values()}
    await asyncio.to_thread(llm.require_prices, definitions, deps.settings)
    for agent in deps.agents.values():
        model = model_of(agent.definition, deps.settings)
        await deps.warm(model)  # seconds of CPU: before polling
        try:
            check_model(agent.definition, model)
        except ConfigurationError as exc:  # its runs will fail; the other agents are of use
            log.warning("an agent cannot answer", agent=agent.name, why=str(exc))
    try:
        async with deps.pool.acquire() as conn, conn.transaction():
            queue = deps.settings.task_queue
            for agent in deps.agents.values():
                await runs.publish_agent(conn, agent.definition, definition_hash(agent.definition), queue)
    except UNAVAILABLE as exc:
        raise StorageError(
            f"PostgreSQL went away while this worker was starting ({exc}). It can be started again."
        ) from exc


async def _equip_again(deps: Deps, equipment: Equipment) -> None:
    """Publish the agents again when the tools of their servers change: one came late, or a person accepted a tool."""
    published = {agent.name: definition_hash(agent.definition) for agent in deps.agents.values()}
    while not deps.draining.is_set():
        await asyncio.sleep(deps.settings.scaled(deps.settings.sweep_every))
        try:
            await equipment.equip()
            now = {agent.name: definition_hash(agent.definition) for agent in deps.agents.values()}
            for name in [name for name in now if now[name] != published[name]]:
                async with deps.pool.acquire() as conn, conn.transaction():
                    known = await runs.agent(conn, name, deps.settings.task_queue)
                    if known is not None and known[0] == published[name]:  # else a worker with newer code speaks for it
                        await runs.publish_agent(
                            conn, deps.agents[name].definition, now[name], deps.settings.task_queue
                        )
                published[name] = now[name]
                log.info("an agent has other tools of its servers", agent=name)
        except ConfigurationError as exc:
            log.error("the new tools of a server cannot be used", error=str(exc))
        except (*UNAVAILABLE, HoldfastError) as exc:
            log.info("tools of servers not looked at", error=str(exc))


async def run_worker(settings: Settings, role: Role, *, stop: asyncio.Event | None = None) -> None:
    """Serve the task queue of *role* until *stop* is set, or SIGTERM or SIGINT comes; then drain.

    Raises:
        ConfigurationError: settings, agents file or a model's key are wrong.
        StackError: Temporal does not answer, or lacks our search attributes and refuses to register them.
        StorageError: PostgreSQL or the long-term memory cannot be used.

    """
    stop = stop or asyncio.Event()
    stop_on_signals(stop)
    if settings.ready_file is not None:
        settings.ready_file.unlink(missing_ok=True)  # a killed worker's, where a container was started again
    name = worker_name(role)
    client = await connect_temporal(settings, identity=name)
    await ensure_search_attributes(settings.temporal_address or "", settings.temporal_namespace)
    async with open_deps(settings, client, role=role, name=name) as deps, contextlib.AsyncExitStack() as stack:
        use(deps.secrets)
        workers = []
        if role == "agents":
            await serve_agents(deps, stack)
            workers.append(_worker(deps, settings.task_queue, WORKFLOWS, agent_activities(deps)))
            workers.append(control_worker(deps))
        if deps.memory is not None:
            workers.append(await memory_worker(deps, stack))
        await _serve(workers, deps, stop)


async def serve_agents(deps: Deps, stack: contextlib.AsyncExitStack) -> None:
    """Make ready what a worker of agents polls with, and begin what it does beside; *stack* ends it.

    Raises as `run_worker`.
    """
    stack.push_async_callback(llm.close)
    assert deps.runner is not None
    assert deps.stored_pool is not None
    await equip(deps.agents, deps.hooks)
    await check_secrets(deps.agents.values(), deps.secrets)
    servers = open_servers(deps.settings, deps.agents, deps.runner, deps.stored_pool)
    equipment = await stack.enter_async_context(servers)
    await _publish(deps)
    if equipment is not None:
        await _serve_beside(stack, _equip_again(deps, equipment))
    await _serve_beside(stack, Sweeper(deps.settings, deps.pool, deps.client).serve())
    if deps.hooks.has("event"):
        teller = Teller(deps)
        deps.notifier.heard_by.append(teller.hear)
        await _serve_beside(stack, teller.serve())


async def memory_worker(deps: Deps, stack: contextlib.AsyncExitStack) -> Worker:
    """Return a worker of the memory queue, for a process that has the long-term memory."""
    assert deps.memory is not None
    runner = MemoryToolRunner(deps.memory, deps.settings, deps.pool)
    await _serve_beside(stack, drain_outbox(deps))
    return _worker(deps, deps.settings.memory_queue, MEMORY_WORKFLOWS, _memory_activities(deps, runner))


async def _serve_beside(
    stack: contextlib.AsyncExitStack,
    work: Any,  # Any: a coroutine of any type
) -> asyncio.Task[None]:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
    return task


async def _serve(workers: list[Worker], deps: Deps, stop: asyncio.Event) -> None:
    running = [asyncio.create_task(worker.run()) for worker in workers]
    stopping = asyncio.create_task(stop.wait())
    ready = asyncio.create_task(stay_ready(deps.settings))
    log.info("worker is ready", agents=sorted(deps.agents), queues=[worker.task_queue for worker in workers])
    await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
    deps.draining.set()
    ready.cancel()
    grace = deps.settings.shutdown_grace
    end = time.monotonic() + grace
    log.info("worker takes no more work, and exits when its calls in flight have ended", at_most=grace)
    shutdown = asyncio.gather(*(worker.shutdown() for worker in workers))
    await asyncio.wait({shutdown}, timeout=grace + CLOSING)
    stopping.cancel()
    if shutdown.done():
        await asyncio.gather(*running)
    else:
        log.warning("some steps have not ended; the ledger has the state of their calls")
    await finish_background(deps, end)


async def finish_background(deps: Deps, end: float) -> None:
    """Wait for what goes on beside steps until *end*, on the monotonic clock; then close soon, whatever a tool does.

    Those are calls and replies that Temporal gave up, bodies that overran their time, and outcomes being recorded.
    """
    if deps.background:
        lease = deps.settings.scaled(deps.settings.lease)  # recording takes a moment also where no time is left
        await asyncio.wait(deps.background, timeout=max(lease, end - time.monotonic()))
    until = max(end, time.monotonic() + CLOSING)
    deps.hooks.end_by(until)
    if deps.runner is not None:
        deps.runner.end_by(until)


def main(argv: list[str] | None = None) -> int:
    """Run `python -m holdfast.runtime agents|memory`; exit code 3 tells the supervisor not to start again."""
    args = sys.argv[1:] if argv is None else argv
    try:
        serve(load_settings(), "memory" if args[:1] == ["memory"] else "agents")
    except ConfigurationError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return _MISCONFIGURED
    except HoldfastError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    return 0


def serve(settings: Settings, role: Role) -> None:
    """Serve as a worker until this process is told to stop. Raises as `run_worker`."""
    configure_logging(settings, process=f"{role}-{os.getpid()}")
    asyncio.new_event_loop().run_until_complete(run_worker(settings, role))


def run() -> NoReturn:
    """Be the process. It ends at once when the work is drained: a user's thread that hangs must not keep it."""
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
