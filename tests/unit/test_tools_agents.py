"""Agents among an agent's tools: what the asking model is told, which arguments fit, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from holdfast import Agent
from holdfast.agent import definition_hash
from holdfast.errors import ConfigurationError, ToolArgumentsInvalid, ToolError
from holdfast.tools import agent_tool
from holdfast.tools.agents import hand_off_tool

NO_MODEL: Any = dict


class Place(BaseModel):
    """Where to look."""

    city: str
    days: int = Field(1, ge=1)


def agent(name: str = "helper", **more: Any) -> Agent:
    """Return a small agent."""
    return Agent(name, "openai/test", more.pop("instructions", "You help.\nAlways."), **more)


def test_an_agent_among_tools_is_a_tool_that_asks_it() -> None:
    """It has the agent's name and description; its one argument is the message."""
    boss = agent("boss", tools=[agent(description="Helps."), [agent("second.one")]])
    first, second = boss.definition.tools
    assert (first.name, first.agent, first.effect, first.handoff) == ("helper", "helper", "pure", False)
    assert first.description == "Helps."
    assert list(first.parameters["properties"]) == ["message"]
    assert (second.name, second.agent) == ("second_one", "second.one")
    assert second.description.endswith("You help.")


def test_as_tool_says_it_in_other_words() -> None:
    """Name, description, approval and a typed input may differ from one asking agent to the next."""
    made = agent().as_tool(name="weather", description="The weather.", approval="always", input=Place)
    assert (made.definition.name, made.definition.approval) == ("weather", "always")
    assert made.validate({"city": "Bern"}) == {"city": "Bern"}
    with pytest.raises(ToolArgumentsInvalid, match="days: Input should be greater"):
        made.validate({"city": "Bern", "days": 0})
    with pytest.raises(ToolArgumentsInvalid, match="message: is missing"):
        agent().as_tool().validate({})


def test_hand_offs_are_tools_of_their_own() -> None:
    """By agent or by name, in the order given, behind the other tools."""
    desk = agent("desk", tools=[agent()], handoffs=[agent("billing", description="Knows bills."), "triage"])
    names = [(tool.name, tool.agent, tool.handoff) for tool in desk.definition.tools]
    assert names == [
        ("helper", "helper", False),
        ("hand_off_to_billing", "billing", True),
        ("hand_off_to_triage", "triage", True),
    ]
    assert desk.definition.tools[1].description.endswith("Knows bills.")
    assert hand_off_tool("triage").validate({}) == {"note": ""}


def test_definitions_tell_them_apart() -> None:
    """Whom a tool asks is part of the definition, and so of its hash."""
    one, two = agent("boss", tools=[agent_tool("a", name="ask", description="Asks.")]), agent("boss")
    other = agent("boss", tools=[agent_tool("b", name="ask", description="Asks.")])
    assert len({definition_hash(each.definition) for each in (one, two, other)}) == 3


async def test_it_is_no_function() -> None:
    """Called as one, it says where it can be asked."""
    with pytest.raises(ToolError, match="is asked within a run"):
        await agent().as_tool()(message="hello")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: agent("boss", tools=[agent(), agent()]), "two tools are called 'helper'"),
        (lambda: agent("boss", handoffs="triage"), "write a list"),
        (lambda: agent("boss", handoffs=[5]), "give agents, or names"),
        (lambda: agent().as_tool(name="no spaces"), "cannot be called 'no spaces'"),
        (lambda: agent().as_tool(input=NO_MODEL), "give a pydantic model"),
        (lambda: agent_tool("", description="Nobody."), "name"),
        (lambda: agent_tool("not a name", description="Nobody."), "name"),
        (lambda: agent("boss", handoffs=["x" * 60]), "too long"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_written(make: Any, said: str) -> None:
    """The message names what is wrong and what to write."""
    with pytest.raises(ConfigurationError, match=said):
        make()
