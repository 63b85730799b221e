"""Typed answers on the real servers: validated, corrected, given up, stored once, the same after a crash or a Reset."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from holdfast import Input as In
from holdfast import Output as Out
from holdfast import RunEnded, Signature
from holdfast.activities.requests import rebuild_request
from holdfast.contracts import ASK_WORKFLOW, Ask, AskResult
from holdfast.errors import InvalidInput, OutputInvalid
from holdfast.handles import RunHandle
from holdfast.ids import workflow_id_for
from holdfast.memory.database import connect
from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import World, until

AGENTS = '''
from typing import Literal
from pydantic import BaseModel, Field, field_validator
from holdfast import Agent, Budget, Input, Output, Signature, tool

class Verdict(BaseModel):
    """A judgement."""
    label: Literal["good", "bad"]
    score: float = Field(ge=0, le=1)

    @field_validator("score")
    @classmethod
    def round_figures(cls, value: float) -> float:
        if round(value, 1) != value:
            raise ValueError("one digit behind the point")
        return value

@tool(effect="pure")
async def look(page: int) -> str:
    """Look at a page."""
    return f"page {page}"

judge = Agent(name="judge", model="openai/test", instructions="Judge.", output=Verdict)
native = Agent(name="native", model="openai/test", output=Verdict, native_output=True)
lister = Agent(name="lister", model="openai/test", output=list[Verdict], tools=[look])
strict = Agent(name="strict", model="openai/test", output=Verdict, corrections=0)
short = Agent(name="short", model="openai/test", output=Verdict, budget=Budget(rounds=2))
plain = Agent(name="plain", model="openai/test")

class Summarise(Signature, model="openai/test", temperature=0):
    """Say it in a few words."""
    text: str = Input(description="what is to be said")
    words: int = Input(5)
    summary: str = Output(max_length=20)
    tone: Literal["good", "bad"] = Output()
'''


class Verdict(BaseModel):
    """What the agents file has, as a client might."""

    label: Literal["good", "bad"]
    score: float = Field(ge=0, le=1)


@dataclass
class Tally:
    """Another reading of the same."""

    label: str
    score: float


class Summarise(Signature):
    """The client's copy needs no model."""

    text: str = In()
    words: int = In(5)
    summary: str = Out(max_length=20)
    tone: Literal["good", "bad"] = Out()


GOOD = '{"label": "good", "score": 0.5}'
BAD = '{"label": "so so", "score": 7}'


class Model:
    """Answers by script: the first message of a user names the replies, counted over the whole run."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self.held = asyncio.Event()
        self.let_go = asyncio.Event()

    async def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the next reply; `hold` waits first."""
        self.asked.append(request)
        messages = request["messages"]
        at = max(n for n, message in enumerate(messages) if message.get("content") in self.replies)
        number = sum(message["role"] == "assistant" for message in messages[at:])
        script = self.replies[messages[at]["content"]]
        given = script[min(number, len(script) - 1)]
        if isinstance(given, dict) and given.pop("hold", False):
            self.held.set()
            await self.let_go.wait()
        return {"say": given} if isinstance(given, str) else given

    def said(self, text: str) -> list[dict[str, Any]]:
        """Return the requests in which somebody said this."""
        return [request for request in self.asked if any(m.get("content") == text for m in request["messages"])]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(make_shared_world: MakeWorld) -> AsyncIterator[World]:
    """Return one world with a worker for all tests of this file."""
    model = Model()
    async with ModelServer(reply=model.reply, bodies=False) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url)
        world.models = model
        await world.worker()
        yield world
        model.let_go.set()


async def ask(world: World, agent: str, text: str, replies: list[Any], **more: Any) -> RunHandle:
    """Send a message that the model answers with these replies."""
    world.models.replies[text] = replies
    return await (await world.client()).start(agent, text, **more)


async def kinds(run: RunHandle) -> list[str]:
    """Return the kinds of a run's events."""
    return [event.kind for event in await run.recorded()]


