"""What reaches a thread's workflow from outside, checked before it is taken: who is meant, and is it still pending."""

from __future__ import annotations

import json

from holdfast.contracts import Call, Carry, Decision, Message, Resolution, Run, StopRequest
from holdfast.errors import DecisionRefused, InvalidInput, ThreadFull

__all__ = [
    "BATCH",
    "KNOWN_KEPT",
    "TEXT_INLINE",
    "check_message",
    "check_room",
    "find_doubt",
    "find_pending",
    "find_run",
    "find_stop",
    "remember_known",
]

TEXT_INLINE = 2048  # bytes of UTF-8; a Temporal client outside Python counts the same
KNOWN_KEPT = 500  # message ids remembered here; Postgres knows all of them
BATCH = 50  # messages stored at once; a payload over 2 MB would end the workflow, also after an hour without a database
ROOM = 1000  # messages that may wait: all of them travel in one payload when the workflow rolls over
LONGEST_WORD = 128 * 1024  # bytes of a person's word, which travels in payloads


def check_message(message: Message) -> None:
    """Refuse what no agent could answer.

    Raises:
        InvalidInput: the text is empty, too long to travel in a workflow history, or an id cannot be stored.

    """
    _check_storable(message.message_id, message.agent, message.text, message.text_ref, message.notify)
    if message.text is not None:
        if not message.text.strip():
            raise InvalidInput("the message is empty: send some text")
        size = len(message.text.encode())
        if size > TEXT_INLINE:
            raise InvalidInput(
                f"the text has {size} bytes, {TEXT_INLINE} may travel inline: store it first and send text_ref"
            )


def check_room(carry: Carry, message: Message) -> None:
    """Refuse a new message while too many wait.

    Raises:
        ThreadFull: it would not fit into what the workflow carries over.

    """
    if message.message_id not in carry.known and len(carry.inbox) + len(carry.queue) >= ROOM:
        raise ThreadFull(f"{ROOM} messages wait on this thread already: send it later, or on another thread")


def _check_storable(*words: str | None) -> None:
    """Refuse what PostgreSQL would refuse each time it is tried, and what would not fit into a payload."""
    size = 0
    for word in words:
        if word is not None and "\0" in word:
            raise InvalidInput("the input contains a NUL character: is it a binary file?")
        size += len(word.encode()) if word is not None else 0
    if size > LONGEST_WORD:
        raise InvalidInput(f"the input has {size} bytes, {LONGEST_WORD} are allowed: shorten it")


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


def find_stop(carry: Carry, request: StopRequest) -> Run:
    """Return the run that is to stop.

    Raises:
        InvalidInput: this thread works on no such run, or the words cannot be stored.

    """
    _check_storable(request.reason, request.actor)
    return find_run(carry, request.run_id)


def find_pending(carry: Carry, decision: Decision) -> Call:
    """Return the one call that a decision is about.

    Raises:
        DecisionRefused: none is pending, it was decided already, or the decision must say which one it means.
        InvalidInput: its words cannot be stored.

    """
    args = None if decision.args is None else json.dumps(decision.args).replace("\\u0000", "\0")
    _check_storable(decision.reason, decision.actor, decision.decision_id, args)
    run = carry.current
    if run is None or (decision.run_id is not None and run.run_id != decision.run_id):
        raise DecisionRefused("no approval is pending for that run: it has ended, or waits in the queue")
    if decision.call_id is not None:
        for call in run.calls:
            if decision.call_id in (call.call_id, str(call.step_no)):
                if call.state == "approval":
                    return call
                raise DecisionRefused(f"call {decision.call_id} is not pending: it was decided already")
        raise DecisionRefused(f"run {run.run_id} has no call {decision.call_id}")
    pending = [call for call in run.calls if call.state == "approval"]
    if len(pending) == 1:
        return pending[0]
    if not pending:
        raise DecisionRefused("no approval is pending on this thread")
    names = ", ".join(f"{call.call_id} ({call.tool})" for call in pending)
    raise DecisionRefused(f"{len(pending)} approvals are pending, say which call_id you mean: {names}")


def find_doubt(carry: Carry, word: Resolution) -> Call:
    """Return the call in doubt that a resolution is about.

    Raises:
        DecisionRefused: that step is neither, or the word does not fit it.
        InvalidInput: its words cannot be stored.

    """
    _check_storable(word.result, word.actor, word.decision_id)
    run = carry.current
    if run is not None and (word.run_id is None or word.run_id == run.run_id):
        for call in run.calls:
            if call.step_no == word.step_no and call.state == "in_doubt":
                return call
    raise DecisionRefused(f"step {word.step_no} waits for no decision on this thread")
