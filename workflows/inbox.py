"""What reaches a thread's workflow from outside, checked before it is taken: who is meant, and is it still pending."""

from __future__ import annotations

import json
import math
from typing import Any

from holdfast.contracts import Call, Carry, Decision, Message, Resolution, Run, StopRequest
from holdfast.errors import DecisionRefused, InvalidInput, ThreadFull
from holdfast.ids import run_id_for

__all__ = [
    "BATCH",
    "ELSEWHERE",
    "KNOWN_KEPT",
    "TEXT_INLINE",
    "check_decision",
    "check_message",
    "check_resolution",
    "check_room",
    "check_stop",
    "check_turn",
    "decided_by",
    "find_doubt",
    "find_pending",
    "find_run",
    "remember_known",
    "resolved_by",
]

# Constants of the workflow's code, not settings: they must be the same on every worker, and on a replay.
TEXT_INLINE = 2048  # bytes of UTF-8; a Temporal client outside Python counts the same
KNOWN_KEPT = 500  # message ids remembered here; Postgres knows all of them
ELSEWHERE = "ThreadElsewhere"  # the type of a refusal; `holdfast.sending` knows it, and is not imported here
BATCH = 50  # messages stored at once; a payload over 2 MB would end the workflow, also after an hour without a database
ROOM = 1000  # messages that may wait: all of them travel in one payload when the workflow rolls over
ROOM_BYTES = 1024 * 1024  # of their ids and texts, for the same reason
LONGEST_WORD = 128 * 1024  # bytes of a person's word, which travels in payloads
NAME = 1000  # bytes of an id or a name that Temporal takes (its limit.maxIDLength)
LABEL = 256  # bytes of an id that is only ours; an index of PostgreSQL takes 2,704
DEEPEST = 100  # JSON within JSON; parsers and databases end at some depth, each at another


def check_message(message: Message) -> None:
    """Refuse what no agent could answer.

    Raises:
        InvalidInput: the text is empty, too long to travel in a workflow history, or an id cannot be stored.

    """
    _check_word("message_id", message.message_id, 4 * LABEL, least=1, one_line=True)
    _check_word("agent", message.agent, 2 * LABEL, least=1, one_line=True)
    _check_word("text_ref", message.text_ref, NAME, least=1, one_line=True)
    _check_word("notify", message.notify, NAME, least=1, one_line=True)
    _check_word("queue", message.queue, NAME, least=1, one_line=True)
    if message.text is not None:
        if not message.text.strip():
            raise InvalidInput("the message is empty: send some text")
        size = _check_word("text", message.text, 16 * LONGEST_WORD)
        if size > TEXT_INLINE:
            raise InvalidInput(
                f"the text has {size} bytes, {TEXT_INLINE} may travel inline: store it first and send text_ref"
            )


def check_room(carry: Carry, message: Message) -> None:
    """Refuse a new message while too many wait.

    Raises:
        ThreadFull: it would not fit into what the workflow carries over.

    """
    if message.message_id in carry.known:
        return
    waiting: list[Message | Run] = [*carry.inbox, *carry.queue]
    if len(waiting) >= ROOM or sum(map(_weight, [*waiting, message])) > ROOM_BYTES:
        raise ThreadFull(
            f"{len(waiting)} messages are already waiting on this thread: send the message later, or on another thread"
        )


def _weight(message: Message | Run) -> int:
    words = [message.message_id, message.agent, message.notify or ""]
    if isinstance(message, Message):
        words += [message.text or "", message.text_ref or ""]
    return 400 + sum(len(word.encode()) for word in words)


def _check_word(what: str, word: str | None, most: int, *, least: int = 0, one_line: bool = False) -> int:
    """Return the bytes of a word; refuse what Temporal or PostgreSQL would refuse each time it is tried.

    Raises:
        InvalidInput: it is too long or too short, or has what neither can hold.

    """
    if word is None:
        return 0
    if "\0" in word:
        raise InvalidInput(f"{what} contains a NUL character: is it a binary file?")
    try:
        size = len(word.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} contains half of a surrogate pair, which is not a character: remove it") from None
    if size > most or size < least:
        raise InvalidInput(
            f"{what} has {size:,} bytes, but {least:,} to {most:,} are allowed: change it and send it again"
        )
    if one_line and any(char < " " for char in word):
        raise InvalidInput(f"{what} contains a control character: remove it")
    return size