async def test_an_answer_is_typed_where_the_client_has_the_type_and_json_elsewhere(world: World) -> None:
    """One run, read as JSON, as a model, as a dataclass, as text; the model was told the schema in words."""
    run = await ask(world, "judge", "judge this", [GOOD])
    assert (await run.result(60)).output == {"label": "good", "score": 0.5}
    answer = await run.result(60, output=Verdict)
    assert (answer.output.label, answer.output.score, answer.text) == ("good", 0.5, GOOD)
    assert (await run.result(60, output=Tally)).output == Tally("good", 0.5)
    with pytest.raises(OutputInvalid, match="number"):
        await run.result(60, output=dict[str, int])
    [sent] = world.models.said("judge this")
    assert '"maximum":1' in sent["messages"][0]["content"]
    assert sent["messages"][0]["content"].startswith("Judge.")
    assert "response_format" not in sent
    client = await world.client()
    world.models.replies["and this"] = [GOOD]
    assert (await client.run("judge", "and this", output=Verdict, timeout=60)).output.score == 0.5
    assert await kinds(run) == ["accepted", "started", "replied", "ended"]


async def test_a_model_that_can_is_held_to_the_schema_by_its_provider(world: World) -> None:
    """The request has a strict response format, no words about it, and is rebuilt the same."""
    run = await ask(world, "native", "natively", [GOOD])
    await run.result(60)
    [sent] = world.models.said("natively")
    given = sent["response_format"]["json_schema"]
    assert (given["name"], given["strict"]) == ("Verdict", True)
    assert given["schema"]["additionalProperties"] is False
    assert given["schema"]["required"] == ["label", "score"]
    assert [message["role"] for message in sent["messages"]] == ["user"]
    conn = await connect(world.settings.database_url or "")
    step = next(event.data["step"] for event in await run.recorded() if event.kind == "replied")
    rebuilt = await rebuild_request(conn, world.settings, run.run_id, step)
    await conn.close()
    assert rebuilt is not None
    assert rebuilt[1]
    assert rebuilt[0].response_format == sent["response_format"]


async def test_an_answer_that_does_not_fit_is_corrected(world: World) -> None:
    """The model reads what was wrong, the thread shows the correction as ours, and each round is counted."""
    run = await ask(world, "judge", "judge twice", [BAD, "I am sorry.", f"Here it is:\n```json\n{GOOD}\n```\nDone."])
    answer = await run.result(60, output=Verdict)
    assert (answer.output.score, answer.rounds) == (0.5, 3)
    assert await kinds(run) == ["accepted", "started", "replied", "invalid", "replied", "invalid", "replied", "ended"]
    wrong = [event.data for event in await run.recorded() if event.kind == "invalid"]
    assert [data["correction"] for data in wrong] == [1, 2]
    assert "label: " in wrong[0]["why"]
    assert "score: " in wrong[0]["why"]
    messages = await run.messages()
    assert [message.role for message in messages] == [
        "user",
        *("assistant", "correction", "assistant", "correction", "assistant"),
    ]
    last = world.models.said("judge twice")[-1]["messages"]
    assert [message["role"] for message in last][1:] == ["user", "assistant", "user", "assistant", "user"]
    assert "not a person" in last[-1]["content"]
    assert "there is no JSON in it" in last[-1]["content"]


async def test_a_users_own_validator_is_heard(world: World) -> None:
    """What no schema can say is checked where the type is."""
    run = await ask(world, "judge", "be exact", ['{"label": "bad", "score": 0.123}', GOOD])
    assert (await run.result(60)).output["label"] == "good"
    assert "one digit behind the point" in world.models.said("be exact")[-1]["messages"][-1]["content"]


