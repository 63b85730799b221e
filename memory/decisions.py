"""Approvals as PostgreSQL mirrors them, and the audit of every word a person said. History is the record itself."""

from __future__ import annotations

import json
from typing import Any, Literal

import asyncpg

from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = ["ask", "audit", "audit_of_run", "audited", "decide", "edited_args", "of_run", "said", "void"]

_Q = queries("decisions")


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
) -> None:
    """Mirror a decision; *args* is the JSON text of edited arguments."""
    await conn.execute(_Q["decide"], run_id, step_no, state, args, decision_id)


async def void(conn: Connection, run_id: str) -> None:
    """Withdraw what is still pending of a run: it has ended."""
    await conn.execute(_Q["void"], run_id)


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
    """Write an audit row, once per decision id; False when it stands already."""
    text = json.dumps(detail, ensure_ascii=False, default=str)
    status: str = await conn.execute(_Q["audit"], decision_id, run_id, step_no, action, actor, verified, accepted, text)
    return status.endswith(" 1")


async def audited(conn: Connection, decision_id: str) -> tuple[bool, dict[str, Any]] | None:
    """Return (accepted, detail) of a decision that was carried out or refused, or None while it is under way."""
    row = await conn.fetchrow(_Q["audited"], decision_id)
    return None if row is None else (row["accepted"], json.loads(row["detail"]))


async def audit_of_run(conn: Connection, run_id: str) -> list[asyncpg.Record]:
    """Return what people said about a run, in order."""
    return await conn.fetch(_Q["audit_of_run"], run_id)
