"""Recordings and their replay: what is hidden, what counts as a change, and how it is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import holdfast
from holdfast import Agent, Budget, tool
from holdfast.errors import ConfigurationError
from holdfast.testing import Recording, Script, replay
from holdfast.testing.recording import Hider, RecordedCall, RecordedReply, RecordedRun, clean_history

HISTORY = Path(__file__).parents[1] / "replay" / "histories" / "agent-approvals-0.1.0.json"


@tool(effect="pure")
def look(order: str) -> str:
    """Look it up."""
    return order


@tool(effect="once", approval="always")
def pay(amount: float) -> str:
    """Pay."""
    return str(amount)


def clerk(*tools: Any, **more: Any) -> Agent:
    """Return an agent, as it is today."""
    given: dict[str, Any] = {"instructions": "Be kind.", "budget": Budget(rounds=5), "tools": tools or (look, pay)}
    return Agent("clerk", "openai/gpt-5-mini", **{**given, **more})


def recorded(*calls: tuple[str, str, str], agent: Agent | None = None, **more: Any) -> Recording:
    """Return a run of the agent that made these calls: tool, arguments, what became of it."""
    made = [RecordedCall(tool=name, arguments=text, state=state) for name, text, state in calls]
    given: dict[str, Any] = {
        "run_id": "r",
        "workflow_id": "default:t",
        "agent": "clerk",
        "message": "hello",
        "state": "done",
        "answer": "Paid.",
        "rounds": 2,
        "definitions": [(agent or clerk()).definition],
        "replies": [RecordedReply(definition=0, calls=made, usage=(3, 4)), RecordedReply(definition=0, say="Paid.")],
    }
    return Recording(holdfast=holdfast.__version__, runs=[RecordedRun(**{**given, **more})])


USUAL = (("look", '{"order":"17"}', "done"), ("pay", '{"amount":40}', "done"))


def history() -> dict[str, Any]:
    """Return a history that was recorded once."""
    found: dict[str, Any] = json.loads(HISTORY.read_text(encoding="utf-8"))
    return found


def workflow_id() -> str:
    """Return the id that this history's workflow had."""
    found: str = history()["events"][0]["workflowExecutionStartedEventAttributes"]["workflowId"]
    return found


# --------------------------------------------------------------------------------------------------------- workflows


async def test_histories_are_replayed_beside_a_running_loop() -> None:
    """What today's workflows would decide alike passes, also in an async test."""
    done = replay(recorded(*USUAL, workflow_id=workflow_id(), histories=[history()]), clerk())
    assert (done.histories, done.rounds, done.calls, done.drift) == (1, 2, 2, [])


def test_workflows_that_decide_otherwise_are_told() -> None:
    """A history with another activity stands for a Holdfast that decides otherwise."""
    changed = json.loads(json.dumps(history()).replace('"begin_run"', '"begin_walk"'))
    with pytest.raises(AssertionError, match=r"(?s)decide otherwise .* runs under way would stand still: .*begin_run"):
        replay(recorded(*USUAL, workflow_id=workflow_id(), histories=[changed]), clerk())


# ------------------------------------------------------------------------------------------------------------ agents


def _named(function: Callable[..., Any], name: str, **more: Any) -> Any:
    return tool(name=name, **more)(function)


def _look_by_number(number: int) -> str:
    """Look it up."""
    return str(number)


def _pay_in(amount: Literal[1, 2]) -> str:
    """Pay."""
    return str(amount)


CHANGES = [
    (clerk(look), "clerk, round 1: pay(amount=40) was done, and there is no tool 'pay' any more; there are: look"),
    (clerk(look, _named(_pay_in, "pay", approval="always")), "pay(amount=40) was done, and would be refused today"),
    (clerk(look, _named(_pay_in, "pay", approval="always")), "schema today: "),
    (clerk(_named(_look_by_number, "look", effect="pure"), pay), "order: there is no such parameter"),
    (
        clerk(look, tool(effect="pure", approval="always")(pay.function)),
        "clerk: effect of pay was 'once' and is 'pure'",
    ),
    (clerk(look, tool(pay.function)), "clerk: approval of pay was 'always' and is 'never'"),
    (clerk(budget=Budget(rounds=1)), "clerk: the run used 2 rounds, and its budget is 1 today"),
    (clerk(output=dict[str, int]), "clerk: the recorded answer is not of its output"),
    (Agent("other", "openai/gpt-5-mini"), "there is no agent 'clerk' any more; there are: other"),
]


