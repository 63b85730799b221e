"""Plugins on the real servers: what hooks change, refuse and fail at, in which order, and what is on record of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast import RunHandle
from holdfast.activities.requests import rebuild_request
from holdfast.errors import InvalidInput, RunEnded
from holdfast.memory.database import connect
from tests.kit import PATIENCE, World, kept, until

AGENTS = '''
import asyncio, dataclasses, json, pathlib, re, time
from holdfast import Agent, Plugin, Refused, ToolContext, ToolError, plugin_tools, tool
from holdfast.plugins import At, ModelCall, Reply, ToolCall, ToolResult

HERE = pathlib.Path(__file__).parent

def note(name: str) -> None:
    with (HERE / name).open("a") as file:
        file.write("x\\n")

@tool(effect="pure")
def look(what: str) -> str:
    """Look something up."""
    return f"{what} belongs to ann@example.org"

@tool(effect="once")
async def pay(ctx: ToolContext, amount: int) -> str:
    """Pay."""
    note("paid")
    return f"paid {amount} to ann@example.org"

@tool(effect="local_tx")
async def book(ctx: ToolContext, what: str) -> str:
    """Book into the database."""
    return f"booked {what} for ann@example.org"

@tool(effect="once")
async def closed() -> str:
    """Always refuses."""
    raise ToolError("ann@example.org closed it")

class Redactor(Plugin):
    """Takes mail addresses out, wherever they come from."""
    order = -5
    required = True

    def _clean(self, text: str) -> str:
        return re.sub(r"[a-z]+@[a-z.]+", "<mail>", text)

    async def message(self, at: At, text: str) -> str | None:
        return self._clean(text)

    def after_tool(self, at: At, result: ToolResult) -> str | None:
        return self._clean(result.text)

    async def answer(self, at: At, text: str) -> str | None:
        return self._clean(text)

class Rules(Plugin):
    """Refuses what it is told to refuse, and changes what it is told to change."""
    name = "rules"
    required = False

    def message(self, at: At, text: str) -> str | None:
        if "forbidden" in text:
            raise Refused("we do not talk about that")
        return text + " (seen by rules)" if "order" in text else None

    async def before_model(self, at: At, call: ModelCall) -> ModelCall | None:
        call.messages.clear() if "spoil" in str(call.messages) else None
        if "no model" in str(call.messages[-1]):
            raise Refused("not by a model")
        if "hint" in str(call.messages):
            hint = {"role": "system", "content": "Today is Monday."}
            return dataclasses.replace(call, messages=[*call.messages[:1], hint, *call.messages[1:]], tools=["look"])
        return None

    async def after_model(self, at: At, reply: Reply) -> Reply | None:
        if reply.text and "unsayable" in reply.text:
            raise Refused("that must not be said")
        calls = []
        for call in reply.calls:
            args = json.loads(call.arguments)
            if args.get("amount", 0) > 100:
                continue
            if args.get("amount", 0) > 10:
                call = dataclasses.replace(call, arguments=json.dumps({"amount": 10}), ask=True)
            calls.append(call)
        return dataclasses.replace(reply, calls=calls)

    async def answer(self, at: At, text: str) -> str | None:
        if "unspeakable" in text:
            raise Refused("nobody shall read that")
        return text.replace("ann", "ANN@example.org".lower()) if "order" in text else None

    async def before_tool(self, at: At, call: ToolCall) -> None:
        call.args.clear()
        if call.tool == "pay" and (HERE / "no-pay").exists():
            raise Refused("the bank is closed")

    async def after_tool(self, at: At, result: ToolResult) -> str | None:
        if "withhold" in result.text:
            raise Refused("not for models")
        return None

class Shaky(Plugin):
    """Fails in every way there is."""
    order = 9
    required = False

    def before_model(self, at: At, call: ModelCall) -> ModelCall | None:
        if "shaky" in str(call.messages):
            raise ValueError("I am shaky")
        return None

    async def answer(self, at: At, text: str) -> str | None:
        if "slow" in text:
            await asyncio.sleep(60)
        return 7 if "seven" in text else None  # type: ignore

class Strict(Plugin):
    """A guardrail that can break."""
    required = True
    order = 3

    def message(self, at: At, text: str) -> str | None:
        if "strict message" in text:
            raise ConnectionError("the guard's server is away")
        return None

    def before_tool(self, at: At, call: ToolCall) -> None:
        if (HERE / "strict").exists():
            raise ConnectionError("the guard's server is away")

class Crm(Plugin):
    """Gives tools."""
    name = "crm"

    async def tools(self, agent: str) -> list:
        async def customer(number: int) -> str:
            """Look a customer up."""
            return f"customer {number} of {agent}"
        return [tool(effect="pure")(customer)]

plugins = [Shaky(), Rules(), Strict(), Redactor(), Crm()]

desk = Agent("desk", "openai/test", "Help.", tools=[look, pay, book, closed, plugin_tools("crm")])
asker = Agent("asker", "openai/test", "Ask.", tools=[desk.as_tool("ask_desk")])
'''


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """Do what the last message of the user says: `call NAME JSON`, else say it."""
    said = request["messages"]
    last = max(at for at, message in enumerate(said) if message["role"] == "user")
    text = said[last]["content"]
    results = [message["content"] for message in said[last:] if message["role"] == "tool"]
    if results:
        return {"say": f"it says {results[-1]}"}
    if text.startswith("call "):
        name, _, args = text[5:].partition(" ")
        return {"call": [{name: json.JSONDecoder().raw_decode(args.replace("FORBID", "forbid"))[0]}]}
    return {"say": text}


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.world(AGENTS, reply, hook_timeout=1.0)]


async def ask(world: World, text: str, thread: str, agent: str = "desk") -> RunHandle:
    """Ask, and wait for the run's end."""
    client = await world.client()
    run = await client.start(agent, text, thread=thread)
    await until(lambda: ended(run), f"{text} has ended", PATIENCE)
    return run


