"""Runs that ask other runs: who is above, who below, what a tree has spent. Activities, client and sweeper use it."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from holdfast.contracts import OPEN_STATES, Budget, Owner
from holdfast.memory import definitions
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = [
    "Orphan",
    "above",
    "budget_in_usd",
    "children",
    "give_scope",
    "hand_over",
    "handed_over",
    "objection",
    "orphans",
    "owner",
    "spend",
    "waiting",
]

_Q = queries("family")


@dataclass(frozen=True, slots=True)
class Orphan:
    """An open run whose asker has ended."""

    run_id: str
    parent: str
    tenant: str
    thread: str


async def above(conn: Connection, run_id: str) -> list[asyncpg.Record]:
    """Return the run and all above it, nearest first: run_id, agent, state, budget, and what each tree has spent."""
    return await conn.fetch(_Q["above"], run_id)


async def objection(conn: Connection, run_id: str) -> tuple[bool, str] | None:
    """Say why a run should make no further model call: (over budget, or else to be stopped; in words). None: it may.

    Its own budget binds for all that it asked others to do, and that of each run above it binds as well.
    """
    for row in await above(conn, run_id):
        own = str(row["run_id"]) == run_id
        name = "this run" if own else f"run {str(row['run_id'])[:8]} ({row['agent']}), which asked for this one"
        if row["state"] not in OPEN_STATES:
            return False, f"{name}{'' if own else ','} is {row['state']}"
        if row["budget"] is None:
            continue
        budget = Budget.model_validate_json(row["budget"])
        if budget.tokens is not None and row["tokens"] >= budget.tokens:
            said = f"{row['tokens']} of {budget.tokens} tokens"
        elif budget.usd is not None and row["cost_usd"] >= budget.usd and (budget.usd > 0 or row["cost_usd"] > 0):
            said = f"{row['cost_usd']:.4f} of {budget.usd:.4f} USD"
        else:
            continue
        return True, f"over budget: {said} of {name} are used{', sub-agents included' if row['shared'] else ''}"
    return None


async def budget_in_usd(conn: Connection, run_id: str) -> tuple[str, float] | None:
    """Return whose budget in USD a run's calls are paid from, and how much it is: its own, or the nearest above."""
    for row in await above(conn, run_id):
        budget = Budget.model_validate_json(row["budget"]) if row["budget"] is not None else Budget()
        if budget.usd is not None:
            return row["agent"], budget.usd
    return None


async def spend(conn: Connection, run_id: str, tokens: int, cost_usd: float, unpriced: int = 0) -> None:
    """Add to what all runs above *run_id* have had spent below them. After the run's own row, before any event."""
    await conn.execute(_Q["spend"], run_id, tokens, cost_usd, unpriced)


async def children(conn: Connection, run_id: str) -> list[asyncpg.Record]:
    """Return the runs that a run has asked for, in order of its steps, as a listing has them."""
    return await conn.fetch(_Q["children"], run_id)


async def waiting(conn: Connection, run_id: str) -> list[asyncpg.Record]:
    """Return the calls of a run, and of those below it, that wait for a person, nearest first."""
    return await conn.fetch(_Q["waiting"], run_id)


async def owner(conn: Connection, run_id: str) -> Owner | None:
    """Return whose a run is now, as a workflow needs it."""
    row = await conn.fetchrow(_Q["owner"], run_id)
    if row is None:
        return None
    body = await definitions.one(conn, row["definition"])
    if body is None:
        return None
    budget = Budget.model_validate_json(row["budget"]) if row["budget"] else body.budget
    return Owner(agent=row["agent"], definition=row["definition"], budget=budget, memory=body.memory)


async def hand_over(conn: Connection, thread_id: int, run_id: str, owner: Owner) -> None:
    """Let the run under way, and those queued behind it, be another agent's. The run's own budget stays."""
    await conn.execute(
        _Q["hand_over"], thread_id, run_id, owner.agent, owner.definition, owner.budget.model_dump_json()
    )


async def handed_over(conn: Connection, thread_id: int, agent: str) -> bool:
    """Whether *agent* has handed this thread's conversation over."""
    moved: bool = await conn.fetchval(_Q["handed_over"], thread_id, agent)
    return moved


async def give_scope(conn: Connection, thread_id: int, scope: str) -> None:
    """Bind a thread's effects to the step that asked for it; once for ever."""
    await conn.execute(_Q["give_scope"], thread_id, scope)


async def orphans(conn: Connection, after: str | None, limit: int) -> list[Orphan]:
    """Return the next *limit* open runs, by id, whose asker has ended."""
    return [
        Orphan(str(row["run_id"]), str(row["parent_run_id"]), row["tenant"], row["thread"])
        for row in await conn.fetch(_Q["orphans"], after, limit)
    ]
