"""From what a tool returned to its slot in the thread: stored whole, passed on trimmed, committed with its row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.activities.deps import Deps, Here
from holdfast.advice import edited_note
from holdfast.contracts import PREVIEW, ToolOutcome, ToolStep
from holdfast.ids import storable
from holdfast.memory import decisions, events, ledger, threads
from holdfast.memory.database import Connection
from holdfast.memory.ledger import Step
from holdfast.plugins.host import Note
from holdfast.secrets import mask

__all__ = ["Outcome", "commit_outcome", "commit_pure", "emit_notes", "fill", "recorded_outcome", "shown"]


@dataclass(slots=True)
class Outcome:
    """What a tool call came to, as text for the model."""

    text: str
    status: Literal["done", "error", "abandoned"] = "done"
    seconds: float = 0.0
    notes: Sequence[Note] = field(default_factory=tuple)  # what plugins did to it
    raw: bytes = b""  # the text in UTF-8

    def __post_init__(self) -> None:
        self.text = mask(storable(self.text))  # an exception may quote a file name, or what was in a file
        self.raw = self.text.encode()

    @classmethod
    async def of(cls, text: str, **more: Any) -> Outcome:
        """Make one of what a tool returned or raised, a long one in a thread: masking megabytes holds no loop up."""
        return cls(text, **more) if len(text) < _LONG else await asyncio.to_thread(cls, text, **more)

    def contract(self) -> ToolOutcome:
        """Return it as the workflow gets it: a preview and a size."""
        return ToolOutcome(status=self.status, preview=self.text[:PREVIEW], bytes=len(self.raw))


_LONG = 64 * 1024  # characters


def shown(text: str) -> str:
    """Return an exception's words as they are shown: masked, and no more of them than anybody reads."""
    return mask(text[:_LONG])[: _LONG // 4]


_READERS = ("result_page", "result_search", "result_select")


def _trimmed(raw: bytes, limit: int, blob: str, readers: list[str]) -> str:
    """Return head and tail of a long text, with a note that says where the whole of it is, and what reads it."""
    half = limit // 2
    head = raw[:half].decode("utf-8", "ignore")
    tail = raw[-half:].decode("utf-8", "ignore")
    how = f", for {', '.join(readers)}" if readers else ""
    note = f"[… {len(raw) - 2 * half:,} of {len(raw):,} bytes left out here; stored whole as {blob}{how} …]"
    return f"{head}\n\n{note}\n\n{tail}"


async def fill(conn: Connection, deps: Deps, at: Here, inp: ToolStep, outcome: Outcome) -> int | None:
    """Fill the call's slot and write the event, in the caller's transaction; return the event's number.

    None: another workflow execution owns the thread now, or the slot was filled before; nothing was written.
    """
    thread = await threads.hold_for_writer(conn, at.tenant, at.thread, inp.writer, inp.scope)
    if thread is None:
        return None
    content, blob = outcome.text, None
    if len(outcome.raw) > deps.settings.result_inline:
        blob = f"result-{inp.run_id}-{inp.step_no}"
        await threads.put_blob(conn, at.tenant, outcome.raw, blob_id=blob)
        agent = deps.definitions.get(inp.definition)  # read before the call; not here, amid a transaction
        readers = [tool.name for tool in agent.tools if tool.name in _READERS] if agent is not None else []
        content = _trimmed(outcome.raw, deps.settings.result_inline, blob, readers)
    if inp.edited:  # the model's own message has its arguments; it must not report those as what was done
        args = await decisions.edited_args(conn, inp.run_id, inp.step_no) or ""
        content = edited_note(args) + content
    if not await threads.fill_slot(conn, thread.id, inp.seq, inp.call_id, content, blob=blob):
        return None
    await emit_notes(conn, inp.run_id, inp.step_no, outcome.notes)
    return await events.emit(
        conn,
        inp.run_id,
        "tool_done",
        step=inp.step_no,
        call_id=inp.call_id,
        tool=inp.tool,
        status=outcome.status,
        preview=outcome.text[:200],
        bytes=len(outcome.raw),
        seconds=round(outcome.seconds, 3),
    )


async def emit_notes(conn: Connection, run_id: str, step_no: int, notes: Sequence[Note]) -> int | None:
    """Say in a run's record what plugins did, in the caller's transaction; return the last event's number."""
    seq = None
    for note in notes:
        seq = await events.emit(
            conn, run_id, "plugin", step=step_no, plugin=note.plugin, hook=note.hook, did=note.did, why=note.why
        )
    return seq


async def commit_outcome(deps: Deps, at: Here, inp: ToolStep, outcome: Outcome) -> ToolOutcome:
    """Fill the slot of a call that never reached the ledger, or that a person settled there."""
    async with deps.pool.acquire() as conn, conn.transaction():
        seq = await fill(conn, deps, at, inp, outcome)
    if seq is not None:
        deps.notifier.poke(inp.run_id, seq)
    return outcome.contract()


async def recorded_outcome(deps: Deps, at: Here, inp: ToolStep, key: str, result: dict[str, Any]) -> ToolOutcome:
    """Return the outcome that the ledger has, and see to it that the model reads it.

    After a Reset the same step may come again under a new reply of the model, whose slot is still open.
    """
    outcome = ToolOutcome.model_validate(result)
    seq = None
    async with deps.pool.acquire() as conn, conn.transaction():
        thread = await threads.hold_for_writer(conn, at.tenant, at.thread, inp.writer, inp.scope)
        if thread is not None and await threads.message_at(conn, thread.id, inp.seq) is None:
            content, blob = await threads.recorded_result(conn, key) or (outcome.preview, None)
            if await threads.fill_slot(conn, thread.id, inp.seq, inp.call_id, content, blob=blob):
                seq = await events.emit(
                    conn,
                    inp.run_id,
                    "tool_done",
                    step=inp.step_no,
                    call_id=inp.call_id,
                    tool=inp.tool,
                    status=outcome.status,
                    preview=content[:200].replace("\x00", ""),
                    bytes=outcome.bytes,
                    seconds=0.0,
                )
    if seq is not None:
        deps.notifier.poke(inp.run_id, seq)
    return outcome


async def commit_pure(deps: Deps, at: Here, inp: ToolStep, step: Step, outcome: Outcome) -> ToolOutcome:
    """Commit a pure step: whoever is first is right, a later attempt gets the first one's outcome."""
    result = outcome.contract()
    async with deps.pool.acquire() as conn:
        async with conn.transaction():
            seq = None
            if await ledger.record_pure(conn, step, at.owner, result.model_dump(mode="json")):
                seq = await fill(conn, deps, at, inp, outcome)
                if seq is not None:
                    deps.notifier.poke(inp.run_id, seq)
                return result
        done = await ledger.stored(conn, step.key)
    return await recorded_outcome(deps, at, inp, step.key, done[0]) if done is not None else result
