"""The class users write: what it accepts, what it says when it does not, and its hash."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from holdfast.agent import Agent, definition_hash
from holdfast.contracts import AgentDefinition, Budget
from holdfast.errors import ConfigurationError, ToolError
from holdfast.tools import tool


@tool(effect="pure")
async def order_status(order_id: str) -> dict[str, Any]:
    """Look up one order."""
    return {"id": order_id}


def plain(text: str) -> str:
    """Do something."""
    return text


def test_definition_holds_all_that_was_said() -> None:
    """Plain functions become `once` tools; lists of tools are opened; the budget has its default."""
    agent = Agent(
        "support", "openai/gpt-5-mini", "Help.", [order_status, [plain]], temperature=0.0, params={"top_p": 1}
    )
    assert [item.name for item in agent.definition.tools] == ["order_status", "plain"]
    assert agent.tool("plain").definition.effect == "once"
    assert agent.tool("order_status") is order_status
    assert agent.definition.budget == Budget()
    assert agent.name == "support"
    with pytest.raises(ToolError, match="there is no tool 'gone'; there are: order_status, plain"):
        agent.tool("gone")


def test_memory_adds_its_two_tools_once() -> None:
    """A tool of the user's own with such a name stays."""

    @tool(effect="pure", name="recall")
    def own(query: str) -> str:
        """Recall."""
        return query

    assert list(Agent("a", "m", memory=True).tools) == ["remember", "recall"]
    agent = Agent("a", "m", memory=True, tools=[own])
    assert list(agent.tools) == ["recall", "remember"]
    assert agent.tool("recall") is own
    assert agent.definition.memory
    assert {item.name: item.queue for item in agent.definition.tools} == {"recall": "agents", "remember": "memory"}


def test_hash_tells_definitions_apart_and_survives_storage() -> None:
    """It changes with any field, and is the same in another process and after a round trip through JSON."""
    agent = Agent("a", "m", "x", tools=[order_status])
    known = definition_hash(agent.definition)
    assert len(known) == 64
    assert definition_hash(AgentDefinition.model_validate_json(agent.definition.model_dump_json())) == known
    assert definition_hash(Agent("a", "m", "x", tools=[tool(effect="once")(order_status)]).definition) != known
    assert definition_hash(Agent("a", "m", "x", tools=[order_status], memory=True).definition) != known
    code = "from holdfast.agent import *; print(definition_hash(Agent('b', 'm', memory=True).definition))"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60) for _ in "12"]
    assert runs[0].stdout == runs[1].stdout == definition_hash(Agent("b", "m", memory=True).definition) + "\n"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "has space"}, "agent 'has space': name is 'has space'; use 1 to 128"),
        ({"model": ""}, "openai/gpt-5-mini"),
        ({"model": None}, "openai/gpt-5-mini"),
        ({"instructions": None}, "instructions is None; use text"),
        ({"tools": plain}, "must be a list"),
        ({"tools": ["plain"]}, "is no tool"),
        ({"tools": [plain, plain]}, "two tools are called 'plain'"),
        ({"budget": 5}, "use Budget"),
        ({"window": 3}, "at least 256"),
        ({"memory": "yes"}, "True or False"),
        ({"api_base": "localhost:80"}, "http://"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"temperature": float("nan")}, "not finite"),
        ({"params": {"a": object()}}, "JSON"),
        ({"params": []}, "use a dict"),
    ],
)
def test_mistakes_are_named_with_what_to_write_instead(wrong: dict[str, Any], words: str) -> None:
    """Every message names the agent."""
    given: dict[str, Any] = {"name": "a", "model": "m", **wrong}
    with pytest.raises(ConfigurationError, match=words) as caught:
        Agent(**given)
    assert str(caught.value).startswith("agent ")