async def test_a_model_that_never_gets_it_right_ends_the_run(world: World) -> None:
    """After so many corrections the run fails, and says what was wrong; the next message is answered."""
    run = await ask(world, "judge", "never right", [BAD], thread="stubborn")
    with pytest.raises(RunEnded, match=r"after 2 corrections: label: .*so so") as ended:
        await run.result(60)
    assert ended.value.state == "failed"
    assert (await run.status()).rounds == 3
    run = await ask(world, "judge", "once more", [GOOD], thread="stubborn")
    assert (await run.result(60)).output["label"] == "good"
    run = await ask(world, "strict", "not even once", [BAD])
    with pytest.raises(RunEnded, match="is not the Verdict it must be: label"):
        await run.result(60)
    assert (await run.status()).rounds == 1


async def test_corrections_are_paid_from_the_budget(world: World) -> None:
    """A run of two rounds has one correction, however many it may have."""
    run = await ask(world, "short", "spend it", [BAD])
    with pytest.raises(RunEnded, match="2 of 2 rounds"):
        await run.result(60)
    assert (await run.status()).state == "over_budget"


async def test_tools_come_first_and_only_the_last_reply_is_checked(world: World) -> None:
    """Words beside a call are no answer; a list travels in an object, and is taken out of it."""
    calls = {"say": "let me see", "call": {"look": {"page": 1}}}
    run = await ask(world, "lister", "list them", [calls, f"[{BAD}]", f'{{"value": [{GOOD}, {GOOD}]}}'])
    answer = await run.result(60, output=list[Verdict])
    assert [verdict.score for verdict in answer.output] == [0.5, 0.5]
    assert (await run.result(60)).output == [json.loads(GOOD)] * 2
    assert await kinds(run) == [
        *("accepted", "started", "replied", "tool_done", "replied", "invalid", "replied", "ended"),
    ]


async def test_any_temporal_client_gets_text_and_json(world: World) -> None:
    """AskWorkflow's result has the answer as it was written, and as JSON."""
    world.models.replies["from afar"] = [f"Well: {GOOD}"]
    temporal = await histories.connect(world.settings)
    result: AskResult = await temporal.execute_workflow(
        ASK_WORKFLOW,
        Ask(agent="judge", text="from afar"),
        id=f"{world.settings.tenant}-afar",
        task_queue=world.settings.task_queue,
        result_type=AskResult,
    )
    assert (result.answer, result.output) == (f"Well: {GOOD}", json.loads(GOOD))


async def test_a_plain_answer_can_be_read_as_a_type(world: World) -> None:
    """An agent without an output type gives text; a client may read JSON in it, and is told when there is none."""
    run = await ask(world, "plain", "as you like", [GOOD])
    assert (await run.result(60)).output == GOOD
    assert (await run.result(60, output=Verdict)).output.label == "good"
    run = await ask(world, "plain", "in words", ["quite good"])
    with pytest.raises(OutputInvalid, match="there is no JSON in it"):
        await run.result(60, output=Verdict)


async def test_tokens_come_as_they_are_spoken(world: World) -> None:
    """A typed answer streams like any other."""
    run = await ask(world, "judge", "stream it", [{"say": f"Here is {GOOD}", "pace": 0.2}])
    heard = [event.data["text"] async for event in run.events(tokens=True) if event.kind == "tokens"]
    assert heard
    assert heard[0].startswith("Here")


async def test_a_killed_worker_leaves_one_correction_for_each_wrong_answer(world: World) -> None:
    """Killed while the model is asked again, the run goes on where it was: no reply and no correction twice."""
    model = world.models
    model.held.clear()
    run = await ask(world, "judge", "killed amid", [BAD, {"say": BAD, "hold": True}, GOOD])
    await model.held.wait()
    world.processes[-1].kill()
    model.let_go.set()
    await world.worker()
    answer = await run.result(60)
    assert (answer.output["label"], answer.rounds) == ("good", 3)
    roles = [message.role for message in await run.messages()]
    assert roles == ["user", "assistant", "correction", "assistant", "correction", "assistant"]


