"""Thread context: the conversation, its one writer, its slots for tool results. Activities call it in a transaction."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from holdfast.errors import StaleWriter
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = [
    "INTERRUPTED",
    "Entry",
    "ThreadRow",
    "Written",
    "append",
    "at",
    "call_arguments",
    "claim",
    "count_of_run",
    "drop_blob",
    "fill_interrupted",
    "fill_slot",
    "find",
    "get_blob",
    "get_blobs",
    "hold_for_writer",
    "lock_for_writer",
    "lock_while_written_by",
    "message_at",
    "own",
    "page",
    "place",
    "put_blob",
    "queue_with_work",
    "recorded_result",
    "set_window",
    "sizes",
    "slot_of_step",
    "take_order",
    "tokens_of",
    "window",
    "written_by",
]

INTERRUPTED = "interrupted: the run ended before this call did. Its outcome is not known here."

_LARGE = 16_000  # tokens of a window that is parsed in a thread
_Q = queries("threads")


class Written(NamedTuple):
    """Who wrote to a thread last: a chain of workflow executions, and the latest of them, where that is known."""

    writer: str
    execution: str | None


@dataclass(slots=True)
class ThreadRow:
    """A thread locked for its writer until the transaction ends."""

    id: int
    agent: str | None
    last_seq: int
    window_from: int
    before: Written | None = None  # set: the thread was another writer's until now
    scope: str = ""
    execution: str | None = None  # set: who appends is this execution, and the thread's row remembers it
    queue: str | None = None  # where it was worked on last


@dataclass(frozen=True, slots=True)
class Entry:
    """One message in its place. body is None while a slot waits for its tool."""

    seq: int
    role: str
    run_id: str
    call_id: str | None
    body: dict[str, Any] | None
    tokens: int


def tokens_of(text: str) -> int:
    """Estimate the tokens of *text*: four bytes each, the usual rule for English, plus the message's frame."""
    return len(text.encode()) // 4 + 4


async def claim(
    conn: Connection,
    tenant: str,
    thread: str,
    writer: str,
    started: datetime,
    *,
    execution: str,
    queue: str,
    create: bool,
) -> ThreadRow | None:
    """Lock the thread for *writer*, of which *execution* is the present one; None when there is none and not *create*.

    *queue* is the task queue of that execution: a sweeper starts the thread there again.

    Raises:
        StaleWriter: a workflow execution that started later owns the thread.

    """
    if create:
        await conn.execute(_Q["ensure"], tenant, thread)
    row = await conn.fetchrow(_Q["lock"], tenant, thread)
    if row is None:
        return None
    before = Written(row["writer"], row["execution"]) if row["writer"] not in (None, writer) else None
    if before is not None and row["writer_started"] > started:
        raise StaleWriter(f"thread {thread}: a newer workflow execution than {writer} owns it")
    if (row["writer"], row["execution"], row["task_queue"]) != (writer, execution, queue):
        await conn.execute(_Q["claim"], row["id"], writer, started, execution, queue)
    return ThreadRow(
        row["id"], row["agent"], row["last_seq"], row["window_from"], before, row["scope"] or "", execution
    )


async def written_by(conn: Connection, tenant: str, thread: str) -> tuple[Written, bool] | None:
    """Return who wrote to a thread last, and whether a run there has begun and not ended; None if nobody has."""
    row = await conn.fetchrow(_Q["writer"], tenant, thread)
    if row is None or row["writer"] is None:
        return None
    return Written(row["writer"], row["execution"]), row["begun"]


async def lock_while_written_by(conn: Connection, thread_id: int, writer: str) -> bool:
    """Lock the thread unless another writer has claimed it meanwhile."""
    return await conn.fetchval(_Q["lock_while_written_by"], thread_id, writer) is not None


async def own(conn: Connection, thread: ThreadRow, agent: str) -> None:
    """Let *agent* own a thread that nobody owned."""
    await conn.execute(_Q["own"], thread.id, agent)
    thread.agent = agent


async def hold_for_writer(conn: Connection, tenant: str, thread: str, writer: str, scope: str = "") -> ThreadRow | None:
    """Keep *writer* the thread's writer until the transaction ends; None when it is not. Does not block other holders.

    For filling slots: several tools of one round may complete at the same time. Where another run gave the thread its
    *scope*, any chain of that scope may.
    """
    row = await conn.fetchrow(_Q["hold_for_writer"], tenant, thread, writer, scope or None)
    return None if row is None else ThreadRow(row["id"], None, row["last_seq"], row["window_from"])


