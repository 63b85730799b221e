"""Finds what nobody works on any more and sets it going, or settles it. Each agent worker has one; one works.

Every pass is bounded: it looks at the next `sweep_threads` threads with work, and each `collect_every` seconds at the
next `collect_batch` rows of what nothing needs any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from holdfast.activities.endings import ended_by_a_person, status_of, stop_begun, stop_orphans, tell_parents
from holdfast.contracts import AGENT_WORKFLOW, ThreadStart
from holdfast.ids import workflow_id_for
from holdfast.memory import chores, events, ledger, model_leases, model_refusals, runs
from holdfast.memory.database import UNAVAILABLE, Connection, Pool
from holdfast.memory.runs import OpenThread
from holdfast.settings import Settings

__all__ = ["Sweeper"]

log = structlog.get_logger(__name__)

_SWEEP, _COLLECT = "sweep", "collect"  # names of the chores
_AWAY = (  # said by a Temporal that is away, restarting or overloaded; all else is about the one thread
    RPCStatusCode.CANCELLED,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.UNKNOWN,
)
_AT_ONCE = 20  # questions to Temporal
_DUE = 0.9  # of its interval, after which a chore may be taken again: the same worker's next look is never too early


class Sweeper:
    """Looks every `sweep_every` seconds: runs without a workflow, calls without a worker, rows that nothing needs."""

    def __init__(self, settings: Settings, pool: Pool, client: Client) -> None:
        self._settings = settings
        self._pool = pool
        self._client = client
        self._every = settings.scaled(settings.sweep_every)

    async def serve(self) -> None:
        """Sweep until cancelled. An outage only makes the next sweep later."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.sweep()
                await self.collect()
            except (*UNAVAILABLE, RPCError) as exc:
                log.info("sweep put off", error=str(exc))
            except Exception:  # one row that cannot be dealt with must not end the sweeping
                log.exception("sweep failed")

    async def sweep(self) -> None:
        """Look once, unless another worker has looked within `sweep_every`."""
        async with self._pool.acquire() as conn:
            cursor = await chores.take(conn, _SWEEP, _DUE * self._every)
            if cursor is None:
                return
            await self._calls(conn)
            await model_leases.sweep(conn)
            await model_refusals.sweep(conn)
            limit = self._settings.sweep_threads
            rows = await runs.open_threads(conn, int(cursor or 0), limit)
            if len(rows) < limit and cursor:  # the rest from the beginning: few threads are all looked at each time
                rows += [row for row in await runs.open_threads(conn, 0, limit - len(rows)) if row.id <= int(cursor)]
            await chores.move(conn, _SWEEP, str(rows[-1].id) if rows else "")
        await self._threads(rows)
        async with self._pool.acquire() as conn:
            await stop_orphans(self._client, conn, self._settings.sweep_threads)

    async def _threads(self, rows: list[OpenThread]) -> None:
        """Go on with threads that have work and no workflow.

        Temporal is asked about each: a listing of all that runs lags behind, and takes seconds for thousands.
        """
        turn = asyncio.Semaphore(_AT_ONCE)

        async def status(row: OpenThread) -> WorkflowExecutionStatus | Exception | None:
            async with turn:
                try:
                    return await status_of(self._client, workflow_id_for(row.tenant, row.thread))
                except Exception as exc:
                    if isinstance(exc, RPCError) and exc.status in _AWAY:
                        raise
                    return exc

        try:
            async with asyncio.TaskGroup() as group:
                found = [(row, group.create_task(status(row))) for row in rows]
        except* RPCError as refused:
            raise refused.exceptions[0] from None
        for row, state in ((row, task.result()) for row, task in found):
            if state == WorkflowExecutionStatus.RUNNING:
                continue
            try:
                if isinstance(state, Exception):
                    raise state
                async with self._pool.acquire() as conn:
                    await self._go_on(conn, row, ended_by_a_person(state))
            except UNAVAILABLE:
                raise
            except Exception as exc:  # one thread that cannot be dealt with must not keep the others waiting
                if isinstance(exc, RPCError) and exc.status in _AWAY:
                    raise
                log.exception("a thread could not be checked by the sweep", thread=f"{row.tenant}:{row.thread}"[:300])

    async def _go_on(self, conn: Connection, row: OpenThread, why: str | None) -> None:
        workflow_id = workflow_id_for(row.tenant, row.thread)
        if why is not None and row.writer is not None:
            # Its writer was read before Temporal was asked: if a next workflow has come meanwhile, nothing is stopped.
            stopped = await stop_begun(conn, row.id, why, writer=row.writer)
            await tell_parents(self._client, conn, [run_id for run_id, _ in stopped])
        if await runs.has_open(conn, row.id):
            log.warning("a thread has work and no workflow: starting it", thread=workflow_id, writer=row.writer)
            await self._client.start_workflow(
                AGENT_WORKFLOW,
                ThreadStart(),
                id=workflow_id,
                task_queue=row.task_queue or self._settings.task_queue,  # another fleet's code is not here
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=timedelta(seconds=self._settings.scaled(self._settings.task_timeout)),
            )

    async def _calls(self, conn: Connection) -> None:
        """Settle calls in flight of runs that have ended: what was never sent failed, what was sent is in doubt."""
        for row in await ledger.left_behind(conn, self._settings.scaled(self._settings.lease)):
            try:
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
            except UNAVAILABLE:
                raise
            except Exception:  # one call that cannot be settled must not keep the others waiting, nor the threads
                log.exception("a call cannot be settled", key=row["key"], run_id=str(row["run_id"]))

    async def collect(self) -> None:
        """Remove what nothing needs any more, unless a worker has done so within `collect_every`."""
        settings = self._settings
        async with self._pool.acquire() as conn:
            cursor = await chores.take(conn, _COLLECT, settings.collect_every)
            if cursor is None:
                return
            blobs = await _alone("blobs", _collect_blobs(conn, cursor, settings))
            late = await _alone(
                "late_outcomes",
                chores.collect_late_outcomes(conn, settings.keep_late_outcomes, settings.collect_batch),
            )
            deltas = await _alone("deltas", chores.collect_deltas(conn, settings.keep_deltas, settings.collect_batch))
        if blobs or late or deltas:
            log.info("deleted rows that are no longer needed", blobs=blobs, late_outcomes=late, deltas=deltas)


async def _collect_blobs(conn: Connection, cursor: str, settings: Settings) -> int:
    at, gone = await chores.collect_blobs(conn, cursor, settings.keep_blobs, settings.collect_batch)
    await chores.move(conn, _COLLECT, at)
    return gone


async def _alone(table: str, work: Awaitable[int]) -> int:
    """Return how many rows a part of the cleanup has deleted. One that fails must not keep the others from theirs."""
    try:
        return await work
    except UNAVAILABLE as exc:
        log.info("a part of the cleanup is put off", table=table, error=str(exc))
    except Exception:
        log.exception("rows that are no longer needed could not be deleted", table=table)
    return 0
