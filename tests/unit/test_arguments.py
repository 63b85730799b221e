"""Arguments on their way to a tool: what cannot be checked is refused once, and not tried for ever."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import AfterValidator

from holdfast import tool
from holdfast.activities.calls import fitting
from holdfast.errors import ToolArgumentsInvalid
from holdfast.llm.streams import named_calls


def _broken(value: str) -> str:
    return {"known": value}[value]


@tool(effect="pure")
def look(name: Annotated[str, AfterValidator(_broken)]) -> str:
    """Look something up."""
    return name


def test_a_check_that_fails_otherwise_is_a_refusal() -> None:
    """A user's own validator that raises something else would end each try alike: the model hears of it instead."""
    assert fitting(look, {"name": "known"}) == {"name": "known"}
    with pytest.raises(ToolArgumentsInvalid, match="KeyError"):
        fitting(look, {"name": "unknown"})
    with pytest.raises(ToolArgumentsInvalid):
        fitting(look, {"nobody": 1})


def test_a_very_long_id_of_a_call_is_replaced() -> None:
    """Two hundred of them travel in one payload; what a provider keeps in one has its place."""
    kept, replaced = named_calls([("k" * 8192, "f", "{}"), ("r" * 8193, "f", "{}")], [])
    assert kept.id == "k" * 8192
    assert replaced.id.startswith("call_")
    assert len(replaced.id) == 29
