"""Runs and the definitions they run under. Activities write them, the client and the sweeper read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from holdfast.contracts import AgentDefinition, Begun, Budget, Message, Run, RunState
from holdfast.ids import run_ids_from, storable
from holdfast.memory import definitions, family
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries
from holdfast.memory.threads import tokens_of

__all__ = [
    "OpenThread",
    "add_usage",
    "agent",
    "agent_names",
    "answer_text",
    "begin",
    "brief",
    "by_id",
    "definition",
    "end",
    "find",
    "has_ended",
    "has_open",
    "insert",
    "known_agents",
    "listing",
    "lock",
    "lock_all",
    "merge",
    "of_message",
    "open_of_thread",
    "open_threads",
    "publish_agent",
    "queues_of_agent",
    "resume",
    "set_state",
    "user_body",
]

_Q = queries("runs")


class OpenThread(NamedTuple):
    """A thread with work."""

    id: int
    tenant: str
    thread: str
    writer: str | None
    task_queue: str | None  # where it was worked on last


async def _runs(conn: Connection, rows: Sequence[asyncpg.Record]) -> list[Run]:
    """Return runs as the workflow holds them. A thousand may share one definition: it is not sent with each row."""
    known = await definitions.several(conn, {row["definition"] for row in rows if row["definition"]})
    return [_run(row, known.get(row["definition"] or "")) for row in rows]


def _run(row: asyncpg.Record, body: AgentDefinition | None) -> Run:
    return Run(
        run_id=str(row["run_id"]),
        message_id=row["message_id"],
        agent=row["agent"],
        definition=row["definition"] or "",
        budget=Budget.model_validate_json(row["budget"]) if row["budget"] else body.budget if body else Budget(),
        memory=body.memory if body else False,
        mode=row["mode"],
        notify=row["notify"],
        begun=row["started_at"] is not None,
        rounds=row["rounds"],
        steps=row["steps"],
        tokens=row["tokens"],
        cost_usd=float(row["cost_usd"]),
        unpriced=row["unpriced"],
        parent=str(row["parent_run_id"]) if row["parent_run_id"] else None,
        depth=row["depth"],
    )


async def open_of_thread(conn: Connection, thread_id: int) -> list[Run]:
    """Return the runs not ended: the one under way first, then the queued in order of acceptance."""
    return await _runs(conn, await conn.fetch(_Q["open_of_thread"], thread_id))


async def has_open(conn: Connection, thread_id: int) -> bool:
    """Whether a run of the thread has not ended."""
    found: bool = await conn.fetchval(_Q["has_open"], thread_id)
    return found


async def of_message(conn: Connection, run_id: str) -> tuple[Run, RunState] | None:
    """Return a run as the workflow holds it, with its state."""
    row = await conn.fetchrow(_Q["of_message"], run_id)
    return None if row is None else ((await _runs(conn, [row]))[0], RunState(row["state"]))


def user_body(text: str) -> str:
    """Return the JSON of a user's message, as it is stored and sent to the model."""
    return json.dumps({"role": "user", "content": text}, ensure_ascii=False)


async def insert(
    conn: Connection,
    thread_id: int,
    run_id: str,
    message: Message,
    *,
    body: str | None,
    order: int | None,
    definition: str | None,
    refused: str | None = None,
    budget: Budget | None = None,
    parent: asyncpg.Record | None = None,
    parent_step: int | None = None,
) -> None:
    """Store an accepted message and its run; with *refused*, the run ends there. *body* is that of `user_body`.

    *parent* is the row of the run that asks for it, if one does, in its step *parent_step*.
    """
    stored = None
    if body is not None:
        stored = await conn.fetchval(_Q["insert_message"], thread_id, run_id, body, tokens_of(body))
    state = RunState.REFUSED if refused else RunState.QUEUED
    await conn.execute(
        _Q["insert"],
        run_id,
        thread_id,
        message.message_id,
        stored,
        order,
        message.agent,
        definition,
        message.mode,
        state,
        message.notify,
        refused,
        budget.model_dump_json() if budget is not None else None,
        parent["run_id"] if parent is not None else None,
        (parent["root_run_id"] or parent["run_id"]) if parent is not None else None,
        parent_step,
        parent["depth"] + 1 if parent is not None else 0,
    )


async def lock(conn: Connection, run_id: str) -> asyncpg.Record | None:
    """Lock a run's row: run_id, state, message, started_at, agent, and seq of its message (None: not placed)."""
    return await conn.fetchrow(_Q["lock"], run_id)


async def lock_all(conn: Connection, run_ids: Sequence[str]) -> None:
    """Lock the rows of several runs, in one statement however many they are."""
    await conn.execute(_Q["lock_all"], run_ids)


async def has_ended(conn: Connection, run_id: str) -> bool:
    """Whether a run has ended; one that is not known has not."""
    found: bool = await conn.fetchval(_Q["has_ended"], run_id)
    return found


async def begin(conn: Connection, run_id: str, scope: str, base: Begun) -> None:
    """Mark a run as running under an effect scope, with what it begins from there."""
    await conn.execute(_Q["begin"], run_id, scope, base.model_dump_json())


