"""The offline model answers the first question of a new user, or says in which form it would."""

from __future__ import annotations

import pytest

from holdfast.tools import tool
from holdfast.tools.tool import AnyTool
from tests.unit.test_llm_extractive import Conversation


@tool(effect="pure")
def stock(item: str) -> int:
    """Count how many of an item are in stock."""
    return 3


@tool
def order(item: str, count: int) -> str:
    """Order more of an item."""
    return f"ordered {count} of {item}"


@pytest.mark.parametrize("tools", [[stock], [stock, order]], ids=["alone", "beside another"])
@pytest.mark.parametrize(
    ("question", "item"),
    [
        ("How many lamps are in stock?", "lamps"),
        ("How many desk lamps do we have in stock?", "desk lamps"),
        ("What is the stock of lamps?", "lamps"),
    ],
)
async def test_an_ordinary_question_is_looked_up(question: str, item: str, tools: list[AnyTool]) -> None:
    """What the question is about, and the tool is not, is the tool's argument."""
    talk = Conversation(tools)
    answer = await talk.ask(question)
    assert talk.called == [("stock", {"item": item})]
    assert f"stock(item='{item}'): 3" in answer


async def test_a_refusal_names_the_form_that_works() -> None:
    """Who is told the form can use it: with a quoted value, a bare one, and numbers."""
    talk = Conversation([stock, order])
    refused = await talk.ask("What does the weather do?")
    assert "stock(item=…), order(item=…, count=…)" in refused
    assert talk.called == []
    assert "stock(item='red lamps'): 3" in await talk.ask("Please: stock(item=red lamps)")
    assert "ordered 2 of a, b" in await talk.ask('order(item="a, b", count=2)')
    assert talk.called == [("stock", {"item": "red lamps"}), ("order", {"item": "a, b", "count": 2})]


async def test_a_call_that_fails_is_made_once() -> None:
    """A call that was spelled out and failed is told, and not repeated."""
    talk = Conversation([order], answers={"order": "error: sold out"})
    assert "sold out" in await talk.ask('order(item="lamp", count=2)')
    assert len(talk.called) == 1