async def ended(run: RunHandle) -> bool:
    """Whether a run is over."""
    return (await run.status()).state not in ("accepted", "queued", "running", "waiting")


async def told(run: RunHandle) -> list[tuple[str, str, str]]:
    """Return what plugins did in a run."""
    events = [event async for event in run.events()]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [(e.data["plugin"], e.data["hook"], e.data["did"]) for e in events if e.kind == "plugin"]


async def results(run: RunHandle) -> list[str]:
    """Return what the model read of tools."""
    return [m.body["content"] for m in await run.messages() if m.role == "tool" and m.body and m.run_id == run.run_id]


async def test_what_goes_in_passes_the_outermost_first_and_what_comes_out_last(world: World) -> None:
    """The redactor stands outside: what an inner plugin puts into an answer it still takes out."""
    run = await ask(world, "order of bob@example.org", "order")
    assert (await run.result()).output == "order of <mail> (seen by rules)"
    assert await told(run) == [
        ("Redactor", "message", "changed"),
        ("rules", "message", "changed"),
    ]
    other = await ask(world, "order ann", "order-2")
    assert (await other.result()).output == "order <mail> (seen by rules)"
    assert ("rules", "answer", "changed") in await told(other)
    assert (await told(other))[-1] == ("Redactor", "answer", "changed"), "the outermost sees it last"


async def test_what_was_taken_out_is_nowhere_in_the_database(world: World) -> None:
    """Messages, arguments, results, events and requests have the redacted text alone."""
    run = await ask(world, 'call look {"what": "it"}', "nowhere")
    assert await results(run) == ["it belongs to <mail>"]
    await ask(world, "I am ann@example.org", "nowhere-2")
    left = await kept(world, [])
    assert [place for place, data in left.items() if b"ann@example" in data] == []
    assert b"it belongs to <mail>" in left["messages"]


async def test_a_changed_request_is_rebuilt_as_it_was_sent(world: World) -> None:
    """What a plugin put in and left out is recorded as a difference; the hash is that of what the model got."""
    run = await ask(world, "give a hint", "hint")
    again = await ask(world, "and a hint again", "hint")
    conn = await connect(world.settings.database_url or "")
    for each, text in ((run, "give a hint"), (again, "and a hint again")):
        [step] = [event.data["step"] async for event in each.events() if event.kind == "replied"]
        rebuilt = await rebuild_request(conn, world.settings, each.run_id, step)
        assert rebuilt is not None
        request, same = rebuilt
        assert same
        [sent] = [e["body"] for e in world.models.journal if e["body"]["messages"][-1]["content"] == text]
        assert request.messages == sent["messages"]
        assert request.messages[1]["content"] == "Today is Monday."
        assert [tool["function"]["name"] for tool in sent["tools"]] == ["look"]
        assert await told(each) == [("rules", "before_model", "changed")]
    blobs = await conn.fetch("select id from blobs where id like 'sent-%'")
    assert len(blobs) == 1, "what is put in again is stored once"
    await conn.close()


async def test_what_a_hook_spoils_in_place_is_its_own(world: World) -> None:
    """A plugin that empties what it was given changes nothing by that."""
    run = await ask(world, "spoil it", "spoil")
    assert (await run.result()).output == "spoil it"


@pytest.mark.parametrize(
    ("text", "state", "error"),
    [
        ("forbidden words", "refused", "rules refused this message: we do not talk about that"),
        ("no model please", "failed", "rules refused this model call: not by a model"),
        ("the unsayable", "failed", "rules refused this reply: that must not be said"),
        ("the unspeakable", "failed", "rules refused this answer: nobody shall read that"),
        ("strict message", "refused", "Strict, which must see this message, failed: ConnectionError"),
    ],
)
async def test_a_refusal_ends_the_run_with_a_reason(world: World, text: str, state: str, error: str) -> None:
    """Its text is not kept: neither a refused message nor a withheld reply; and the next message is answered."""
    thread = text.replace(" ", "-")
    run = await ask(world, text, thread)
    info = await run.status()
    assert (info.state, error in (info.error or "")) == (state, True), info.error
    with pytest.raises((RunEnded, InvalidInput), match=error.partition(":")[0]):
        await run.result(timeout=PATIENCE)
    if state == "refused" or "un" in text:
        kept = [str(m.body) for m in await run.messages() if m.run_id == run.run_id and m.role != "user"]
        assert not [body for body in kept if text in body]
    assert (await (await ask(world, "hello", thread)).result()).output == "hello"


