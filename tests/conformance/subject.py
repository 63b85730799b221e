"""The workload: kinds of things that go on while faults strike. A new kind is an entry in `KINDS`, and no more."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["AGENTS", "KINDS", "Kind", "Message", "Thread", "script", "threads"]

AGENTS = Path(__file__).with_name("agents.py")

Round = tuple[str, ...]  # tools called in parallel

ODD: Round = ("once_async", "keyed_sync", "verifiable_async", "local_note", "pure_look")
EVEN: Round = ("once_sync", "keyed_async", "verifiable_sync", "local_note", "pure_look")


@dataclass(frozen=True)
class Kind:
    """One kind of conversation. Its messages are named KIND-NUMBER.POSITION, which is all the model is told."""

    name: str
    rounds: tuple[Round, ...]
    agent: str = "steady"
    messages: int = 1  # sent at once to one thread: the later ones wait for the earlier
    faults: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # by round from 1, what the model server does
    ends: str = "done"
    remembers: bool = False
    again: bool = False  # every message is sent twice, as by a client that missed the answer

    def replies(self) -> list[dict[str, Any]]:
        """Return what the model answers, as a script for the model server."""
        arguments = {"run": "{{user}}", "n": "{{n}}"}
        replies: list[dict[str, Any]] = []
        for number, tools in enumerate(self.rounds, 1):
            reply: dict[str, Any] = {"call": [{name: arguments} for name in tools], "latency": 0.05}
            if number in self.faults:
                reply["fault"] = self.faults[number]
            replies.append(reply)
        return [*replies, {"say": "all done with {{user}}", "latency": 0.05}]

    def asked(self, name: str) -> list[tuple[str, str, str]]:
        """Return (run, tool, n) of every call that a run of this kind makes when it comes to its end."""
        return [(name, tool, str(n)) for n, tools in enumerate(self.rounds, 1) for tool in tools]


KINDS = (
    Kind("fan", (ODD, EVEN, ODD)),
    Kind("queue", (EVEN, ODD), messages=3),
    Kind("approval", (("once_approved", "keyed_async"), ("once_approved", "local_note"))),
    Kind("memory", (("keyed_sync", "verifiable_async", "local_note"),), agent="mindful", remembers=True),
    Kind(
        "shaky",
        (("keyed_async", "local_note"), ("once_async", "verifiable_sync")),
        faults={
            1: [{"status": 429, "retry_after": 0.3}, {"status": 500}],
            2: [{"cut_after": 1}, {"cut_after": 1, "clean": True}],
            3: [{"status": 503}, {"latency": 1.0}],
        },
    ),
    Kind("spend", (("pure_look",), ("keyed_sync", "pure_look"), ("pure_look",)), agent="frugal", ends="over_budget"),
    Kind("twice", (("once_async", "keyed_sync"),), again=True),
)


@dataclass(frozen=True)
class Message:
    """One message; its name is also its text and its id."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Thread:
    """One conversation to be had."""

    name: str
    kind: Kind

    @property
    def messages(self) -> list[Message]:
        """What is sent to it."""
        return [Message(f"{self.name}.{number}", self.kind) for number in range(1, self.kind.messages + 1)]

    @property
    def guarded(self) -> int:
        """How many guarded calls its runs make."""
        calls = sum(tool != "pure_look" for tools in self.kind.rounds for tool in tools)
        return calls * self.kind.messages


def threads(chance: random.Random) -> Iterator[Thread]:
    """Yield conversations without end: every kind in turn, in an order of chance."""
    number = 0
    while True:
        for kind in chance.sample(KINDS, len(KINDS)):
            number += 1
            yield Thread(f"{kind.name}-{number:03}", kind)


def script() -> dict[str, Any]:
    """Return the model server's script for all kinds."""
    return {"conversations": [{"when": f"/^{kind.name}-/", "replies": kind.replies()} for kind in KINDS]}