@pytest.mark.parametrize(("today", "said"), CHANGES, ids=[said[:40] for _, said in CHANGES])
def test_what_changes_the_run_is_told(today: Agent, said: str) -> None:
    """A call that would be refused or treated otherwise, an answer that does not fit, a budget that is too small."""
    with pytest.raises(AssertionError) as changed:
        replay(recorded(*USUAL), today)
    assert said in str(changed.value)
    assert "holdfast export RUN --out FILE" in str(changed.value)


def test_what_does_not_change_the_run_is_drift() -> None:
    """Words and unused tools may change, unless the test is strict."""

    @tool(effect="pure")
    def fetch(url: str) -> str:
        """Fetch."""
        return url

    today = clerk(look, pay, fetch, instructions="Be brief.", budget=Budget(rounds=3))
    assert [each.partition(" was ")[0] for each in replay(recorded(*USUAL), today).drift] == [
        "clerk: instructions",
        "clerk: budget",
        "clerk: the tool 'fetch' is new",
    ]
    with pytest.raises(AssertionError, match=r"(?s)3 changes .*instructions was \"Be kind\.\" and is \"Be brief\.\""):
        replay(recorded(*USUAL), today, strict=True)


def test_a_models_mistakes_stay_mistakes() -> None:
    """What was refused then is refused today; if it would be made today, that is a change."""
    mistakes = (("look", '{"number":1}', "invalid"), ("nobody", "{}", "invalid"), ("pay", '{"amount":', "invalid"))
    assert replay(recorded(*mistakes), clerk()).calls == 3
    with pytest.raises(AssertionError, match=r"look\(number=1\) was refused, and would be made today"):
        replay(recorded(*mistakes), clerk(_named(_look_by_number, "look", effect="pure"), pay))


def test_a_typed_answer_is_read_as_the_type_of_today() -> None:
    """A stricter type refuses the recorded answer, with its reason; the same takes it."""

    class Loose(BaseModel):
        urgency: int

    class Strict(BaseModel):
        urgency: Literal[1, 2, 3]

    before = recorded(answer='{"urgency": 9}', agent=clerk(output=Loose))
    assert replay(before, clerk(output=Loose)).drift == []
    with pytest.raises(AssertionError, match=r"(?s)the recorded answer is not of its output .*urgency"):
        replay(before, clerk(output=Strict))
    with pytest.raises(AssertionError, match="and is text today"):
        replay(before, clerk())


# -------------------------------------------------------------------------------------------------------------- files


def test_the_replies_are_a_script() -> None:
    """The model server takes them: calls with their arguments, broken ones as they were, and the tokens."""
    conversations = Script.of(recorded(*USUAL, ("pay", '{"amount":', "invalid")).script()).conversations
    assert conversations[0].since == "hello"
    [first, second] = conversations[0].replies
    assert first.call == [("look", {"order": "17"}), ("pay", {"amount": 40}), ("pay", '{"amount":')]
    assert (first.usage, second.say) == ((3, 4), "Paid.")


def test_a_file_is_written_and_read(tmp_path: Path) -> None:
    """What was saved is loaded; anything else is refused with what to do."""
    path = tmp_path / "run.json"
    recorded(*USUAL).save(path)
    assert Recording.load(path) == recorded(*USUAL)
    for text, said in [
        ("{}", "is no recording"),
        ("[", "is no recording"),
        ('{"format": 9, "holdfast": "9.0", "runs": []}', "Holdfast 9.0 in a form that"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=said):
            Recording.load(path)
    with pytest.raises(ConfigurationError, match="could not be read"):
        Recording.load(tmp_path / "none.json")


def test_secrets_are_hidden_also_in_payloads() -> None:
    """In texts, in lists, inside the encoded payloads of a history, and as JSON writes them."""
    hide = Hider(['sk-12345"6789', "short"])
    data = base64.b64encode(json.dumps({"key": 'sk-12345"6789', "other": "é"}).encode()).decode()
    shown = hide(
        {"events": [{"payloads": [{"metadata": {"encoding": "x"}, "data": data}]}, 'a sk-12345"6789 b', "short"]}
    )
    assert shown["events"][1:] == ["a *** b", "short"], "what is short would be found in the middle of words"
    payload = base64.b64decode(shown["events"][0]["payloads"][0]["data"]).decode()
    assert json.loads(payload) == {"key": "***", "other": "é"}


def test_no_machine_is_named() -> None:
    """Identities, stack traces and sticky queues tell where a run was; none is kept."""
    event = {
        "identity": "4711@host",
        "stackTrace": "/home/me",
        "taskQueue": {"name": "host-1", "kind": "TASK_QUEUE_KIND_STICKY"},
    }
    text = json.dumps(clean_history({"events": [event]}))
    assert "host" not in text
    assert "/home/me" not in text
