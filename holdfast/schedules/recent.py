"""Joins what Temporal knows of a schedule's last firings with the runs that came of them. Only the desk calls it."""

from __future__ import annotations

import re
from datetime import datetime

from temporalio.client import ScheduleActionExecutionStartWorkflow as _Started
from temporalio.client import ScheduleActionResult, ScheduleInfo

from holdfast.ids import occurrence_thread, run_id_for
from holdfast.memory import runs
from holdfast.memory.database import Connection
from holdfast.schedules.views import Occurrence

__all__ = ["occurrences"]

_LOST = "no run came of it: the workflow {} says why, in the Temporal Web UI"
_APPENDED = re.compile(r"-(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)$")


async def occurrences(
    conn: Connection, tenant: str, name: str, spoken: list[str], seen: bool, info: ScheduleInfo
) -> list[Occurrence]:
    """Return the last occurrences, oldest first, each with its run as far as PostgreSQL knows it.

    *spoken* are the threads that all of them may be on; *seen*: what is under way is among the running actions.
    """
    found = [(result, *_places(tenant, name, spoken, result)) for result in info.recent_actions]
    rows = {str(row["run_id"]): row for row in await runs.brief(conn, [key for *_, places in found for key in places])}
    under_way = {each.workflow_id for each in info.running_actions if isinstance(each, _Started)}
    out = []
    for result, workflow_id, moment, places in found:
        run_id = next((key for key in places if key in rows), next(iter(places), None))
        row = rows.get(run_id or "")
        lost = row is None and workflow_id not in under_way and seen
        out.append(
            Occurrence(
                scheduled_at=moment,
                started_at=result.started_at,
                workflow_id=workflow_id,
                run_id=run_id,
                thread=places.get(run_id or ""),
                state=row["state"] if row is not None else "lost" if lost else "accepted",
                tokens=row["tokens"] if row is not None else 0,
                cost_usd=float(row["cost_usd"]) if row is not None else 0.0,
                unpriced=row["unpriced"] if row is not None else 0,
                ended_at=row["ended_at"] if row is not None else None,
                error=row["error"] if row is not None else _LOST.format(workflow_id) if lost else None,
            )
        )
    return out


def _places(
    tenant: str, name: str, spoken: list[str], result: ScheduleActionResult
) -> tuple[str, datetime, dict[str, str]]:
    """Return workflow id, the time it was scheduled for, and {run id: thread} where its run may be found.

    A schedule may have been changed from a thread for each to one for all, or back.
    """
    action = result.action
    workflow_id = action.workflow_id if isinstance(action, _Started) else ""
    appended = _APPENDED.search(workflow_id)
    moment = datetime.fromisoformat(appended[1]) if appended else result.scheduled_at
    threads = [*spoken, occurrence_thread(name, moment)]
    return workflow_id, moment, {run_id_for(tenant, place, workflow_id): place for place in threads}
