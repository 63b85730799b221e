"""From what tools return to what models read."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pydantic import BaseModel

from holdfast.errors import ToolError, ToolResultInvalid
from holdfast.tools.results import result_text


class Answer(BaseModel):
    """A type for the tests."""

    total: float
    on: dt.date


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (None, "done"),
        (3, "3"),
        (True, "true"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (Answer(total=1.5, on=dt.date(2026, 1, 2)), '{"total":1.5,"on":"2026-01-02"}'),
        ([float("nan")], '["NaN"]'),
        ("nul\x00 and \ud800 ü", "nul\ufffd and ? ü"),
    ],
)
def test_results_become_text(value: Any, text: str) -> None:
    """Text stays, None is `done`, the rest is JSON; nothing a database cannot store comes through."""
    assert result_text("t", value, 1000) == text


@pytest.mark.parametrize("value", [b"raw", bytearray(b"raw"), object(), {"a": b"\xff"}, "x" * 1001, "ü" * 501])
def test_what_cannot_be_kept_is_refused_but_not_as_a_tool_error(value: Any) -> None:
    """The tool has run: an error that means `nothing took effect` would make it run twice."""
    with pytest.raises(ToolResultInvalid, match="t ran, but") as caught:
        result_text("t", value, 1000)
    assert not isinstance(caught.value, ToolError)
