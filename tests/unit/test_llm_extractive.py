"""The offline model drives real tools over real files, as a run would: it searches, reads, acts once, quotes."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ToolError
from holdfast.llm import OFFLINE_MODEL, ModelReply, ModelRequest, complete, context_window, count_tokens
from holdfast.llm.extractive import NOTICE
from holdfast.tools import calculator, current_time, files, recall, remember, tool
from holdfast.tools.tool import AnyTool

ORDERS = {"17": {"status": "delivered damaged", "total": 40.0}, "18": {"status": "on its way", "total": 12.5}}


@tool(effect="pure")
def order_status(order_id: str) -> dict[str, Any]:
    """Look up one order."""
    if order_id not in ORDERS:
        raise ToolError(f"there is no order {order_id}")
    return ORDERS[order_id]


@tool
def refund(order_id: str, amount: float) -> str:
    """Pay money back for an order."""
    return f"refunded {amount} for {order_id}"


@tool
def file_ticket(title: str, body: str) -> str:
    """File a ticket with the support team."""
    return f"ticket 1: {title}"


@tool
def send_email(to: str, subject: str, body: str) -> str:
    """Send an e-mail."""
    return f"sent to {to}"


@tool(effect="pure")
def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"{city}: rain, 12 degrees"


@dataclass
class Conversation:
    """A thread as a run keeps it, its tools called by hand."""

    tools: list[AnyTool]
    instructions: str = "Help."
    messages: list[dict[str, Any]] = field(default_factory=list)
    called: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)

    async def ask(self, text: str) -> str:
        """Send a message and follow the model to its answer."""
        self.messages.append({"role": "user", "content": text})
        for _ in range(20):
            reply = await self.step()
            self.messages.append(reply.message)
            if not reply.tool_calls:
                assert reply.text is not None
                assert reply.text.endswith(NOTICE)
                return reply.text
            for call in reply.tool_calls:
                result = self.call(call.name, json.loads(call.arguments))
                self.messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        raise AssertionError(f"no answer after 20 rounds: {self.called}")

    async def step(self) -> ModelReply:
        """Call the model once."""
        schemas = [
            {"name": d.name, "description": d.description, "parameters": d.parameters}
            for d in (each.definition for each in self.tools)
        ]
        return await complete(
            ModelRequest(
                model=OFFLINE_MODEL,
                messages=[{"role": "system", "content": self.instructions}, *self.messages],
                tools=[{"type": "function", "function": schema} for schema in schemas],
            )
        )

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call a tool and return its result as the thread would hold it."""
        self.called.append((name, arguments))
        if name in self.answers:
            return self.answers[name]
        found = next(each for each in self.tools if each.name == name)
        try:
            result = found(**found.validate(arguments))
        except ToolError as exc:
            return f"error: {exc}"
        return result if isinstance(result, str) else json.dumps(result)

    @property
    def names(self) -> list[str]:
        """Return the names of the tools called so far."""
        return [name for name, _ in self.called]


SUBJECTS = ("harbour", "bakery", "library", "observatory", "vineyard", "sawmill", "quarry", "orchard", "ferry")
FILLING = (
    "The {subject} opens at eight in the morning and closes at dusk.",
    "Visitors of the {subject} leave their bags at the counter.",
    "A new roof for the {subject} was discussed in spring, and the plan was put off.",
    "Staff meet every second Tuesday to share what they know about the {subject}.",
    "The code of conduct hangs beside the door, where everyone can read it.",
)