async def merge(conn: Connection, run_id: str, into: str) -> None:
    """End a steering message's own run: it joined another."""
    await conn.execute(_Q["merge"], run_id, into)


async def set_state(conn: Connection, run_id: str, state: RunState) -> None:
    """Set the state of a run that has not ended."""
    await conn.execute(_Q["set_state"], run_id, state)


async def resume(conn: Connection, run_id: str) -> None:
    """Mark a waiting run as running, if nothing of it waits for a person any more.

    Of two transactions that end its last two doubts at the same time, the later one sees what the earlier one did.
    """
    await conn.execute(_Q["hold"], run_id)
    await conn.execute(_Q["resume"], run_id)


async def add_usage(
    conn: Connection, run_id: str, tokens_in: int, tokens_out: int, cost_usd: float | None, rounds: int = 0
) -> None:
    """Add a model call to a run, and what was spent to the runs above it. *cost_usd* is None where it is not known."""
    unpriced = int(cost_usd is None)
    await conn.execute(_Q["add_usage"], run_id, tokens_in, tokens_out, cost_usd or 0, rounds, unpriced)
    await family.spend(conn, run_id, tokens_in + tokens_out, cost_usd or 0, unpriced)


async def end(
    conn: Connection, run_id: str, state: RunState, *, error: str | None, answer_seq: int | None, steps: int
) -> bool:
    """End a run; False when it had ended before."""
    said = storable(error) if error is not None else None  # a provider's or a tool's own words
    status: str = await conn.execute(_Q["end"], run_id, state, said, answer_seq, steps)
    return status.endswith(" 1")


async def by_id(conn: Connection, run_id: str) -> asyncpg.Record | None:
    """Return a run's row with tenant, thread and writer."""
    return await conn.fetchrow(_Q["by_id"], run_id)


async def find(conn: Connection, tenant: str, prefix: str) -> list[str]:
    """Return up to two of the tenant's run ids that begin with *prefix*: one means it is unambiguous."""
    between = run_ids_from(prefix)
    return (
        [] if between is None else [str(row["run_id"]) for row in await conn.fetch(_Q["by_prefix"], *between, tenant)]
    )


async def listing(
    conn: Connection, tenant: str, *, state: str | None = None, thread: str | None = None, limit: int = 50
) -> list[asyncpg.Record]:
    """Return the tenant's runs, newest first."""
    return await conn.fetch(_Q["listing"], tenant, state, thread, limit)


async def brief(conn: Connection, run_ids: list[str]) -> list[asyncpg.Record]:
    """Return state, tokens and cost with those of its children, end and error of these runs, those there are."""
    return await conn.fetch(_Q["brief"], run_ids)


async def answer_text(conn: Connection, run_id: str) -> str | None:
    """Return the text of a run's answer."""
    body = await conn.fetchval(_Q["answer"], run_id)
    return None if body is None else str(json.loads(body).get("content") or "")


async def message_text(conn: Connection, run_id: str) -> str | None:
    """Return the text of the message that a run answers."""
    body = await conn.fetchval(_Q["text"], run_id)
    return None if body is None else str(json.loads(body).get("content") or "")


async def definition(conn: Connection, digest: str) -> AgentDefinition | None:
    """Return a stored definition by its hash."""
    return await definitions.one(conn, digest)


async def agent(conn: Connection, name: str, queue: str) -> tuple[str, AgentDefinition] | None:
    """Return (hash, definition) that a new run of this agent gets on the task queue *queue*."""
    digest = await conn.fetchval(_Q["agent"], name, queue)
    body = await definitions.one(conn, digest) if digest is not None else None
    return None if body is None else (digest, body)


async def known_agents(conn: Connection, queue: str) -> dict[str, AgentDefinition]:
    """Return what the workers of the task queue *queue* have published, by name."""
    rows = await conn.fetch(_Q["known_agents"], queue)
    known = await definitions.several(conn, {row["definition"] for row in rows})
    return {row["name"]: known[row["definition"]] for row in rows}


async def agent_names(conn: Connection, queue: str) -> list[str]:
    """Return the names of what these workers have published, in order; their definitions may be large."""
    return [row["name"] for row in await conn.fetch(_Q["known_agents"], queue)]


async def queues_of_agent(conn: Connection, name: str) -> list[str]:
    """Return the task queues whose workers have published an agent of this name."""
    return [row["task_queue"] for row in await conn.fetch(_Q["queues_of_agent"], name)]


async def publish_agent(conn: Connection, body: AgentDefinition, digest: str, queue: str) -> None:
    """Make *body* what new runs of this agent get on the task queue *queue*."""
    await conn.execute(_Q["put_definition"], digest, body.model_dump_json())
    await conn.execute(_Q["publish_agent"], body.name, digest, queue)


async def open_threads(conn: Connection, after: int, limit: int) -> list[OpenThread]:
    """Return the next threads, by id, with a run that has not ended."""
    return [OpenThread(**row) for row in await conn.fetch(_Q["open_threads"], after, limit)]
