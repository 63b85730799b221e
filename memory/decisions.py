"""Approvals as PostgreSQL mirrors them, and the audit of every word a person said. History is the record itself."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from holdfast.contracts import RefusedWord
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = [
    "Audited",
    "ask",
    "audit",
    "audit_of_run",
    "audited",
    "decide",
    "edited_args",
    "judged",
    "of_run",
    "refuse",
    "said",
    "void",
]

_Q = queries("decisions")
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def ask(
    conn: Connection, run_id: str, step_no: int, call_id: str, *, tool: str, args_hash: str, policy: str
) -> bool:
    """Mirror a pending approval; False when it was there already."""
    status: str = await conn.execute(_Q["ask"], run_id, step_no, call_id, tool, args_hash, policy)
    return status.endswith(" 1")


async def said(
    conn: Connection, run_id: str, step_no: int, call_id: str, *, args_hash: str, policy: str, seq: int
) -> asyncpg.Record | None:
    """Return state, args (edited, JSON text), decision_id and reason of the decision of this very call, if it had one.

    Its slot, *seq*, tells it from a call that an earlier chain made at this step of the run.
    """
    return await conn.fetchrow(_Q["said"], run_id, step_no, call_id, args_hash, policy, seq)


async def decide(
    conn: Connection,
    run_id: str,
    step_no: int,
    state: Literal["approved", "rejected"],
    *,
    args: str | None,
    decision_id: str,
    call_id: str,
) -> bool:
    """Mirror a decision; *args* is the JSON text of edited arguments. False: no approval of this call is pending."""
    status: str = await conn.execute(_Q["decide"], run_id, step_no, state, args, decision_id, call_id)
    return status.endswith(" 1")


async def void(conn: Connection, *run_ids: str) -> None:
    """Withdraw what is still pending of runs: they have ended, or their workflow is no more."""
    await conn.execute(_Q["void"], run_ids)


async def edited_args(conn: Connection, run_id: str, step_no: int) -> str | None:
    """Return the JSON text of the arguments that a person put in place of the model's."""
    args: str | None = await conn.fetchval(_Q["edited"], run_id, step_no)
    return args


async def of_run(conn: Connection, run_id: str) -> list[asyncpg.Record]:
    """Return the approvals of a run, in order of their steps."""
    return await conn.fetch(_Q["of_run"], run_id)


async def audit(
    conn: Connection,
    decision_id: str,
    *,
    run_id: str | None,
    step_no: int | None,
    action: str,
    actor: str | None,
    verified: bool = False,
    accepted: bool,
    detail: dict[str, Any],
) -> bool:
    """Write the audit row of a word that was judged, once per decision id; False when it stands already.

    The row of a word that a thread refused under this id, maybe just now, is kept under an id of its own.
    """
    text = json.dumps(detail, ensure_ascii=False, default=str)
    row = (decision_id, run_id, step_no, action, actor, verified, accepted, text)
    if await _written(conn, "audit", *row):
        return True
    return await _written(conn, "free", decision_id) and await _written(conn, "audit", *row)


async def _written(conn: Connection, name: str, *args: Any) -> bool:
    status: str = await conn.execute(_Q[name], *args)
    return status.endswith(" 1")


@dataclass(frozen=True, slots=True)
class Audited:
    """The audit row of a decision."""

    accepted: bool
    detail: dict[str, Any]
    run_id: str | None
    step_no: int | None
    action: str

    def about(self, run_id: str, step_no: int, seq: int | None = None) -> bool:
        """Whether it is a decision on this call, and not on another one under the same id.

        *seq*, the call's slot, tells it from a call that an earlier chain made at this step of the run.
        """
        return (self.run_id, self.step_no) == (run_id, step_no) and self.detail.get("seq", seq) in (seq, None)


async def audited(conn: Connection, decision_id: str) -> Audited | None:
    """Return the audit row of a decision that was carried out or refused, or None while it is under way."""
    row = await conn.fetchrow(_Q["audited"], decision_id)
    if row is None:
        return None
    run_id = str(row["run_id"]) if row["run_id"] is not None else None
    return Audited(row["accepted"], json.loads(row["detail"]), run_id, row["step_no"], row["action"])


async def judged(conn: Connection, decision_id: str) -> Audited | None:
    """Return the audit row of a decision that an activity has judged.

    None also for a word that its thread refused before any activity had it: sent again under that id, it may count.
    """
    row = await audited(conn, decision_id)
    return None if row is None or "refused" in row.detail else row


async def refuse(conn: Connection, word: RefusedWord) -> None:
    """Write the audit row of a word that a thread refused, once; under its own id if that is free."""
    known = word.run_id is not None and _RUN_ID.fullmatch(word.run_id) is not None
    detail = {"why": word.why, "refused": word.id, **word.about} | ({} if known else {"run_id": word.run_id})
    row = (word.run_id if known else None, word.step_no, word.action, word.actor, False, False)
    for decision_id in (word.decision_id or word.id, word.id):
        fresh = await _written(conn, "audit", decision_id, *row, json.dumps(detail, ensure_ascii=False))
        before = None if fresh else await audited(conn, decision_id)
        if before is None or before.detail.get("refused") == word.id:  # now, or by an attempt before this one
            return


async def audit_of_run(conn: Connection, run_id: str) -> list[asyncpg.Record]:
    """Return what people said about a run, in order."""
    return await conn.fetch(_Q["audit_of_run"], run_id)