def folder(root: Path, seed: int) -> tuple[str, str, str]:
    """Write 30 files, one of them with a fact; return question, what the answer must hold, and the file's path."""
    rng = random.Random(seed)
    name = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4)).capitalize()
    value = f"{rng.randrange(1000, 9999)}-{rng.choice('ABCDEFGH')}{rng.choice('KLMNOP')}"
    question, fact = rng.choice(
        [
            (
                f"What is the access code of the {name} lighthouse?",
                f"The access code of the {name} lighthouse is {value}.",
            ),
            (f"Who repaired the pump at {name}?", f"The pump at {name} was repaired by engineer {value} last winter."),
            (f"how many crates did the {name} warehouse ship", f"In May the {name} warehouse shipped {value} crates."),
            (f"Tell me the serial number of {name}'s generator.", f"Generator of {name}: serial number {value}."),
        ]
    )
    target = rng.randrange(30)
    path = ""
    for number in range(30):
        subject = rng.choice(SUBJECTS)
        lines = [f"# Notes on the {subject}", ""]
        for _ in range(rng.randrange(5, 60)):
            lines += [rng.choice(FILLING).format(subject=rng.choice(SUBJECTS)), ""]
        inner = root / rng.choice(["", "notes", "archive/2024"])
        inner.mkdir(parents=True, exist_ok=True)
        file = inner / f"{subject}-{number}.md"
        if number == target:
            lines.insert(rng.randrange(2, len(lines) + 1), fact)
            path = file.relative_to(root).as_posix()
        file.write_text("\n".join(lines))
    return question, value, path


@pytest.mark.parametrize("seed", range(12))
async def test_finds_a_fact_in_one_of_thirty_files(tmp_path: Path, seed: int) -> None:
    """A fact in one of thirty files is quoted with its path and line, after a search and a read."""
    question, value, path = folder(tmp_path, seed)
    talk = Conversation([*files(tmp_path), calculator, current_time, remember, recall])
    talk.answers["recall"] = "nothing is remembered about that"
    answer = await talk.ask(question)
    assert value in answer
    line = next(n for n, text in enumerate((tmp_path / path).read_text().splitlines(), 1) if value in text)
    assert f"({path}:{line})" in answer
    assert talk.names[:2] == ["search_files", "read_file"]


@pytest.mark.parametrize("seed", range(4))
async def test_says_plainly_that_nothing_was_found(tmp_path: Path, seed: int) -> None:
    """What is in no file is not answered; the search is named."""
    folder(tmp_path, seed)
    talk = Conversation(files(tmp_path))
    answer = await talk.ask("What is the boiling point of Quarzolite in the Zephyr reactor?")
    assert "I found nothing that answers" in answer
    assert "search_files(query=" in answer


async def test_quotes_a_sentence_that_runs_over_lines(tmp_path: Path) -> None:
    """A wrapped sentence is quoted whole, by the line it starts on; headings say what it is about."""
    (tmp_path / "a.md").write_text(
        "# Leases\n\nNothing here.\n\n## Renewal\n\nIt is renewed every\nsecond week, on Monday.\n"
    )
    (tmp_path / "b.md").write_text("# Boats\n\nBoats are painted every year.\n")
    answer = await Conversation(files(tmp_path)).ask("When are leases renewed?")
    assert "“It is renewed every second week, on Monday.” (a.md:7)" in answer


async def test_reads_far_down_a_long_file(tmp_path: Path) -> None:
    """A hit beyond what one read returns is read from near its line."""
    lines = [f"Entry {n}: nothing of note happened at the dam." for n in range(2000)]
    lines[1500] = "The sluice gate of Ormond was opened at 04:12 by the night watch."
    (tmp_path / "log.txt").write_text("\n".join(lines))
    answer = await Conversation(files(tmp_path)).ask("When was the sluice gate of Ormond opened?")
    assert "04:12" in answer
    assert "(log.txt:1501)" in answer


async def test_reads_a_file_that_is_named(tmp_path: Path) -> None:
    """A path in the request is read at once."""
    (tmp_path / "plan.md").write_text("# Plan\n\nWe build a bridge in June. Then we rest.\n")
    talk = Conversation(files(tmp_path))
    answer = await talk.ask("Summarise plan.md please")
    assert talk.called == [("read_file", {"path": "plan.md"})]
    assert "We build a bridge in June." in answer


