"""The decorator: what becomes of signatures and docstrings, which arguments pass, which declarations do not."""

from __future__ import annotations

import datetime as dt
import enum
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from holdfast.errors import ConfigurationError, ToolArgumentsInvalid
from holdfast.tools import Tool, ToolContext, tool
from holdfast.tools.schema import parse_docstring

CTX = ToolContext(idempotency_key="k" * 64, tenant="default", thread="t", run_id="r", step_no=3, deadline=0.0)


class Colour(enum.Enum):
    """A type for the tests."""

    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    """A type for the tests."""

    sku: str
    count: int = Field(ge=1)


@dataclass
class Point:
    """A type for the tests."""

    x: float
    y: float = 0.0


@tool
def refund(ctx: ToolContext, order_id: str, amount: float, note: str | None = None) -> str:
    """Pay money back for an order.

    Only once.

    Args:
        ctx: the call.
        order_id: id of the order,
            as on the invoice.
        amount (float): in euros.
        note: why.

    Returns:
        What was paid.

    Raises:
        ToolError: it was not.

    """
    return f"{amount} for {order_id} by {ctx.step_no} {note}"


def test_bare_decorator_makes_a_once_tool() -> None:
    """With nothing declared the safest class holds, and the function can still be called."""
    assert isinstance(refund, Tool)
    assert refund.definition.effect == "once"
    assert refund.definition.approval == "never"
    assert refund(CTX, "17", 2.5) == "2.5 for 17 by 3 None"
    assert refund.name == "refund"


def test_schema_from_hints_and_docstring() -> None:
    """The context is left out, descriptions come from the Args section, unknown names are forbidden."""
    parameters = refund.definition.parameters
    assert parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["order_id", "amount"],
        "properties": {
            "order_id": {"type": "string", "description": "id of the order, as on the invoice."},
            "amount": {"type": "number", "description": "in euros."},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "description": "why."},
        },
    }
    jsonschema.Draft202012Validator.check_schema(parameters)
    assert refund.definition.description == "Pay money back for an order.\n\nOnly once.\n\nReturns:\n    What was paid."


def test_rich_types_pass_both_ways() -> None:
    """Models, dataclasses, enums, dates and names that pydantic uses itself all arrive as what was declared."""

    @tool(effect="pure")
    def order(
        json: list[Line],
        copy: Colour,
        when: dt.date,
        at: Point,
        mode: Literal["fast", "slow"] = "slow",
        title: Annotated[str, Field(description="a heading", max_length=5)] = "x",
        limit: int = Field(5, ge=1, description="how many"),
    ) -> None:
        """Order."""

    args = order.validate(
        {"json": [{"sku": "a", "count": "2"}], "copy": "red", "when": "2026-01-31", "at": {"x": 1}, "limit": 7}
    )
    assert args == {
        "json": [Line(sku="a", count=2)],
        "copy": Colour.RED,
        "when": dt.date(2026, 1, 31),
        "at": Point(1.0),
        "mode": "slow",
        "title": "x",
        "limit": 7,
    }
    properties = order.definition.parameters["properties"]
    assert properties["title"] == {"type": "string", "description": "a heading", "maxLength": 5, "default": "x"}
    assert properties["limit"]["description"] == "how many"
    jsonschema.Draft202012Validator.check_schema(order.definition.parameters)


def test_types_local_to_a_function_are_found() -> None:
    """A tool defined inside a function may use that function's own types, quoted as all annotations are here."""

    class Local(BaseModel):
        a: int

    @tool(effect="pure")
    def take(thing: Local) -> int:
        """Take."""
        return thing.a

    assert take(**take.validate({"thing": {"a": 1}})) == 1


def test_wrong_arguments_are_explained_one_by_one() -> None:
    """The message names each parameter, what came and what is expected, so that a model can mend the call."""
    with pytest.raises(ToolArgumentsInvalid) as caught:
        refund.validate({"order_id": None, "amount": "forty", "oder_id": "17"})
    message = str(caught.value)
    assert message.startswith("refund was not called")
    assert '- amount: Input should be a valid number, unable to parse string as a number; you sent "forty"' in message
    assert "expected: number, in euros." in message
    assert "- order_id: Input should be a valid string; you sent null" in message
    assert "- oder_id: there is no such parameter; there are: order_id, amount, note" in message
    with pytest.raises(ToolArgumentsInvalid, match="- amount: is missing; expected: number"):
        refund.validate({"order_id": "1"})


@pytest.mark.parametrize("args", [["17"], "17", None, {"order_id": "1", "amount": float("nan")}])
def test_what_is_no_json_object_is_refused(args: Any) -> None:
    """A model may send anything at all as arguments."""
    with pytest.raises(ToolArgumentsInvalid, match="refund was not called"):
        refund.validate(args)