def _check_json(value: Any, depth: int = 0) -> None:
    """Refuse JSON that cannot be stored, or that means something else to each program that reads it.

    Raises:
        InvalidInput: a number that is none, a text that no database holds, or too many levels.

    """
    if depth > DEEPEST:
        raise InvalidInput(f"the arguments are nested more than {DEEPEST} levels deep: make them flatter")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"the arguments contain {value}, which JSON cannot represent: send a finite number")
    if isinstance(value, str):
        _check_word("a text in the arguments", value, LONGEST_WORD)
    elif isinstance(value, dict):
        for name, each in value.items():
            _check_word("a name in the arguments", name, LONGEST_WORD)
            _check_json(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _check_json(each, depth + 1)


def check_decision(decision: Decision) -> None:
    """Refuse a decision that could not be written down, whatever it is about.

    Raises:
        InvalidInput: a word or an argument cannot be stored; the message says which.

    """
    _check_ids(decision)
    size = _check_word("reason", decision.reason, LONGEST_WORD)
    if decision.args is not None:
        _check_json(decision.args)
        try:
            size += len(json.dumps(decision.args, ensure_ascii=False).encode())
        except ValueError as exc:  # an integer of thousands of digits
            raise InvalidInput(f"the arguments cannot be written as JSON: {exc}") from None
    if size > LONGEST_WORD:
        raise InvalidInput(f"reason and arguments have {size:,} bytes, but {LONGEST_WORD:,} are allowed: shorten them")


def check_resolution(word: Resolution) -> None:
    """Refuse a resolution that could not be written down, whatever it is about.

    Raises:
        InvalidInput: a word cannot be stored; the message says which.

    """
    _check_ids(word)
    _check_word("result", word.result, LONGEST_WORD)


def check_stop(request: StopRequest) -> None:
    """Refuse a stop whose words could not be written down.

    Raises:
        InvalidInput: a word cannot be stored; the message says which.

    """
    _check_ids(request)
    _check_word("reason", request.reason, LONGEST_WORD)


def _check_ids(word: Decision | Resolution | StopRequest) -> None:
    _check_word("run_id", word.run_id, LABEL)
    _check_word("actor", word.actor, NAME)
    _check_word("decision_id", word.decision_id, LABEL)
    if isinstance(word, Decision):
        _check_word("call_id", word.call_id, LABEL)


def check_turn(carry: Carry, tenant: str, thread: str, run_id: str | None) -> None:
    """Refuse a word on a run whose turn has not come: nothing of it can wait for a person yet.

    Raises:
        DecisionRefused: it is in the queue, or the thread is being taken up by a new workflow.

    """
    if not carry.opened:
        raise DecisionRefused("the workflow of this thread is just starting: try again in a moment")
    waiting = [run.run_id for run in carry.queue]
    waiting += [run_id_for(tenant, thread, message.message_id) for message in carry.inbox] if run_id else []
    if run_id is not None and run_id in waiting:
        raise DecisionRefused(f"run {run_id} has not started yet: none of its calls waits for a decision")


def remember_known(carry: Carry, message_id: str) -> None:
    """Keep the ids of the latest messages, so that a repeat costs nothing."""
    carry.known.append(message_id)
    del carry.known[:-KNOWN_KEPT]


def find_run(carry: Carry, run_id: str | None) -> Run:
    """Return the run that is meant: the named one, or the one under way.

    Raises:
        InvalidInput: this thread works on no such run.

    """
    runs = ([carry.current] if carry.current else []) + carry.queue
    if run_id is None:
        if carry.current is None:
            raise InvalidInput("no run is under way on this thread")
        return carry.current
    for run in runs:
        if run.run_id == run_id:
            return run
    raise InvalidInput(f"run {run_id} is not under way on this thread: it has ended, or belongs to another thread")


def find_pending(carry: Carry, decision: Decision) -> Call:
    """Return the one call that a decision is about. It is named by its step: ids that a model gave name nothing here.

    Raises:
        DecisionRefused: none is pending, it was decided already, or the decision must say which one it means.

    """
    run = carry.current
    if run is None or (decision.run_id is not None and run.run_id != decision.run_id):
        raise DecisionRefused("no approval is pending for that run: it has ended, or belongs to another thread")
    pending = [call for call in run.calls if call.state == "approval"]
    names = ", ".join(f"{call.step_no} ({call.tool})" for call in pending[:20])
    if decision.call_id is not None:
        for call in run.calls:
            if decision.call_id == str(call.step_no):
                if call.state == "approval":
                    return call
                raise DecisionRefused(f"call {call.step_no} is not pending: it has already been decided")
        raise DecisionRefused(
            f"run {run.run_id} has no call {decision.call_id}: give its step number. Pending: {names or 'none'}"
        )
    if len(pending) == 1:
        return pending[0]
    if not pending:
        raise DecisionRefused("no approval is pending on this thread")
    raise DecisionRefused(f"{len(pending)} approvals are pending: give the step number in call_id. Pending: {names}")


def decided_by(carry: Carry, decision: Decision) -> Call | None:
    """Return the call that has this very decision in hand, if it comes again under its id; None for a word without id.

    A client sends it again after an answer that was lost; Temporal knows update ids only until the workflow rolls over.
    """
    word = decision.model_copy(update={"verified": False})
    calls = carry.current.calls if carry.current and word.decision_id is not None else []
    return next((call for call in calls if call.pending == word), None)


def resolved_by(carry: Carry, word: Resolution) -> Call | None:
    """Return the call that has this very resolution in hand, if it comes again under its id."""
    calls = carry.current.calls if carry.current and word.decision_id is not None else []
    return next((call for call in calls if call.resolution == word), None)


def find_doubt(carry: Carry, word: Resolution) -> Call:
    """Return the call in doubt that a resolution is about, or one that is under way.

    Of a call under way the ledger may know already that it is in doubt: it judges the word.

    Raises:
        DecisionRefused: that step is neither, or the word does not fit it.

    """
    run = carry.current
    if run is not None and (word.run_id is None or word.run_id == run.run_id):
        for call in run.calls:
            if call.step_no != word.step_no:
                continue
            if call.resolution is not None:
                raise DecisionRefused(
                    f"another decision on step {word.step_no} is being processed: check its result first"
                )
            if call.state == "in_doubt":
                return call
            if call.state == "ready" and call.effect != "pure" and call.agent is None:
                return call
    raise DecisionRefused(f"step {word.step_no} waits for no decision on this thread")
