"""Ends the runs of a workflow that a person ended in Temporal, and those that nobody waits for any more.

Admission and the sweeper call it: the first to look.
"""

from __future__ import annotations

from contextlib import suppress

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHistoryEventFilterType
from temporalio.service import RPCError, RPCStatusCode

from holdfast.contracts import RunState, StopRequest
from holdfast.ids import workflow_id_for
from holdfast.memory import chores, decisions, events, family, runs, threads
from holdfast.memory.database import Connection

__all__ = ["ended_by_a_person", "execution_ended", "status_of", "stop_begun", "stop_orphans", "tell_parents"]

_ORPHANS = "orphans"  # name of the chore
_BY_A_PERSON = (WorkflowExecutionStatus.TERMINATED, WorkflowExecutionStatus.CANCELED)


async def status_of(client: Client, workflow_id: str) -> WorkflowExecutionStatus | None:
    """Return the status of a workflow's newest execution, or None if Temporal knows none."""
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).status
    except RPCError as exc:
        if exc.status == RPCStatusCode.NOT_FOUND:
            return None
        raise


def ended_by_a_person(status: WorkflowExecutionStatus | None) -> str | None:
    """Say how, if the status is one that only a person brings about."""
    return f"{status.name.lower()} in Temporal" if status is not None and status in _BY_A_PERSON else None


async def execution_ended(client: Client, workflow_id: str, run_id: str) -> str | None:
    """Say how a person ended this execution, or the last one that it continued as; None if nobody did.

    Raises:
        RPCError: Temporal cannot tell just now.

    """
    while True:
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            status = (await handle.describe()).status
            if status != WorkflowExecutionStatus.CONTINUED_AS_NEW:
                return ended_by_a_person(status)
            history = await handle.fetch_history(event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT)
        except RPCError as exc:
            if exc.status == RPCStatusCode.NOT_FOUND:  # its history is no longer kept: it ended long ago
                return None
            raise
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id


async def stop_begun(conn: Connection, thread_id: int, why: str, *, writer: str) -> list[tuple[str, int]]:
    """Stop what such a workflow worked on; what was queued behind goes on. Return (run id, event number) of each.

    Nothing is stopped if the thread is no longer *writer*'s: what has begun since then is another workflow's work.
    """
    news = []
    async with conn.transaction():
        if not await threads.lock_while_written_by(conn, thread_id, writer):
            return []
        for run in await runs.open_of_thread(conn, thread_id):
            if not run.begun:
                continue
            await runs.lock(conn, run.run_id)
            await threads.fill_interrupted(conn, thread_id, run.run_id)
            await decisions.void(conn, run.run_id)
            if await runs.end(conn, run.run_id, RunState.STOPPED, error=why, answer_seq=None, steps=run.steps):
                seq = await events.emit(
                    conn,
                    run.run_id,
                    "ended",
                    state=RunState.STOPPED.value,
                    error=why,
                    answer_seq=None,
                    tokens=run.tokens,
                    cost_usd=run.cost_usd,
                    **({"unpriced": run.unpriced} if run.unpriced else {}),
                    rounds=run.rounds,
                    steps=run.steps,
                )
                news.append((run.run_id, seq))
    return news


async def tell_parents(client: Client, conn: Connection, run_ids: list[str]) -> None:
    """Tell whoever waits for runs that were ended here: their own workflows, which would have, are no more."""
    for run_id in run_ids:
        row = await runs.by_id(conn, run_id)
        if row is not None and row["notify"] is not None:
            with suppress(RPCError):  # who asked may be gone, and looks by itself
                await client.get_workflow_handle(row["notify"]).signal("ended", run_id)


async def stop_orphans(client: Client, conn: Connection, limit: int) -> None:
    """Stop runs whose asker has ended: it was terminated, or its own word to them got lost.

    The next *limit* of them each time: those that cannot be stopped do not hide the others.
    """
    cursor = await chores.take(conn, _ORPHANS, 0)
    found = await family.orphans(conn, cursor or None, limit)
    await chores.move(conn, _ORPHANS, found[-1].run_id if len(found) == limit else "")
    for orphan in found:
        word = StopRequest(run_id=orphan.run_id, reason=f"run {orphan.parent[:8]}, which asked for it, has ended")
        with suppress(RPCError):  # it has no workflow: a later sweep starts one, and its next model step says so
            await client.get_workflow_handle(workflow_id_for(orphan.tenant, orphan.thread)).signal("stop", word)
