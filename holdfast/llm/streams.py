"""Puts the pieces of a streamed reply together; only the LiteLLM adapter uses it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from holdfast.llm.models import ToolCallRequest

__all__ = ["Assembly", "named_calls"]

_LONGEST_ID = 8192  # bytes; some providers keep their own state in it, and 200 of them travel in one payload


class Assembly:
    """Collects text and tool calls from deltas.

    Calls are told apart by `index`. Some servers give every parallel call the index 0: a delta with another id and a
    name of its own then starts a new call.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: list[tuple[int | None, str, list[str], list[str]]] = []  # index, id, name parts, argument parts

    def add_text(self, text: str) -> None:
        """Add a piece of the answer's text."""
        self._text.append(text)

    def add_call(self, delta: Any) -> None:  # Any: LiteLLM's delta object, whose type changes with its versions
        """Add a piece of a tool call."""
        function = getattr(delta, "function", None)
        name, arguments = getattr(function, "name", None) or "", getattr(function, "arguments", None) or ""
        index, call_id = getattr(delta, "index", None), getattr(delta, "id", None) or ""
        at = next((n for n in reversed(range(len(self._calls))) if self._calls[n][0] == index), None)
        if at is None or (call_id and name and self._calls[at][1] and self._calls[at][1] != call_id):
            self._calls.append((index, call_id, [name], [arguments]))
            return
        old_index, old_id, names, parts = self._calls[at]
        if name and name != "".join(names):  # some servers repeat the whole name with each piece
            names.append(name)
        parts.append(arguments)
        self._calls[at] = (old_index, old_id or call_id, names, parts)

    @property
    def text(self) -> str | None:
        """Return the text so far; None if there was none."""
        return "".join(self._text) or None

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """Return (id, name, arguments) of each call, in the model's order."""
        return [(call_id, "".join(names), "".join(parts)) for _, call_id, names, parts in self._calls]


def named_calls(calls: Iterable[tuple[str, str, str]], messages: list[dict[str, Any]]) -> list[ToolCallRequest]:
    """Return the calls, each with an id that no other call of this conversation has.

    One that is missing, repeated or very long is replaced by one computed from the place in the conversation: the same
    request that is answered alike gets the same ids.
    """
    taken = {call.get("id") for message in messages for call in message.get("tool_calls") or []}
    named = []
    for index, (call_id, name, arguments) in enumerate(calls):
        own = call_id
        if not own or own in taken or len(own.encode()) > _LONGEST_ID:
            place = f"{len(messages)}:{index}:{name}"
            own = "call_" + hashlib.sha256(place.encode()).hexdigest()[:24]
        taken.add(own)
        named.append(ToolCallRequest(id=own, name=name, arguments=arguments))
    return named
