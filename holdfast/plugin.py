"""Holdfast in a Temporal client and worker of a user's own, by one line. Nothing else imports it.

`Worker(client, task_queue="orders", workflows=[…], plugins=[HoldfastPlugin()])` serves the agents of the agents file on
that queue, beside the worker's own workflows and activities. On a client it gives the data converter and serves on the
first worker that is made of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import structlog
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultFailureConverter, DefaultPayloadConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import ReplayerConfig, Worker, WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from holdfast.activities.interceptor import BeatInterceptor
from holdfast.convert import BoundedFailureConverter, data_converter
from holdfast.errors import ConfigurationError
from holdfast.runtime import (
    WORKFLOWS,
    agent_activities,
    control_worker,
    finish_background,
    memory_worker,
    open_deps,
    serve_agents,
    worker_name,
    workflow_runner,
    workflow_slots,
)
from holdfast.search_attributes import ensure_search_attributes
from holdfast.secrets import use
from holdfast.settings import Settings, load_settings

if TYPE_CHECKING:
    from holdfast.activities.deps import Deps

__all__ = ["HoldfastPlugin"]

log = structlog.get_logger(__name__)

_SDK_STICKY = timedelta(seconds=10)  # what a worker has that was not told otherwise


class HoldfastPlugin(SimplePlugin):
    """Gives a client the data converter, and one worker the agents: workflows, activities, and what they need beside.

    The worker's own activities and workflows are left as they are, but for what the converter and the sandbox let pass.
    """

    def __init__(self, settings: Settings | None = None, *, task_queue: str | None = None) -> None:
        """Open nothing yet: servers are needed when the worker runs.

        Args:
            settings: where PostgreSQL is, the agents file and all else; unset, `load_settings()`: environment, `.env`,
                holdfast.toml. The queue is the worker's, whatever they say.
            task_queue: serve on the worker of this queue; unset, on the first worker that has the plugin.

        """
        self._settings = settings or load_settings()
        self._queue = task_queue
        self._late: _Late | None = None
        super().__init__(
            "holdfast.HoldfastPlugin",
            data_converter=_converter,
            interceptors=[BeatInterceptor(self._settings)],
            workflow_runner=_runner,
        )

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add agents to the worker that serves them; any other gets converter and sandbox alone."""
        config = super().configure_worker(config)
        queue = config.get("task_queue") or ""
        if self._late is not None or self._queue not in (None, queue):
            return config
        self._queue, self._late = queue, _Late()
        config["workflows"] = [*config.get("workflows", ()), *WORKFLOWS]
        activities = agent_activities(cast("Deps", self._late))
        config["activities"] = [*config.get("activities", ()), *activities]
        often = timedelta(seconds=self._settings.scaled(0.3))  # a step's lease is 2 s: see docs/howto/effects.md
        config["max_heartbeat_throttle_interval"] = config["default_heartbeat_throttle_interval"] = often
        if not config.get("graceful_shutdown_timeout"):
            config["graceful_shutdown_timeout"] = timedelta(seconds=self._settings.shutdown_grace)
        if config.get("sticky_queue_schedule_to_start_timeout") == _SDK_STICKY:
            config["sticky_queue_schedule_to_start_timeout"] = timedelta(seconds=self._settings.scaled(1.0))
        if config.get("max_concurrent_workflow_tasks") is None and config.get("tuner") is None:
            config["max_concurrent_workflow_tasks"] = workflow_slots(self._settings)
        return config

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """Let histories of agents be replayed, too."""
        config = super().configure_replayer(config)
        config["workflows"] = [*config.get("workflows", ()), *WORKFLOWS]
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:  # noqa: A002
        """Run the worker within what its agents need.

        Raises:
            ConfigurationError: settings, agents file, a plugin, a secret or a model's key are wrong.
            StackError: Temporal lacks our search attributes and refuses to register them.
            StorageError: PostgreSQL cannot be used.

        """
        if self._late is None or worker.task_queue != self._queue or self._late.deps is not None:
            await next(worker)
            return
        async with self._serving(worker, self._late):
            await next(worker)

    @contextlib.asynccontextmanager
    async def _serving(self, worker: Worker, late: _Late) -> AsyncIterator[None]:
        client = worker.client
        settings = self._settings.model_copy(
            update={"task_queue": worker.task_queue, "temporal_namespace": client.namespace}
        )
        await ensure_search_attributes(client.service_client.config.target_host, client.namespace, client)
        async with (
            open_deps(settings, client, role="agents", name=worker_name("agents")) as deps,
            contextlib.AsyncExitStack() as stack,
        ):
            use(deps.secrets)
            late.deps = deps
            await serve_agents(deps, stack)
            await stack.enter_async_context(control_worker(deps))
            if deps.memory is not None:
                await stack.enter_async_context(await memory_worker(deps, stack))
            log.info("agents are served", agents=sorted(deps.agents), queue=worker.task_queue)
            try:
                yield
            finally:
                deps.draining.set()
                await finish_background(deps, time.monotonic() + settings.shutdown_grace)
                late.deps = None


class _Late:
    """Stands for what activities are given until the worker runs and there is such a thing."""

    deps: Deps | None = None

    def __getattr__(self, name: str) -> Any:  # Any: whatever `Deps` has
        if self.deps is None:
            raise ConfigurationError("this worker does not run (any more): its agents have no database.")
        return getattr(self.deps, name)


def _converter(given: DataConverter | None) -> DataConverter:
    """Return a user's converter that can write our contracts: codec and failure converter of theirs stay.

    Raises:
        ConfigurationError: its payload converter is one that we do not know to write pydantic models.

    """
    if given is None:
        return data_converter
    if given.failure_converter_class is DefaultFailureConverter:
        given = replace(given, failure_converter_class=BoundedFailureConverter)
    kind = given.payload_converter_class
    if issubclass(kind, PydanticPayloadConverter):
        return given
    if kind is DefaultPayloadConverter:
        return replace(given, payload_converter_class=PydanticPayloadConverter)
    raise ConfigurationError(
        f"the client's payload converter {kind.__name__} may not write Holdfast's messages, which are pydantic models. "
        "Derive it from temporalio.contrib.pydantic.PydanticPayloadConverter; a codec can stay as it is."
    )


def _runner(given: WorkflowRunner | None) -> WorkflowRunner:
    if given is None:
        return workflow_runner()
    if isinstance(given, SandboxedWorkflowRunner):
        passed = workflow_runner(given.restrictions).restrictions
        return replace(given, restrictions=passed)
    return given  # without a sandbox a model is one class anyway
