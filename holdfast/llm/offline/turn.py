"""What has happened since the user's last message, read from the conversation; the offline model uses it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from holdfast.llm.notes import read_notes
from holdfast.llm.offline.evidence import Call

__all__ = ["Turn", "read_turn"]

_TRIES = 2
_MOST_CALLS = 40
# Errors that the same call would meet again, and what a person or a doubt has settled.
_FINAL = re.compile(
    r"not found|no such|there is no|cannot be|not allowed|invalid|unknown|already|reject|denied|abandon|interrupt|"
    r"do not repeat|not a file|binary",
    re.IGNORECASE,
)


@dataclass
class Turn:
    """The request, the calls made for it with their results, and what was known before."""

    request: str
    calls: list[Call] = field(default_factory=list)
    remembered: list[str] = field(default_factory=list)
    earlier: list[str] = field(default_factory=list)

    def results(self, names: set[str]) -> list[Call]:
        """Return the calls of these tools that brought something."""
        return [call for call in self.calls if call.name in names and not call.failed]

    def made(self, name: str, arguments: dict[str, Any]) -> Call | None:
        """Return the last such call that did not fail."""
        same = [call for call in self.calls if call.name == name and call.arguments == arguments and not call.failed]
        return same[-1] if same else None

    def may(self, name: str, arguments: dict[str, Any]) -> bool:
        """Tell whether a look-up is worth making: not made yet, and failed less than twice."""
        if len(self.calls) >= _MOST_CALLS or self.made(name, arguments) is not None:
            return False
        failed = [call for call in self.calls if call.name == name and call.failed]
        same = [call for call in failed if call.arguments == arguments]
        if len(failed) >= _TRIES and not any(_FINAL.search(call.content) for call in failed):
            return False
        return len(failed) < 2 * _TRIES and len(same) < _TRIES and not (same and _FINAL.search(same[-1].content))

    def acted(self, name: str) -> list[list[Call]]:
        """Return the calls of a tool that acts, a repetition after a failure together with what it repeats."""
        groups: list[list[Call]] = []
        for call in self.calls:
            if call.name != name:
                continue
            last = next((g for g in reversed(groups) if g[-1].arguments == call.arguments and g[-1].failed), None)
            if last is not None:
                last.append(call)
            else:
                groups.append([call])
        return groups

    @staticmethod
    def again(group: list[Call]) -> bool:
        """Tell whether an act that failed should be tried once more."""
        return group[-1].failed and len(group) < _TRIES and not _FINAL.search(group[-1].content)


def text_of(message: dict[str, Any]) -> str:
    """Return a message's text, of whatever parts it is made."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def read_turn(messages: list[dict[str, Any]]) -> Turn:
    """Read a conversation. Only calls since the last user message count as made for it."""
    last = next((at for at in reversed(range(len(messages))) if messages[at].get("role") == "user"), -1)
    turn = Turn(text_of(messages[last]) if last >= 0 else "")
    results = {
        str(message.get("tool_call_id")): text_of(message)
        for message in messages[last + 1 :]
        if message.get("role") == "tool"
    }
    for message in messages[last + 1 :]:
        for asked in message.get("tool_calls") or []:
            function = asked.get("function") or {}
            content = results.get(str(asked.get("id")))
            if content is not None:
                turn.calls.append(Call(str(function.get("name")), _arguments(function.get("arguments")), content))
    for at, message in enumerate(messages[: max(0, last)]):
        notes = read_notes(message) if at <= 1 else None  # they stand between instructions and conversation
        turn.remembered += notes or []
        if message.get("role") == "user" and notes is None:
            sentences = re.split(r"(?<=[.!?])\s+|\n+", text_of(message))
            turn.earlier += [part for part in sentences if part.strip() and not part.rstrip().endswith("?")]
    return turn


def _arguments(raw: Any) -> dict[str, Any]:
    try:
        parsed = json.loads(raw or "{}")
    except (TypeError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