async def test_lists_files(tmp_path: Path) -> None:
    """A question for the files themselves is answered by the list."""
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("x")
    talk = Conversation(files(tmp_path))
    answer = await talk.ask("Which files are there?")
    assert talk.names == ["list_files"]
    assert "one.txt" in answer
    assert "two.txt" in answer


async def test_looks_up_an_order_and_does_no_more() -> None:
    """A question is looked up; an acting tool is not called for it."""
    talk = Conversation([order_status, refund])
    answer = await talk.ask("Where is order 17?")
    assert talk.called == [("order_status", {"order_id": "17"})]
    assert "delivered damaged" in answer


@pytest.mark.parametrize(
    "text",
    [
        "My lamp from order 17 arrived broken, please refund it.",
        "Refund order 17",
        "Can you refund order #17?",
        "Order 17 came damaged. I want a refund.",
        "Where is order 17? If it is damaged, refund it.",
        "Give me my money back for order 17, and pay it to my account",
    ],
)
async def test_acts_once_after_looking_up(text: str) -> None:
    """An order to act is carried out once, after the look-up, with the amount the look-up showed."""
    talk = Conversation([order_status, refund])
    answer = await talk.ask(text)
    assert talk.called == [("order_status", {"order_id": "17"}), ("refund", {"order_id": "17", "amount": 40.0})]
    assert "refunded 40.0 for 17" in answer


async def test_acts_on_each_of_several() -> None:
    """Two ids in one order are two calls, each once; an amount in the request is used."""
    talk = Conversation([order_status, refund])
    await talk.ask("Please refund $5 each for orders 17 and 18")
    assert [call for call in talk.called if call[0] == "refund"] == [
        ("refund", {"order_id": "17", "amount": 5}),
        ("refund", {"order_id": "18", "amount": 5}),
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Don't refund order 17, only tell me where it is", ""),
        ("Where is order 18? If it is damaged, refund it.", "nothing I was told says that it is damaged"),
        ("Refund something", "I could not tell order_id"),
        ("What does a refund cost?", ""),
    ],
)
async def test_does_not_act(text: str, hint: str) -> None:
    """What was forbidden, depends on what is not so, cannot be filled, or was only asked about is not done."""
    talk = Conversation([order_status, refund])
    answer = await talk.ask(text)
    assert "refund" not in talk.names
    assert hint in answer


async def test_passes_a_finding_on(tmp_path: Path) -> None:
    """A question with an order in one message: the answer is found first, and goes into the ticket with its source."""
    question, value, path = folder(tmp_path, 3)
    talk = Conversation([*files(tmp_path), file_ticket])
    answer = await talk.ask(f"{question} Then file a ticket about it.")
    name, arguments = talk.called[-1]
    assert name == "file_ticket"
    assert talk.names.count("file_ticket") == 1
    assert value in arguments["body"]
    assert path in arguments["body"]
    assert arguments["title"]
    assert value in answer
    assert "Done: file_ticket(" in answer


async def test_fills_an_address_and_quotations() -> None:
    """Addresses and quotations of the request are taken as they are."""
    talk = Conversation([send_email, order_status])
    await talk.ask('Send an email to ada@example.com with the subject "Lamp" saying "It is broken."')
    assert talk.called == [("send_email", {"to": "ada@example.com", "subject": "Lamp", "body": "It is broken."})]


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("What is 17% of 2,340?", "calculator", {"expression": "17/100* 2340"}),
        ("(3 + 4) * 12", "calculator", {"expression": "(3 + 4) * 12"}),
        ("What time is it in Tokyo?", "current_time", {"timezone": "Asia/Tokyo"}),
        ("How is the weather in Paris?", "weather", {"city": "Paris"}),
        ("Remember that my boat is called Nomad.", "remember", {"text": "my boat is called Nomad"}),
        ("What do you remember about my boat?", "recall", {"query": "remember boat"}),
    ],
)
async def test_picks_the_tool_by_meaning(tmp_path: Path, text: str, name: str, arguments: dict[str, Any]) -> None:
    """Among all built-in tools the right one is called first, with arguments from the request."""
    (tmp_path / "x.txt").write_text("nothing of interest")
    talk = Conversation([*files(tmp_path), calculator, current_time, weather, remember, recall])
    talk.answers = {"remember": "remembered", "recall": "- my boat is called Nomad"}
    await talk.ask(text)
    assert talk.called[0] == (name, arguments)