async def find(conn: Connection, tenant: str, thread: str) -> ThreadRow | None:
    """Return a thread as it stands, unlocked."""
    row = await conn.fetchrow(_Q["find"], tenant, thread)
    if row is None:
        return None
    return ThreadRow(row["id"], row["agent"], row["last_seq"], row["window_from"], queue=row["task_queue"])


async def queue_with_work(conn: Connection, tenant: str, thread: str) -> str | None:
    """Return the task queue on which the thread has runs that have not ended; None if it has none, or none is known."""
    queue: str | None = await conn.fetchval(_Q["queue_with_work"], tenant, thread)
    return queue


async def lock_for_writer(
    conn: Connection, tenant: str, thread: str, writer: str, execution: str | None = None
) -> ThreadRow:
    """Lock the thread for an append; *execution* is remembered with it.

    Raises:
        StaleWriter: *writer* does not own the thread (any more).

    """
    row = await conn.fetchrow(_Q["lock_for_writer"], tenant, thread, writer)
    if row is None:
        raise StaleWriter(f"thread {thread}: workflow execution {writer} does not own it")
    return ThreadRow(row["id"], None, row["last_seq"], row["window_from"], execution=execution)


async def append(
    conn: Connection,
    thread: ThreadRow,
    *,
    run_id: str,
    step_no: int | None,
    role: str,
    body: dict[str, Any] | None,
    call_id: str | None = None,
    tokens: int | None = None,
) -> int:
    """Append a message, or with body None a slot, and return its seq."""
    text = None if body is None else json.dumps(body, ensure_ascii=False)
    if tokens is None and text is not None:
        tokens = tokens_of(text)
    thread.last_seq += 1
    await conn.execute(_Q["append"], thread.id, thread.last_seq, run_id, step_no, role, call_id, text, tokens, None)
    await conn.execute(_Q["set_last_seq"], thread.id, thread.last_seq, thread.execution)
    return thread.last_seq


async def place(conn: Connection, thread: ThreadRow, message: int) -> int:
    """Give an accepted message its place at the end of the thread and return its seq."""
    await conn.execute(_Q["place"], message, thread.last_seq + 1)
    thread.last_seq += 1
    await conn.execute(_Q["set_last_seq"], thread.id, thread.last_seq, thread.execution)
    return thread.last_seq


async def fill_slot(
    conn: Connection, thread_id: int, seq: int, call_id: str, content: str, *, blob: str | None = None
) -> bool:
    """Put a tool's result into its slot; False when something stands there already."""
    body = json.dumps({"role": "tool", "tool_call_id": call_id, "content": content}, ensure_ascii=False)
    status: str = await conn.execute(_Q["fill_slot"], thread_id, seq, body, tokens_of(body), blob)
    return status.endswith(" 1")


async def fill_interrupted(conn: Connection, thread_id: int, run_id: str | None = None) -> int:
    """Fill open slots (of one run, or of all) with `interrupted`; return how many there were."""
    if run_id is None:
        rows = await conn.fetch(_Q["open_slots"], thread_id)
    else:
        rows = await conn.fetch(_Q["open_slots_of_run"], thread_id, run_id)
    for row in rows:
        await fill_slot(conn, thread_id, row["seq"], row["call_id"], INTERRUPTED)
    return len(rows)


async def window(conn: Connection, thread_id: int, from_seq: int, to_seq: int | None = None) -> list[Entry]:
    """Return the messages from *from_seq* on (up to *to_seq*), in order."""
    rows = await conn.fetch(_Q["window"], thread_id, from_seq, to_seq)
    if sum(row["tokens"] or 0 for row in rows) > _LARGE:  # the loop renews leases meanwhile
        return await asyncio.to_thread(_entries, rows)
    return _entries(rows)


def _entries(rows: list[asyncpg.Record]) -> list[Entry]:
    return [
        Entry(
            row["seq"],
            row["role"],
            str(row["run_id"]),
            row["call_id"],
            json.loads(row["body"]) if row["body"] is not None else None,
            row["tokens"] or 0,
        )
        for row in rows
    ]


