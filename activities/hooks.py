"""Where plugins meet the steps: what a hook is told, what its word becomes, and the record of it.

Each hook stands before the transaction that makes its step true, so what is on record is never shown to one again, and
a step that died in a hook begins anew. See `holdfast/plugins/contract.py` for what plugins may do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast import llm
from holdfast.activities.calls import ToolAttempt
from holdfast.activities.deps import Deps, Here
from holdfast.activities.outcome import Outcome, emit_notes
from holdfast.advice import DO_NOT_REPEAT
from holdfast.contracts import AgentDefinition, Message, ModelStep, StepRef
from holdfast.errors import Refused
from holdfast.ids import canonical_json, run_id_for, storable
from holdfast.llm import ModelRequest, ToolCallRequest
from holdfast.llm.models import assistant_message
from holdfast.memory import runs, threads
from holdfast.memory.database import Connection
from holdfast.plugins.contract import AskedCall, At, ModelCall, Reply, ToolCall, ToolResult
from holdfast.plugins.host import Note

__all__ = [
    "Heard",
    "Seen",
    "Sent",
    "hear",
    "placed",
    "see_call",
    "see_reply",
    "see_request",
    "see_result",
    "undo_change",
]

_NEAR = 100  # messages
_NOTHING_LEFT = "(plugins left nothing of this reply)"  # many providers refuse a conversation with an empty message

Change = dict[str, Any]
"""How a request differs from what the thread makes it: ranges of its messages that stay, hashes of those put in."""


def _at(at: Here, step: StepRef, agent: str) -> At:
    return At(
        tenant=at.tenant,
        thread=at.thread,
        run_id=step.run_id,
        agent=agent,
        step_no=step.step_no,
        attempt=at.attempt,
        parent=at.parent,
    )


async def placed(deps: Deps, at: Here, step: StepRef) -> Here:
    """Return where a step is with the run that asked for it: a thread with a scope was opened by another run's step."""
    if not step.scope or not deps.hooks.plugins:
        return at
    async with deps.pool.acquire() as conn:
        run = await runs.by_id(conn, step.run_id)
    asked = run["parent_run_id"] if run is not None else None
    return at if asked is None else replace(at, parent=str(asked))


async def _tell(deps: Deps, step: StepRef, notes: Sequence[Note]) -> None:
    """Write notes down that no step will: the one they belong to fails."""
    async with deps.pool.acquire() as conn, conn.transaction():
        seq = await emit_notes(conn, step.run_id, step.step_no, notes)
    if seq is not None:
        deps.notifier.poke(step.run_id, seq)


# ---------------------------------------------------------------------------------------------------------- messages


@dataclass(frozen=True, slots=True)
class Heard:
    """A message as plugins let it pass; or why not."""

    text: str | None
    refused: str | None = None
    notes: list[Note] = field(default_factory=list)


async def hear(deps: Deps, at: Here, message: Message, text: str, parent: str | None) -> Heard:
    """Show a message to plugins before it is stored."""
    notes: list[Note] = []
    place = At(
        tenant=at.tenant,
        thread=at.thread,
        run_id=run_id_for(at.tenant, at.thread, message.message_id),
        agent=message.agent,
        attempt=at.attempt,
        parent=parent,
    )
    try:
        said = storable(await deps.hooks.message(place, text, notes))
    except Refused as exc:
        return Heard(f"({exc})", str(exc), notes)
    size = len(said.encode())
    if size > deps.settings.text_max:
        why = f"plugins made {size} bytes of the message, {deps.settings.text_max} are allowed"
        return Heard(f"({why})", why, notes)
    return Heard(said, None, notes)


# ------------------------------------------------------------------------------------------------------------ models


@dataclass(slots=True)
class Sent:
    """A request as it is sent, and how plugins changed it."""

    request: ModelRequest
    notes: list[Note] = field(default_factory=list)
    change: Change | None = None
    parts: dict[str, str] = field(default_factory=dict)  # JSON of messages put in, by hash

    async def store(self, conn: Connection, tenant: str, thread_id: int) -> None:
        """Keep what plugins put in: each message once, however often it is sent."""
        for digest, text in self.parts.items():
            await threads.put_blob(conn, tenant, text.encode(), blob_id=_part(thread_id, digest))


def _part(thread_id: int, digest: str) -> str:
    return f"sent-{thread_id}-{digest}"


async def see_request(deps: Deps, at: Here, inp: ModelStep, agent: str, request: ModelRequest) -> Sent:
    """Show a request to plugins before it is sent.

    Raises:
        Refused: it shall not be sent.

    """
    sent = Sent(request)
    if not deps.hooks.has("before_model"):
        return sent
    names = [tool["function"]["name"] for tool in request.tools]
    call = ModelCall(model=request.model, messages=request.messages, tools=names)
    try:
        made = await deps.hooks.before_model(_at(at, inp, agent), call, sent.notes)
    except Refused:
        await _tell(deps, inp, sent.notes)
        raise
    if made is not call:
        messages = await asyncio.to_thread(_as_stored, made.messages)
        tools = [tool for tool in request.tools if tool["function"]["name"] in made.tools]
        change, sent.parts = await asyncio.to_thread(_difference, request.messages, messages)
        if len(tools) < len(request.tools):
            change["tools"] = [tool["function"]["name"] for tool in tools]
        sent.change = change
        sent.request = replace(request, messages=messages, tools=tools)
    return sent