async def test_answers_from_memory_and_the_thread() -> None:
    """What was recalled before the call, or said earlier, is quoted as such."""
    talk = Conversation([], instructions="Help.\n\nWhat you remember that may matter here:\n- My boat is called Nomad.")
    assert "“My boat is called Nomad.” (memory)" in await talk.ask("What is my boat called?")
    await talk.ask("My sister's dog is named Biscuit.")
    assert "Biscuit" in await talk.ask("How is my sister's dog named?")


async def test_an_error_is_tried_twice_and_told(tmp_path: Path) -> None:
    """A tool that keeps failing is called twice, and the answer says so."""
    talk = Conversation(files(tmp_path), answers={"search_files": "error: the disk is on fire"})
    answer = await talk.ask("Who painted the fence of Lorimer?")
    assert talk.names.count("search_files") == 2
    assert "search_files failed: the disk is on fire" in answer


async def test_a_rejected_act_is_not_repeated() -> None:
    """A person's no is final; a passing failure is tried once more."""
    talk = Conversation([order_status, refund])
    talk.answers["refund"] = "rejected: a person did not allow this call. Reason: too much"
    answer = await talk.ask("Refund order 17")
    assert talk.names.count("refund") == 1
    assert "Not done: refund(" in answer
    assert "too much" in answer
    other = Conversation([order_status, refund], answers={"refund": "error: the bank timed out"})
    await other.ask("Refund order 17")
    assert other.names.count("refund") == 2


async def test_an_order_nobody_can_carry_out_is_told() -> None:
    """With no tool for an order the answer says so."""
    answer = await Conversation([order_status]).ask("Cancel the subscription of Ada")
    assert "none of my tools does that" in answer


async def test_the_same_conversation_gets_the_same_reply(tmp_path: Path) -> None:
    """Replies are deterministic, the ids of calls included; they stream in pieces, cost nothing and are counted."""
    question, _, _ = folder(tmp_path, 1)
    talk = Conversation(files(tmp_path))
    talk.messages = [{"role": "user", "content": question}]
    one, two = await talk.step(), await talk.step()
    assert one.message == two.message
    assert one.finish_reason == "tool_calls"
    pieces: list[str] = []
    reply = await complete(
        ModelRequest(model=OFFLINE_MODEL, messages=[{"role": "user", "content": "Hello"}]), on_delta=pieces.append
    )
    assert "".join(pieces) == reply.text
    assert len(pieces) > 3
    assert reply.cost_usd == 0.0
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0
    assert reply.model == OFFLINE_MODEL
    assert context_window(OFFLINE_MODEL) > 8192
    assert count_tokens(OFFLINE_MODEL, [{"role": "user", "content": "x" * 400}]) >= 100


async def test_strange_conversations_get_an_answer() -> None:
    """No message, an empty one, results without calls, malformed arguments: an answer, never an exception."""
    odd: list[list[dict[str, Any]]] = [
        [],
        [{"role": "system", "content": "x"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        [{"role": "user", "content": "?!"}, {"role": "tool", "tool_call_id": "a", "content": "x"}],
        [
            {"role": "user", "content": "go " * 20_000},
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "b", "arguments": "{"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "\x00" * 10},
        ],
    ]
    for messages in odd:
        reply = await complete(ModelRequest(model=OFFLINE_MODEL, messages=messages))
        assert reply.text
