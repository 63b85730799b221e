"""The workload: kinds of things that go on while faults strike. A new kind is an entry in `KINDS`, and no more."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.conformance import sends
from tests.conformance.evidence import rounds
from tests.conformance.recurring import Recurs
from tests.conformance.sends import Meanwhile, Send

__all__ = ["AGENTS", "KINDS", "Kind", "Message", "Thread", "answer", "threads"]

AGENTS = Path(__file__).with_name("agents.py")

Round: TypeAlias = "tuple[str | Kind, ...]"  # called in parallel: tools, and other agents, each with a kind of its own

ODD: Round = ("once_async", "keyed_sync", "verifiable_async", "local_note", "pure_look")
EVEN: Round = ("once_sync", "keyed_async", "verifiable_sync", "local_note", "pure_look")
SPENDING: tuple[Round, ...] = (("pure_look", "local_note"),) * 4
LONG = 2600  # bytes; over 2 KiB a text travels by reference, arguments do so over 1 KiB
HAND_OFF = "hand_off_to_"


@dataclass(frozen=True)
class Kind:
    """One kind of conversation. Its messages are named KIND-NUMBER.POSITION, which is all the model is told.

    Where messages differ, what is said of them is a tuple: its last entry holds for all that follow. In a round, a kind
    is another agent that is asked; the message it is asked is named MESSAGE/KIND.
    """

    name: str
    rounds: tuple[Round, ...]  # of every message; the conversation is handed over by the first alone
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
    recurs: Recurs | None = None  # a schedule sends the messages

    def replies(self, name: str = "{{user}}") -> list[dict[str, Any]]:
        """Return what the model answers to the message of that name, as a script for the model server."""
        replies: list[dict[str, Any]] = []
        for number, asked in enumerate(self._rounds(name), 1):
            calls = [self._call(each, name, number) for each in asked]
            replies.append({"call": calls, "fault": self.faults.get(number, [])})
        replies.append({"say": f"all done with {name}", "fault": self.faults.get(len(replies) + 1, [])})
        return [{"latency": 0.05, "usage": self.usage, **reply} for reply in replies]

    def _rounds(self, name: str) -> Iterator[Round]:
        for asked in self.rounds:
            yield tuple(each for each in asked if name.endswith(".1") or not str(each).startswith(HAND_OFF))

    def _call(self, asked: str | Kind, name: str, number: int) -> dict[str, dict[str, str]]:
        if isinstance(asked, Kind):
            return {asked.agent: {"message": f"{name}/{asked.name} {number}"}}
        if asked.startswith(HAND_OFF):
            return {asked: {"note": f"{name} {number}"}}
        long = {"text": _filler(name, LONG)} if asked.endswith("_long") else {}
        return {asked: {"run": name, "n": str(number), **long}}

    @property
    def again(self) -> bool:
        """Whether every message is sent a second time."""
        return sends.twice in self.sends

    @property
    def by_client_alone(self) -> bool:
        """Whether our client can send all of it, nobody does anything to its runs, and they ask no others."""
        return (
            self.meanwhile is None
            and self.recurs is None
            and not self.asks
            and set(self.sends) <= {sends.by_client, sends.twice}
        )

    @property
    def asks(self) -> list[Kind]:
        """The other agents that are asked, not those that they ask."""
        return [each for asked in self.rounds for each in asked if isinstance(each, Kind)]

    def below(self, name: str) -> Kind:
        """Return the kind of the message of that name: this one, or one that it asks, to any depth."""
        kind = self
        for part in name.split("/")[1:]:
            kind = next(asked for asked in kind.asks if asked.name == part)
        return kind

    def asked(self, name: str) -> list[tuple[str, str, str]]:
        """Return (run, tool, n) of every call that a run of this kind makes when it comes to its end, and those below.

        A call of another agent has the name of that agent's message in place of a tool's.
        """
        found: list[tuple[str, str, str]] = []
        for n, asked in enumerate(self._rounds(name), 1):
            for each in asked:
                if isinstance(each, Kind):
                    found += [(name, f"{name}/{each.name}", str(n)), *each.asked(f"{name}/{each.name}")]
                else:
                    found.append((name, each, str(n)))
        return found

    def offspring(self, name: str) -> list[tuple[str, str, str]]:
        """Return (name, agent, how it may end) of every run below one of this kind."""
        found: list[tuple[str, str, str]] = []
        for kind in self.asks:
            found += [(f"{name}/{kind.name}", kind.agent, kind.ends[0]), *kind.offspring(f"{name}/{kind.name}")]
        return found

    @property
    def guarded(self) -> int:
        """How many guarded calls one message makes, at least, if nobody ends its run early."""
        if self.ends[0] in ("failed", "refused"):
            return 0
        rounds = self.rounds[:1] if self.meanwhile or self.agent in ("poor", "miser") else self.rounds
        return sum(
            each.guarded
            if isinstance(each, Kind)
            else not each.startswith(("pure_", HAND_OFF)) and "__pure" not in each
            for asked in rounds
            for each in asked
        )


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
    Kind("thrift", SPENDING, agent="thrifty", usage=(1000, 100), ends=("over_budget",)),
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
    # Agents that ask others: side by side and one below the other, all right and in every way wrong.
    Kind(
        "family",
        (
            (
                Kind("a", (("once_async", "keyed_sync"), ("verifiable_async", "local_note")), agent="leaf"),
                Kind("b", (("once_sync", "local_note", "pure_look"),), agent="leaf"),
                Kind(
                    "m",
                    (
                        ("keyed_async", Kind("c", (("verifiable_sync", "once_async"),), agent="leaf")),
                        (Kind("d", (("keyed_sync",),), agent="leaf"),),
                    ),
                    agent="middle",
                ),
                "local_note",
            ),
            ("once_sync",),
        ),
        agent="chief",
    ),
    Kind(
        "vetted",
        (
            (
                Kind("a", (("once_approved", "keyed_async"),), agent="leaf"),
                Kind("b", (("once_approved", "local_note"),), agent="leaf"),
            ),
        ),
        agent="chief",
    ),
    Kind(
        "woes",
        (
            (
                Kind("poor", (("keyed_sync",), ("local_note",)), agent="poor", ends=("over_budget",)),
                Kind("mute", (), agent="leaf", faults={1: [{"status": 401, "times": "always"}]}, ends=("failed",)),
                Kind("none", (), agent="nobody", ends=("refused",)),
            ),
            ("once_async", "keyed_async"),
        ),
        agent="chief",
    ),
    Kind(
        "halt",
        (
            (
                Kind("a", (ODD, EVEN), agent="leaf"),
                Kind("m", ((Kind("c", (EVEN, ODD), agent="leaf"),),), agent="middle"),
            ),
        ),
        agent="chief",
        meanwhile=sends.stop_amid_calls,
        ends=("stopped|done",),
    ),
    Kind(
        "clan",
        (
            (
                *(
                    Kind(
                        name, (("pure_look", "local_note"),) * 4, "leaf", usage=(1000, 100), ends=("over_budget|done",)
                    )
                    for name in ("a", "b")
                ),
                "keyed_async",
            ),
        ),
        agent="miser",
        usage=(1000, 100),
        ends=("over_budget",),
    ),
    Kind(
        "handover",
        (("once_async", "keyed_sync"), ("local_note", f"{HAND_OFF}back"), ("verifiable_async", "once_sync")),
        agent="front",
        messages=2,
        pause=(0.0, 6.0),
        sends=(sends.by_client, sends.to_whom_it_belongs),
        ends=("done", "done|refused"),  # one that is on its way to the first agent just then is refused
    ),
    Kind("tick", (("once_async", "local_note"), ("keyed_sync",)), recurs=Recurs(times=4, continuing=True)),
    Kind("each", (("keyed_async", "verifiable_sync"),), recurs=Recurs(times=4, overlap="skip")),
    Kind(
        "office",
        (
            ("office__once", "office__keyed", "desk__once", "desk__keyed", "office__pure"),
            ("office__once", "desk__once", "desk__keyed"),
        ),
        agent="clerk",
    ),
    Kind(
        "shifty",
        (("office__once_shifty", "desk__once_shifty"),) * 3,
        agent="clerk",
        messages=2,
        pause=(0.0, 0.0),
        meanwhile=sends.change_a_tool,
    ),
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
        if self.kind.recurs is not None:
            return self.kind.guarded
        return self.kind.guarded * sum(
            message.ends in ("done", "over_budget", "stopped|done") for message in self.messages
        )


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
    kind = next(kind for kind in KINDS if name.startswith(f"{kind.name}-")).below(name)
    return kind.replies(name)[rounds(messages[last + 1 :])]