async def test_a_refused_reply_is_paid_for_and_its_tokens_are_shown_to_nobody(world: World) -> None:
    """Usage counts; no delta was written while the reply came."""
    run = await ask(world, "the unsayable once more", "paid")
    [used] = await world.rows("select tokens_in + tokens_out as n, rounds from runs where run_id = $1", run.run_id)
    assert used["n"] > 0
    assert used["rounds"] == 1
    assert await told(run) == [("rules", "after_model", "refused")]


async def test_calls_are_left_out_changed_and_asked_about_before_people_see_them(world: World) -> None:
    """An approval is of the arguments that a plugin made; a call it left out is no call."""
    client = await world.client()
    run = await client.start("desk", 'call pay {"amount": 50}', thread="asks")
    async for event in run.events():
        if event.kind == "approval_requested":
            assert json.loads(event.data["args"]) == {"amount": 10}
            await run.approve()
    assert (await run.result(timeout=PATIENCE)).output == "it says paid 10 to <mail>"
    left = await ask(world, 'call pay {"amount": 5000}', "leaves-out")
    assert await results(left) == []
    assert (await left.result()).output == "(plugins left nothing of this reply)", "no message without a word"


async def test_a_refused_call_is_told_to_the_model_and_not_made(world: World) -> None:
    """Its ledger row says failed for good, with no send."""
    (world.folder / "no-pay").touch()
    run = await ask(world, 'call pay {"amount": 3}', "no-pay")
    (world.folder / "no-pay").unlink()
    assert await results(run) == ["error: pay was not called: rules refused this call: the bank is closed"]
    rows = await world.rows("select state, sends from effects where run_id = $1 and tool = 'pay'", run.run_id)
    assert rows == [{"state": "failed", "sends": 0}]


async def test_a_required_plugin_that_fails_keeps_a_call_from_being_made(world: World) -> None:
    """The model reads which plugin it was; it was tried more than once."""
    (world.folder / "strict").touch()
    run = await ask(world, 'call pay {"amount": 4}', "strict")
    (world.folder / "strict").unlink()
    [text] = await results(run)
    assert text.startswith("error: pay was not called: Strict, which must see this call, failed: ConnectionError")
    assert world.processes[0].log.read_text().count("hook=before_tool") >= 3


async def test_results_of_every_class_are_changed_before_they_are_stored(world: World) -> None:
    """Also what a tool wrote in the ledger's transaction, and the words of one that refused."""
    assert await results(await ask(world, 'call pay {"amount": 5}', "r1")) == ["paid 5 to <mail>"]
    assert await results(await ask(world, 'call book {"what": "a bed"}', "r2")) == ["booked a bed for <mail>"]
    assert await results(await ask(world, "call closed {}", "r3")) == ["error: <mail> closed it"]
    run = await ask(world, 'call book {"what": "withhold"}', "r4")
    [text] = await results(run)
    assert text.startswith("error: book was called; it is done, and its result is withheld: rules refused this result")
    [row] = await world.rows("select state from effects where run_id = $1 and tool = 'book'", run.run_id)
    assert row["state"] == "done"
    assert await told(run) == [("Redactor", "after_tool", "changed")] or (await told(run))[0][2] == "refused"


async def test_a_plugin_that_fails_is_left_out_and_it_is_told(world: World) -> None:
    """An exception, a time-out, a wrong value: the run goes on, and its record says who failed."""
    for text, why in (("shaky", "I am shaky"), ("slow", "did not end"), ("seven", "returned a int")):
        run = await ask(world, text, f"fails-{text}")
        assert (await run.result()).output == text
        [event] = [event async for event in run.events() if event.kind == "plugin"]
        assert (event.data["plugin"], event.data["did"], why in event.data["why"]) == ("Shaky", "failed", True)


async def test_a_plugin_gives_tools(world: World) -> None:
    """An agent that names it has them, with their class."""
    run = await ask(world, 'call customer {"number": 7}', "crm")
    assert await results(run) == ["customer 7 of desk"]


async def test_a_call_of_another_agent_is_a_message_to_it(world: World) -> None:
    """The message hooks see it, and the answer hooks its answer."""
    run = await ask(world, 'call ask_desk {"message": "FORBIDden question"}', "child", agent="asker")
    assert await results(run) == [
        "error: desk gave no answer, its run is refused: rules refused this message: we do not talk about that"
    ]
    other = await ask(world, 'call ask_desk {"message": "order of ann@example.org"}', "child-2", agent="asker")
    assert await results(other) == ["order of <mail> (seen by rules)"]
