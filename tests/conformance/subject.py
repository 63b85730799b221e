"""The workload: kinds of things that go on while faults strike. A new kind is an entry in `KINDS`, and no more."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance import sends
from tests.conformance.evidence import rounds
from tests.conformance.sends import Meanwhile, Send

__all__ = ["AGENTS", "KINDS", "Kind", "Message", "Thread", "answer", "threads"]

AGENTS = Path(__file__).with_name("agents.py")

Round = tuple[str, ...]  # tools called in parallel

ODD: Round = ("once_async", "keyed_sync", "verifiable_async", "local_note", "pure_look")
EVEN: Round = ("once_sync", "keyed_async", "verifiable_sync", "local_note", "pure_look")
LONG = 2600  # bytes; over 2 KiB a text travels by reference, arguments do so over 1 KiB


@dataclass(frozen=True)
class Kind:
    """One kind of conversation. Its messages are named KIND-NUMBER.POSITION, which is all the model is told.

    Where messages differ, what is said of them is a tuple: its last entry holds for all that follow.
    """

    name: str
    rounds: tuple[Round, ...]  # of every message
    agent: str = "steady"
    messages: int = 1  # to one thread, one soon after the other: the later ones wait for the earlier
    pause: tuple[float, float] = (0.0, 3.0)  # seconds between two of them
    sends: tuple[Send, ...] = (sends.by_client,)  # how a message gets there
    ends: tuple[str, ...] = ("done",)  # how its run may end, such as "done|merged"
    meanwhile: Meanwhile | None = None  # what somebody does to the first run
    faults: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # by round from 1, what the model server does
    usage: tuple[int, int] | None = None  # tokens in and out that the model server bills for each reply
    text: int = 0  # bytes of each message beside its name
    remembers: bool = False

    def replies(self, name: str = "{{user}}") -> list[dict[str, Any]]:
        """Return what the model answers to the message of that name, as a script for the model server."""
        replies: list[dict[str, Any]] = []
        for number, tools in enumerate(self.rounds, 1):
            calls = [{tool: self._arguments(tool, name, number)} for tool in tools]
            replies.append({"call": calls, "fault": self.faults.get(number, [])})
        replies.append({"say": f"all done with {name}", "fault": self.faults.get(len(replies) + 1, [])})
        return [{"latency": 0.05, "usage": self.usage, **reply} for reply in replies]

    def _arguments(self, tool: str, name: str, number: int) -> dict[str, str]:
        long = {"text": _filler(name, LONG)} if tool.endswith("_long") else {}
        return {"run": name, "n": str(number), **long}

    @property
    def again(self) -> bool:
        """Whether every message is sent a second time."""
        return sends.twice in self.sends

    @property
    def by_client_alone(self) -> bool:
        """Whether our client can send all of it, and nobody does anything to its runs."""
        return self.meanwhile is None and set(self.sends) <= {sends.by_client, sends.twice}

    def asked(self, name: str) -> list[tuple[str, str, str]]:
        """Return (run, tool, n) of every call that a run of this kind makes when it comes to its end."""
        return [(name, tool, str(n)) for n, tools in enumerate(self.rounds, 1) for tool in tools]


@dataclass(frozen=True)
class Message:
    """One message; its id is its name, and its text begins with it."""

    name: str
    thread: str
    kind: Kind
    number: int

    @property
    def text(self) -> str:
        """What is sent."""
        return f"{self.name} {_filler(self.name, self.kind.text)}".strip()

    @property
    def send(self) -> Send:
        """How it gets there."""
        return self.kind.sends[min(self.number, len(self.kind.sends)) - 1]

    @property
    def ends(self) -> str:
        """How its run may end."""
        return self.kind.ends[min(self.number, len(self.kind.ends)) - 1]


def _filler(seed: str, length: int) -> str:
    return (f"{seed}/" * (length // (len(seed) + 1) + 1))[:length] if length else ""


KINDS = (
    Kind("fan", (ODD, EVEN, ODD)),
    Kind("queue", (EVEN, ODD), messages=3),
    Kind("approval", (("once_approved", "keyed_async"), ("once_approved", "local_note"))),
    Kind("patient", (("once_approved", *EVEN), ("once_approved", "keyed_sync"))),  # rolls over before it is answered
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
    Kind("spend", (("pure_look",), ("keyed_sync", "pure_look"), ("pure_look",)), agent="frugal", ends=("over_budget",)),
    Kind("thrift", (("pure_look", "local_note"),) * 4, agent="thrifty", usage=(1000, 100), ends=("over_budget",)),
    Kind("twice", (("once_async", "keyed_sync"),), sends=(sends.twice,)),
    Kind(
        "steer",
        (("keyed_async", "local_note"), ("verifiable_async",)),
        messages=2,
        pause=(0.5, 9.0),
        sends=(sends.by_client, sends.steering),
        ends=("done", "merged|done"),  # one that comes too late is a run of its own
    ),
    Kind("large", (("keyed_long", "once_long"), ("keyed_large", "local_note")), text=LONG),
    Kind("refuse", (("once_refused", "verifiable_sync"), ("once_refused",))),
    Kind("stop", (ODD, EVEN, ODD), meanwhile=sends.stop_amid_calls, ends=("stopped|done",)),  # (4) tells them apart
    Kind(
        "owned",
        (("keyed_async", "once_sync"),),
        messages=2,
        sends=(sends.by_client, sends.under_another_name),
        ends=("done", "refused"),
    ),
    Kind("ask", (("once_sync", "keyed_sync"), ("once_approved",)), sends=(sends.asking,)),
)


@dataclass(frozen=True)
class Thread:
    """One conversation to be had."""

    name: str
    kind: Kind

    @property
    def messages(self) -> list[Message]:
        """What is sent to it."""
        return [
            Message(f"{self.name}.{number}", self.name, self.kind, number)
            for number in range(1, self.kind.messages + 1)
        ]

    @property
    def guarded(self) -> int:
        """How many guarded calls its runs make, at least, if nobody ends them early."""
        rounds = self.kind.rounds[:1] if self.kind.meanwhile else self.kind.rounds
        calls = sum(not tool.startswith("pure_") for tools in rounds for tool in tools)
        return calls * sum(message.ends in ("done", "over_budget", "stopped|done") for message in self.messages)


def threads(chance: random.Random, kinds: Sequence[Kind] = KINDS) -> Iterator[Thread]:
    """Yield conversations without end: every kind in turn, in an order of chance."""
    number = 0
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            number += 1
            yield Thread(f"{kind.name}-{number:03}", kind)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return what the model server replies: chosen by the last user message and the rounds it has had since."""
    messages = request["messages"]
    last = max(place for place, message in enumerate(messages) if message["role"] == "user")
    content = messages[last]["content"]
    name = str(content if isinstance(content, str) else content[0]["text"]).partition(" ")[0]
    kind = next(kind for kind in KINDS if name.startswith(f"{kind.name}-"))
    return kind.replies(name)[rounds(messages[last + 1 :])]
