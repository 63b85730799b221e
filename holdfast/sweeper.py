"""Finds what nobody works on any more and sets it going, or settles it. Each agent worker has one; one works."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from holdfast.activities.endings import ended_by_a_person, status_of, stop_begun, stop_orphans, tell_parents
from holdfast.contracts import AGENT_WORKFLOW, ThreadStart
from holdfast.ids import workflow_id_for
from holdfast.memory import events, ledger, model_leases, runs, threads
from holdfast.memory.database import UNAVAILABLE, Connection, Pool
from holdfast.settings import Settings

__all__ = ["Sweeper"]

log = structlog.get_logger(__name__)

_LOCK = 0x73776565706572  # "sweeper"


class Sweeper:
    """Looks every `sweep_every` seconds: runs without a workflow, calls without a worker, tokens of no one."""

    def __init__(self, settings: Settings, pool: Pool, client: Client) -> None:
        self._settings = settings
        self._pool = pool
        self._client = client

    async def serve(self) -> None:
        """Sweep until cancelled. An outage only makes the next sweep later."""
        while True:
            await asyncio.sleep(self._settings.scaled(self._settings.sweep_every))
            try:
                await self.sweep()
            except (*UNAVAILABLE, RPCError) as exc:
                log.info("sweep put off", error=str(exc))
            except Exception:  # one row that cannot be dealt with must not end the sweeping
                log.exception("sweep failed")

    async def sweep(self) -> None:
        """Look once, unless another worker looks already."""
        # The lock is a transaction's, which PostgreSQL ends if this process is frozen: another worker sweeps then.
        async with self._pool.acquire() as guard, guard.transaction():
            if not await guard.fetchval("select pg_try_advisory_xact_lock($1)", _LOCK):
                return
            async with self._pool.acquire() as conn:
                await self._calls(conn)
                await events.sweep_deltas(conn)
                await model_leases.sweep(conn)
                await self._threads(conn)
                await stop_orphans(self._client, conn)

    async def _threads(self, conn: Connection) -> None:
        open_threads = await runs.threads_with_open_runs(conn)
        if not open_threads:
            return
        running: set[str] = set()
        query = f"WorkflowType = '{AGENT_WORKFLOW}' AND ExecutionStatus = 'Running'"
        async for found in self._client.list_workflows(query):
            running.add(found.id)
        for tenant, thread, writer in open_threads:
            workflow_id = workflow_id_for(tenant, thread)
            if workflow_id in running:
                continue
            status = await status_of(self._client, workflow_id)
            if status == WorkflowExecutionStatus.RUNNING:
                continue
            row = await threads.find(conn, tenant, thread)
            if row is None:
                continue
            why = ended_by_a_person(status)
            if why is not None:
                stopped = await stop_begun(conn, row.id, why)
                await tell_parents(self._client, conn, [run_id for run_id, _ in stopped])
            if await runs.open_of_thread(conn, row.id):
                log.warning("a thread has work and no workflow: starting it", thread=workflow_id, writer=writer)
                await self._client.start_workflow(
                    AGENT_WORKFLOW,
                    ThreadStart(),
                    id=workflow_id,
                    task_queue=self._settings.task_queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    task_timeout=timedelta(seconds=self._settings.scaled(self._settings.task_timeout)),
                )

    async def _calls(self, conn: Connection) -> None:
        """Settle calls in flight of runs that have ended: what was never sent failed, what was sent is in doubt."""
        for row in await ledger.left_behind(conn, self._settings.scaled(self._settings.lease)):
            async with conn.transaction():
                if not row["sent"]:
                    await ledger.fail_unsent(conn, row["key"], row["fence"], "its run ended before it was sent")
                elif await ledger.doubt(conn, row["key"], row["fence"], "its run ended while it was under way"):
                    await events.emit(
                        conn,
                        str(row["run_id"]),
                        "in_doubt",
                        step=row["step_no"],
                        tool=row["tool"],
                        why="its run ended while it was under way",
                    )