def _as_stored(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(storable(json.dumps(messages, ensure_ascii=False)))
    return found


def _difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> tuple[Change, dict[str, str]]:
    """Return ranges [first, end] of messages that stay and hashes of those put in, with what the hashes stand for."""
    old, new = [canonical_json(each) for each in before], [canonical_json(each) for each in after]
    ops: list[list[int] | str] = []
    parts: dict[str, str] = {}
    once = Counter(old)
    only = {text: index for index, text in enumerate(old) if once[text] == 1}
    at = 0
    for text, message in zip(new, after, strict=True):
        # The nearest that is equal, not the best way: difflib takes minutes for a long talk that repeats itself.
        found = next((index for index in range(at, min(at + _NEAR, len(old))) if old[index] == text), None)
        if found is None and only.get(text, -1) >= at:  # far ahead, where what lies between was left out
            found = only[text]
        if found is None:
            put_in = json.dumps(message, ensure_ascii=False)
            digest = hashlib.sha256(put_in.encode()).hexdigest()[:32]
            ops.append(digest)
            parts[digest] = put_in
            continue
        if ops and isinstance(ops[-1], list) and ops[-1][1] == found:
            ops[-1][1] += 1
        else:
            ops.append([found, found + 1])
        at = found + 1
    return {"messages": ops}, parts


async def undo_change(
    conn: Connection, tenant: str, thread_id: int, request: ModelRequest, change: Change
) -> ModelRequest | None:
    """Return the request that was sent in place of what the thread makes it; None if a part of it is gone."""
    messages: list[dict[str, Any]] = []
    for op in change["messages"]:
        if isinstance(op, list):
            messages += request.messages[op[0] : op[1]]
            continue
        data = await threads.get_blob(conn, tenant, _part(thread_id, op))
        if data is None:
            return None
        messages.append(json.loads(data))
    kept = change.get("tools")
    tools = [tool for tool in request.tools if kept is None or tool["function"]["name"] in kept]
    return replace(request, messages=messages, tools=tools)


@dataclass(slots=True)
class Seen:
    """A reply as it is stored. `withheld` says why it is not what the model said."""

    reply: llm.ModelReply
    asks: set[str] = field(default_factory=set)  # ids of calls that a person is to approve
    withheld: str | None = None


async def see_reply(
    deps: Deps, at: Here, inp: ModelStep, definition: AgentDefinition, reply: llm.ModelReply, notes: list[Note]
) -> Seen:
    """Show a reply to plugins before it is stored. It is paid for: whatever they say, it is recorded and counted."""
    if not (deps.hooks.has("after_model") or deps.hooks.has("answer")):
        return Seen(reply)
    place = _at(at, inp, definition.name)
    said = Reply(
        text=reply.text,
        calls=[AskedCall(id=call.id, name=call.name, arguments=call.arguments) for call in reply.tool_calls],
    )
    try:
        made = await deps.hooks.after_model(place, said, notes)
        if not made.calls and made.text:
            answer = await deps.hooks.answer(place, made.text, notes)
            made = replace(made, text=answer)
    except Refused as exc:
        text = f"(withheld: {exc})"
        return Seen(replace(reply, message=assistant_message(text, []), text=text, tool_calls=[]), withheld=str(exc))
    asks = {call.id for call in made.calls if call.ask}
    if made == said:
        return Seen(reply)
    shown = storable(made.text) if made.text is not None else None
    if not made.calls and not (shown or "").strip():
        shown = _NOTHING_LEFT
    calls = [ToolCallRequest(id=call.id, name=call.name, arguments=storable(call.arguments)) for call in made.calls]
    return Seen(replace(reply, message=assistant_message(shown, calls), text=shown, tool_calls=calls), asks)


# ------------------------------------------------------------------------------------------------------------- tools


async def see_call(attempt: ToolAttempt) -> Outcome | None:
    """Show a call to plugins before it is sent; return what the model reads in place of a result if it shall not be."""
    deps, at, step = attempt.deps, attempt.at, attempt.inp
    if not deps.hooks.has("before_tool"):
        return None
    call = ToolCall(tool=step.tool, args=attempt.args, effect=step.effect, idempotency_key=attempt.step.key)
    notes: list[Note] = []
    try:
        await deps.hooks.before_tool(_at(at, step, attempt.agent), call, notes)
    except Refused as exc:
        return Outcome(f"error: {step.tool} was not called: {exc}", status="error", notes=notes)
    if notes:
        await _tell(deps, step, notes)
    return None


async def see_result(attempt: ToolAttempt, outcome: Outcome) -> Outcome:
    """Show what a call came to to plugins before it is stored."""
    deps, at, step = attempt.deps, attempt.at, attempt.inp
    if not deps.hooks.has("after_tool"):
        return outcome
    result = ToolResult(tool=step.tool, args=attempt.args, text=outcome.text, error=outcome.status == "error")
    notes: list[Note] = []
    text, status = outcome.text, outcome.status
    try:
        text = await deps.hooks.after_tool(_at(at, step, attempt.agent), result, notes)
    except Refused as exc:
        what = "it failed, and why" if status == "error" else "it is done, and its result"
        text, status = f"error: {step.tool} was called; {what} is withheld: {exc}. {DO_NOT_REPEAT}", "error"
    if text is outcome.text:
        outcome.notes = notes
        return outcome
    return await Outcome.of(text, status=status, seconds=outcome.seconds, notes=notes)