async def count_of_run(conn: Connection, run_id: str, role: str) -> int:
    """Return how many messages of this role a run has in its thread; not for role `assistant`, which has no index."""
    value: int = await conn.fetchval(_Q["count_of_run"], run_id, role)
    return value


async def sizes(conn: Connection, thread_id: int, from_seq: int) -> list[tuple[int, str, int]]:
    """Return (seq, role, tokens) of the messages from *from_seq* on, in order."""
    return [(row["seq"], row["role"], row["tokens"]) for row in await conn.fetch(_Q["sizes"], thread_id, from_seq)]


async def set_window(conn: Connection, thread_id: int, from_seq: int) -> None:
    """Send the model messages from *from_seq* on."""
    await conn.execute(_Q["set_window"], thread_id, from_seq)


async def message_at(conn: Connection, thread_id: int, seq: int) -> dict[str, Any] | None:
    """Return the JSON of one message, or None if its slot is open or there is none."""
    row = await conn.fetchrow(_Q["message_at"], thread_id, seq)
    if row is None or row["body"] is None:
        return None
    body: dict[str, Any] = json.loads(row["body"])
    return body


async def at(conn: Connection, thread_id: int, seqs: list[int]) -> dict[int, asyncpg.Record]:
    """Return (seq, role, body, blob) of the messages in these places, by place; body is JSON text, None while open."""
    return {row["seq"]: row for row in await conn.fetch(_Q["at"], thread_id, seqs)}


async def call_arguments(conn: Connection, tenant: str, thread: str, slot: int, call_id: str) -> str | None:
    """Return the JSON text of a call's arguments, from the model's message before its slot."""
    row = await find(conn, tenant, thread)
    body = await conn.fetchval(_Q["asking"], row.id, slot) if row is not None else None
    for call in json.loads(body).get("tool_calls", []) if body else []:
        if call["id"] == call_id:
            return str(call["function"]["arguments"])
    return None


async def recorded_result(conn: Connection, key: str) -> tuple[str, str | None] | None:
    """Return (content, blob) of the slot that a ledger row's call filled, or None."""
    row = await conn.fetchrow(_Q["recorded_result"], key)
    return None if row is None else (str(json.loads(row["body"])["content"]), row["blob"])


async def slot_of_step(
    conn: Connection, tenant: str, thread: str, run_id: str, step_no: int
) -> tuple[int, int, str] | None:
    """Return (thread id, seq, call id) of the open slot of a step, or None."""
    row = await conn.fetchrow(_Q["slot_of_step"], tenant, thread, run_id, step_no)
    return None if row is None else (row["thread_id"], row["seq"], row["call_id"])


async def take_order(conn: Connection, thread_id: int) -> int:
    """Return the next number in the thread's order of acceptance."""
    value: int = await conn.fetchval(_Q["take_order"], thread_id)
    return value


async def page(conn: Connection, tenant: str, thread: str, after: int = 0, limit: int = 200) -> list[dict[str, Any]]:
    """Return messages with a seq above *after*, as they are shown to a person: seq, role, run_id, body, blob, at."""
    return [
        {
            "seq": row["seq"],
            "role": row["role"],
            "run_id": str(row["run_id"]),
            "body": json.loads(row["body"]) if row["body"] is not None else None,
            "blob": row["blob"],
            "at": row["created_at"],
        }
        for row in await conn.fetch(_Q["page"], tenant, thread, after, limit)
    ]


async def put_blob(conn: Connection, tenant: str, data: bytes, *, blob_id: str | None = None) -> str:
    """Store a large value and return the id it is named by."""
    name = blob_id or uuid.uuid4().hex
    await conn.execute(_Q["put_blob"], name, tenant, len(data), data)
    return name


async def get_blob(conn: Connection, tenant: str, blob_id: str) -> bytes | None:
    """Return a large value of this tenant, or None."""
    data: bytes | None = await conn.fetchval(_Q["get_blob"], blob_id, tenant)
    return data


async def get_blobs(conn: Connection, tenant: str, blob_ids: list[str]) -> dict[str, bytes]:
    """Return those of these large values of the tenant that there are, by id."""
    return {row["id"]: row["body"] for row in await conn.fetch(_Q["get_blobs"], blob_ids, tenant)}


async def drop_blob(conn: Connection, tenant: str, blob_id: str) -> None:
    """Remove a large value that has found its place elsewhere."""
    await conn.execute(_Q["drop_blob"], blob_id, tenant)