def test_broken_text_is_refused() -> None:
    """Half a surrogate pair can be sent as JSON but not be stored."""
    with pytest.raises(ToolArgumentsInvalid, match="not valid JSON"):
        refund.validate(json.loads('{"order_id": "\\ud800", "amount": 1}'))


def test_bind_adds_the_context() -> None:
    """The context goes to the parameter of its type, whatever its name."""

    @tool
    def act(thing: str, call: ToolContext) -> str:
        """Act."""
        return thing + call.idempotency_key

    assert act(**act.bind(act.validate({"thing": "a"}), CTX)) == "a" + "k" * 64
    assert act.context == "call"


def _stars(*args: int) -> None: ...
def _double_stars(**kwargs: int) -> None: ...
def _positional(a: int, /) -> None: ...
def _bare(a) -> None: ...  # type: ignore[no-untyped-def]
def _callback(a: Callable[[], int]) -> None: ...
def _bytes(a: bytes) -> None: ...
def _many_bytes(a: list[bytes]) -> None: ...
def _socket(a: subprocess.Popen[str]) -> None: ...
def _nowhere(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _contexts(ctx: ToolContext, a: ToolContext) -> None: ...


@pytest.mark.parametrize(
    "function",
    [_stars, _double_stars, _positional, _bare, _callback, _bytes, _many_bytes, _socket, _nowhere, _contexts],
)
def test_what_no_model_can_send_is_refused_at_decoration(function: Callable[..., Any]) -> None:
    """The message names function and parameter."""
    with pytest.raises(ConfigurationError) as caught:
        tool(function)
    assert function.__name__ in str(caught.value)
    assert "a" in str(caught.value)


def _look(ctx: ToolContext, a: int) -> str | None:
    return None


def test_effect_classes_need_what_they_need() -> None:
    """A declaration that could not keep its promise fails where it stands."""

    def plain(a: int) -> None: ...

    def with_ctx(ctx: ToolContext, a: int) -> None: ...

    async def coroutine(ctx: ToolContext, a: int) -> None: ...

    async def stream(a: int) -> AsyncIterator[int]:
        yield a

    cases: list[tuple[dict[str, Any], Callable[..., Any], str]] = [
        ({"effect": "keyed"}, plain, "idempotency_key"),
        ({"effect": "local_tx"}, with_ctx, "async def"),
        ({"effect": "verifiable"}, with_ctx, "lookup="),
        ({"effect": "verifiable", "lookup": _look}, with_ctx, "settle="),
        ({"effect": "verifiable", "lookup": lambda ctx: None, "settle": 1.0}, with_ctx, r"takes \(ctx, a\)"),
        ({"effect": "once", "settle": 1.0}, plain, "verifiable"),
        ({"effect": "pure", "single_request": True}, plain, "single_request= belongs to"),
        ({"effect": "local_tx", "single_request": True}, coroutine, "single_request= belongs to"),
        ({"effect": "sometimes"}, plain, "effect"),
        ({"timeout": 0}, plain, "timeout"),
        ({"timeout": float("inf")}, plain, "finite"),
        ({"attempts": 0}, plain, "attempts"),
        ({"name": "has space"}, plain, "name"),
        ({}, stream, "yields"),
        ({}, len, "function"),
    ]
    for options, function, words in cases:
        with pytest.raises(ConfigurationError, match=words):
            Tool(function, **options)
    assert Tool(coroutine, effect="local_tx").is_async
    assert Tool(with_ctx, effect="verifiable", lookup=_look, settle=1.0).lookup is _look


def test_docstring_without_sections_and_none() -> None:
    """Whatever a docstring looks like, nothing breaks."""
    assert parse_docstring(None) == ("", {})
    assert parse_docstring("One line.") == ("One line.", {})
    assert parse_docstring("X.\n\n    Args:\n        a: b: c\n        *rest: more\n    ") == (
        "X.",
        {"a": "b: c", "rest": "more"},
    )


def test_context_tells_time_and_guards_the_connection() -> None:
    """A connection is there only inside a ledger transaction; the deadline never goes below zero."""
    assert CTX.remaining == 0.0
    with pytest.raises(ConfigurationError, match="local_tx"):
        _ = CTX.connection
    marker: Any = object()
    assert CTX.with_connection(marker).connection is marker
    CTX.log.debug("a logger is there without any set-up")


def test_importing_the_tools_is_light() -> None:
    """Declaring tools loads no driver, no model library and no Temporal."""
    code = (
        "import sys, holdfast.tools as t; t.calculator; t.files; t.remember;"
        "heavy = {'asyncpg', 'temporalio', 'litellm', 'httpx', 'aiohttp', 'structlog'} & set(sys.modules);"
        "assert not heavy, heavy; assert callable(t.tool)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