async def test_a_reset_finds_the_corrections_it_made(world: World) -> None:
    """Reset to its first task, the run goes through its recorded rounds again and asks the model nothing anew."""
    model = world.models
    model.held.clear()
    model.let_go.clear()
    run = await ask(world, "lister", "reset me", [f"[{BAD}]", {"say": "no", "hold": True}, f"[{GOOD}]"], thread="reset")
    await model.held.wait()
    temporal = await histories.connect(world.settings)
    await histories.reset(temporal, workflow_id_for(world.settings.tenant, "reset"))
    model.let_go.set()
    answer = await run.result(60)
    assert answer.output == [json.loads(GOOD)]
    assert answer.rounds == 3
    steps = await world.rows("select step_no, tool from effects where run_id = $1 order by step_no", run.run_id)
    assert [step["tool"] for step in steps] == ["model"] * 3
    roles = [message.role for message in await run.messages()]
    assert roles == ["user", "assistant", "correction", "assistant", "correction", "assistant"]


async def test_predict_is_a_typed_call_that_is_made_once(world: World) -> None:
    """Inputs and outputs are checked; the same message id is the same run, also without a thread."""
    client = await world.client()
    text = json.dumps({"text": "the long story", "words": 5}, indent=2)
    world.models.replies[text] = ['{"summary": "much too long a summary, really", "tone": "good"}', SHORT]
    made = await client.predict(Summarise, text="the long story", message_id="doc-17", timeout=60)
    assert (made.text, made.words, made.summary, made.tone) == ("the long story", 5, "short", "good")
    assert made.answer_.rounds == 2
    again = await client.predict(Summarise, text="the long story", message_id="doc-17", timeout=60)
    assert again.answer_.run_id == made.answer_.run_id
    [first, *_] = world.models.said(text)
    assert "Say it in a few words." in first["messages"][0]["content"]
    assert "- text: what is to be said" in first["messages"][0]["content"]
    assert first["temperature"] == 0
    with pytest.raises(InvalidInput, match="text: Field required"):
        await client.predict(Summarise, words=3)
    with pytest.raises(InvalidInput, match=r"'doc-17' was used with other inputs before \(text\)"):
        await client.predict(Summarise, text="another story", message_id="doc-17", timeout=60)
    with pytest.raises(InvalidInput, match=r"other inputs before \(words\)"):
        await client.predict(Summarise, text="the long story", words=6, message_id="doc-17", timeout=60)


SHORT = '{"summary": "short", "tone": "good"}'


async def test_the_offline_stand_in_says_that_it_cannot(make_shared_world: MakeWorld) -> None:
    """Without a key no typed answer can be had: the run fails at once and says what to set."""
    world = await make_shared_world(AGENTS)
    await world.worker()
    run = await (await world.client()).start("judge", "judge this")
    with pytest.raises(RunEnded, match=r"offline/extractive, which stands in for openai/test.* Set the key"):
        await run.result(60)


async def test_a_run_rolls_over_amid_its_corrections(make_shared_world: MakeWorld) -> None:
    """Continue-as-new between two corrections loses neither of them, and counts none twice."""
    model = Model()
    pages = [{"call": {"look": {"page": number}}} for number in range(6)]
    model.replies["roll"] = [*pages, f"[{BAD}]", "no", f"[{GOOD}]"]
    async with ModelServer(reply=model.reply, bodies=False) as models:
        world = await make_shared_world(AGENTS, api_base=models.base_url, roll_after_events=50)
        await world.worker()
        run = await (await world.client()).start("lister", "roll", thread="roll")
        answer = await run.result(60)
        assert (answer.output, answer.rounds) == ([json.loads(GOOD)], 9)

        async def rolled() -> bool:
            rows = await world.rows("select writer from threads where thread = 'roll'")
            temporal = await histories.connect(world.settings)
            workflow_id = workflow_id_for(world.settings.tenant, "roll")
            return len(await histories.chain(temporal, workflow_id, rows[0]["writer"])) > 1

        await until(rolled, "the workflow has continued as new")
