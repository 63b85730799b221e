"""Carries out a person's word on a call in doubt, with its audit row, in one transaction.

The activity `resolve_effect` calls it for a run under way, the client for a run whose workflow is no more.
"""

from __future__ import annotations

from holdfast.contracts import PREVIEW, Resolution, Resolved, ToolOutcome
from holdfast.memory import decisions, events, ledger, runs, threads
from holdfast.memory.database import Connection

__all__ = ["resolve_step"]


async def resolve_step(
    conn: Connection, *, tenant: str, thread: str, run_id: str, resolution: Resolution
) -> tuple[Resolved, int | None]:
    """Return (whether it was carried out, the number of the event written). Call it inside a transaction.

    The same decision id is carried out once: again, it answers as it did.
    """
    decision_id = resolution.decision_id or f"{run_id}:{resolution.step_no}:{resolution.outcome}"
    said = await decisions.audited(conn, decision_id)
    row = await ledger.find(conn, run_id, resolution.step_no)
    if said is not None:
        accepted, detail = said
        return Resolved(accepted=accepted, why=detail.get("why")), None
    if row is None:
        settled = ledger.Settled(False, f"run {run_id} has no step {resolution.step_no} in the ledger")
    else:
        word = resolution.outcome
        text = resolution.result if resolution.result is not None else "done"
        outcome = ToolOutcome(status="done", preview=text[:PREVIEW], bytes=len(text.encode()))
        settled = await ledger.resolve(conn, row["key"], word, outcome.model_dump(mode="json"))
        if settled.accepted and word == "done":
            await _fill(conn, tenant, thread, run_id, resolution.step_no, text)
    detail = {"outcome": resolution.outcome, "result": resolution.result, "why": settled.why}
    await decisions.audit(
        conn,
        decision_id,
        run_id=run_id,
        step_no=resolution.step_no,
        action="resolve",
        actor=resolution.actor,
        accepted=settled.accepted,
        detail=detail,
    )
    seq = None
    if settled.accepted:
        await runs.resume(conn, run_id)
        seq = await events.emit(
            conn,
            run_id,
            "resolved",
            step=resolution.step_no,
            outcome=resolution.outcome,
            actor=resolution.actor,
        )
    return Resolved(accepted=settled.accepted, why=settled.why), seq


async def _fill(conn: Connection, tenant: str, thread: str, run_id: str, step_no: int, text: str) -> None:
    """Put what a person reports into the call's slot, unless it was interrupted meanwhile."""
    slot = await threads.slot_of_step(conn, tenant, thread, run_id, step_no)
    if slot is not None:
        await threads.fill_slot(conn, slot[0], slot[1], slot[2], text)
