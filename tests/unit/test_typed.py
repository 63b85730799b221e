"""Types and schemas, the one JSON value in a model's words, signatures, and the text of a recurring message."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationInfo, field_validator
from typing_extensions import TypedDict

from holdfast import Agent, Input, Output, Signature, llm
from holdfast.contracts import AnswerDefinition
from holdfast.errors import AgentsFileError, ConfigurationError, InvalidInput, OutputInvalid
from holdfast.schedules.times import shown, times
from holdfast.template import fill
from holdfast.tools.registry import load_agents
from holdfast.typed import NotOneJson, answer_value, find_json, response_format, schema_problem
from holdfast.typed.signature import agent_of, message_of


class Line(BaseModel):
    """A line of an order."""

    sku: str = Field(min_length=2)
    count: int = 1


class Order(BaseModel):
    """With what schemas are made of."""

    number: int
    day: date
    lines: list[Line]
    note: str | None = None


class Node(BaseModel):
    """A type that has itself in it."""

    value: int
    children: list[Node] = []


@dataclass
class Point:
    """A plain dataclass."""

    x: int
    y: int = 0


class Named(TypedDict):
    """A dict with known keys."""

    name: str


FOUND: list[tuple[str, Any]] = [
    ('{"a": 1}', {"a": 1}),
    (" \n[1, 2] ", [1, 2]),
    ("42", 42),
    ('"word"', "word"),
    ('Sure:\n```json\n{"a": 1}\n```\nIs that all?', {"a": 1}),
    ("```\n[1]\n```", [1]),
    ('It is {"a": {"b": 1}} as far as I see, {x}.', {"a": {"b": 1}}),
    ('See [1] and {"a": 1}', {"a": 1}),
    ('```python\nprint(1)\n```\n```json\n{"a": 1}\n```', {"a": 1}),
    ('{"a": "}{"}', {"a": "}{"}),
]


@pytest.mark.parametrize(("text", "value"), FOUND)
def test_the_one_json_value_is_found(text: str, value: Any) -> None:
    """Bare, fenced, or with words around it."""
    assert find_json(text) == value


NOT_FOUND = [
    ("", "empty"),
    ("no idea", "no JSON"),
    ('{"a": 1} or {"a": 2}', "2 JSON values"),
    ("```json\n{}\n```\n```json\n{}\n```", "2 JSON values"),
    ('{"a": 1', "not JSON"),
    ('{"a": NaN}', "NaN"),
    ('{"a": 1e999}', "no JSON text can"),
    ('{"a": "\\ud800"}', "no JSON text can"),
    ("{" * 100_000, "not JSON"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "said"), NOT_FOUND, ids=lambda value: value[:20])
@pytest.mark.timeout(10)
def test_none_or_several_are_refused(text: str, said: str) -> None:
    """The message says which it was, for the model to read; nothing takes long."""
    with pytest.raises(NotOneJson, match=said):
        find_json(text)


def definition(kind: Any) -> AnswerDefinition:
    """Return what an agent with this output type has in its definition."""
    found = Agent("a", "openai/x", output=kind).definition.output
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "wrapped", "strict"),
    [
        (Order, False, True),
        (Node, False, True),
        (Point, False, True),
        (Named, False, True),
        (Literal["a", "b"], True, True),
        (list[Point], True, True),
        (Order | Point, True, True),
        (int, True, True),
        (dict[str, int], False, False),
        (list[Any], True, False),
    ],
)
def test_every_kind_of_type_has_a_schema(kind: Any, wrapped: bool, strict: bool) -> None:
    """What is no object is wrapped in one; a request is strict where all of the schema can be."""
    answer = definition(kind)
    asked = response_format(answer)["json_schema"]
    assert (answer.wrapped, asked["strict"]) == (wrapped, strict)
    assert asked["schema"]["type"] == "object"
    assert answer.shape == definition(kind).shape


def closed(schema: Any) -> bool:
    """Whether each object of a schema is closed and requires all its members, as strict mode wants it."""
    if isinstance(schema, list):
        return all(closed(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    own = schema.get("type") != "object" or (
        schema["additionalProperties"] is False and schema["required"] == list(schema["properties"])
    )
    alone = "$ref" not in schema or set(schema) <= {"$ref", "$defs"}
    return own and alone and "default" not in schema and all(closed(part) for part in schema.values())


@pytest.mark.parametrize("kind", [Order, Node, list[Point], Order | Point])
def test_strict_schemas_are_closed_all_the_way_down(kind: Any) -> None:
    """No object is open, no member optional, no reference has company; what cannot be said is told in words."""
    schema = response_format(definition(kind))["json_schema"]["schema"]
    assert closed(schema)
    assert "minLength" not in json.dumps(schema).replace("(minLength: 2)", "")


def test_a_problem_names_each_place() -> None:
    """By the type, and where a worker has not the type by the schema."""
    answers = Agent("a", "openai/x", output=Order).answers
    assert answers is not None
    value = {"number": "x", "day": "2026-01-05", "lines": [{"sku": "a"}]}
    problem = answers.problem(value) or ""
    assert "number: " in problem
    assert "lines.0.sku: " in problem
    assert "number: 'x' is not of type 'integer'" in (schema_problem(definition(Order), value) or "")
    good = {"number": 1, "day": "2026-01-05", "lines": []}
    assert answers.problem(good) is None
    assert schema_problem(definition(Order), good) is None
    assert answers.validate(good).day == date(2026, 1, 5)
    assert schema_problem(definition(list[int]), [1]) is None
    assert "value.0" in (schema_problem(definition(list[int]), ["x"]) or "")


def test_an_expression_that_python_does_not_know_is_left_to_the_type() -> None:
    """Pydantic's expressions are Rust's; by the schema alone what Python knows is checked, the rest breaks nothing."""

    class Named(BaseModel):
        name: str = Field(pattern=r"^\p{Lu}\w+$")
        code: str = Field(pattern="^[A-Z]+$")

    assert schema_problem(definition(Named), {"name": "Émile", "code": "AB"}) is None
    assert "code: 'ab' does not match" in (schema_problem(definition(Named), {"name": "Émile", "code": "ab"}) or "")


def test_a_wrapped_value_is_unwrapped_and_a_bare_one_taken() -> None:
    """Models leave the wrapping out now and then."""
    assert answer_value(definition(list[int]), '{"value": [1]}') == [1]
    assert answer_value(definition(list[int]), "[1]") == [1]


def test_a_validator_that_fails_otherwise_is_a_problem_and_no_crash() -> None:
    """A mistake in a user's validator is told; the reply is recorded all the same."""

    class Odd(BaseModel):
        value: int

        @field_validator("value")
        @classmethod
        def look_up(cls, value: int) -> int:
            return {1: 1}[value]

    answers = Agent("a", "openai/x", output=Odd).answers
    assert answers is not None
    assert answers.problem({"value": 2}) == "its validator failed: KeyError: 2"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"output": lambda: 1}, "no type"),
        ({"output": "Order"}, "no type"),
        ({"output": object()}, "no JSON schema"),
        ({"output": int, "corrections": 11}, "0 to 10"),
        ({"output": int, "corrections": True}, "0 to 10"),
        ({"output": int, "native_output": "yes"}, "True, False"),
        ({"output": int, "model": "offline/extractive"}, "cannot give typed answers"),
    ],
)
def test_what_cannot_be_an_output_is_refused_with_the_agent(given: dict[str, Any], said: str) -> None:
    """When the file is loaded, not when the first run is asked."""
    options: dict[str, Any] = {"name": "a", "model": "openai/x", **given}
    with pytest.raises(ConfigurationError, match=said):
        Agent(**options)


def test_litellm_says_which_models_are_held_to_a_schema() -> None:
    """Beside tools only those whose API takes both; never the stand-in, never a model nobody knows."""
    asked = [("openai/gpt-4o-mini", True, True), ("anthropic/claude-sonnet-4-5", True, False)]
    asked += [("openai/nobody-knows", False, False), ("offline/extractive", False, False)]
    for model, alone, beside in asked:
        assert llm.supports_schema(model) is alone, model
        assert llm.supports_schema(model, tools=True) is beside, model


# ---------------------------------------------------------------------------------------------------------- signatures


class Base(Signature, model="openai/x", temperature=0):
    """Names the model for all."""


class Translate(Base):
    """Translate it."""

    text: str = Input(description="the text")
    into: Literal["de", "fr"] = Input("de")
    result: str = Output(min_length=1)
    sure: float = Output(0.5, ge=0, le=1)

    @field_validator("result")
    @classmethod
    def no_english(cls, value: str, info: ValidationInfo) -> str:
        """Refuse a word."""
        if "the" in value:
            raise ValueError(f"{info.field_name} is English")
        return value


def test_a_signature_becomes_an_agent() -> None:
    """Docstring and inputs are its instructions, outputs its output with their validators, the rest is inherited."""
    agent = agent_of(Translate)
    assert (agent.name, agent.definition.model, agent.definition.temperature) == ("Translate", "openai/x", 0)
    assert agent.definition.instructions.startswith("Translate it.")
    assert "- text: the text" in agent.definition.instructions
    assert agent.definition.output is not None
    assert list(agent.definition.output.shape["properties"]) == ["result", "sure"]
    assert "x-holdfast" not in agent.definition.model_dump_json()
    assert agent.answers is not None
    assert agent.answers.problem({"result": "das"}) is None
    assert "result is English" in (agent.answers.problem({"result": "the"}) or "")
    given, text = message_of(Translate, {"text": "it"})
    assert given == json.loads(text) == {"text": "it", "into": "de"}


@pytest.mark.parametrize("inputs", [{}, {"text": 1}, {"text": "it", "into": "en"}, {"text": "it", "result": "das"}])
def test_inputs_are_checked_before_anything_is_sent(inputs: dict[str, Any]) -> None:
    """Missing, of another type, not among the choices, or no input at all."""
    with pytest.raises(InvalidInput):
        message_of(Translate, inputs)


def test_one_made_by_hand_comes_from_no_run() -> None:
    """And says so."""
    with pytest.raises(InvalidInput, match="by hand"):
        _ = Translate(text="it", result="das").answer_


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("class X(Signature, model='openai/x'):\n    text: str", "write `text: … = Input\\(\\)`"),
        ("class X(Signature, model='openai/x'):\n    text: str = Input()", "has no output"),
        ("class X(Signature, model='openai/x'):\n    thread: str = Input()\n    a: str = Output()", "'thread'"),
        ("class X(Signature):\n    a: str = Output()", "names no model"),
        ("class X(Signature, model='openai/x', output=int):\n    a: str = Output()", "takes no output"),
        ("class X(Signature, model='openai/x', heat=1):\n    a: str = Output()", "takes no heat"),
        ("class X(Signature, model='offline/extractive'):\n    a: str = Output()", "cannot give typed answers"),
        ("class X(Signature, model='openai/x', name='a b'):\n    a: str = Output()", "name is 'a b'"),
        ("class X(Signature, model='openai/x'):\n    a: str = Output()\nx = Agent('X', 'openai/x')", "both agents"),
    ],
)
def test_a_wrong_signature_is_told_when_the_file_is_loaded(body: str, said: str, tmp_path: Path) -> None:
    """The message says what to write."""
    path = tmp_path / "agents.py"
    path.write_text(f"from holdfast import Agent, Input, Output, Signature\n{body}\n")
    with pytest.raises(AgentsFileError, match=said):
        load_agents(path)


def test_signatures_of_a_file_are_agents_once(tmp_path: Path) -> None:
    """A base without fields is none, a second name for one is the same."""
    path = tmp_path / "agents.py"
    path.write_text(
        "from holdfast import Input, Output, Signature\n"
        "class Base(Signature, model='openai/x'):\n    'All.'\n"
        "class One(Base):\n    'Do it.'\n    a: str = Output()\n"
        "Same = One\n"
        "class Two(Base, name='second'):\n    b: int = Output()\n"
    )
    assert list(load_agents(path)) == ["One", "second"]


def test_a_client_without_a_type_of_its_own_is_told_what_does_not_fit() -> None:
    """An answer read as something else names the place."""
    from holdfast.typed.answers import read_output

    agent = Agent("a", "openai/x", output=Point).definition
    assert read_output(agent, '{"x": 1}') == {"x": 1}
    assert read_output(agent, '{"x": 1}', Point) == Point(1)
    with pytest.raises(OutputInvalid, match="number: Field required"):
        read_output(agent, '{"x": 1}', Order)


# ----------------------------------------------------------------------------------------------------------- schedules

AT = datetime(2026, 7, 5, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{date}", "2026-07-06"),
        ("{time}", "2026-07-06T00:30:00+02:00"),
        ("{time:%H:%M} {date:%d.%m.%Y}", "00:30 06.07.2026"),
        ("{schedule} {{time}}", "late {time}"),
        ("no fields, 100 %", "no fields, 100 %"),
    ],
)
def test_a_template_is_filled_with_the_scheduled_time(text: str, said: str) -> None:
    """In the schedule's zone, summer time and all."""
    assert fill(text, schedule="late", at=AT, time_zone="Europe/Berlin") == said


@pytest.mark.parametrize(
    "text",
    ["{0}", "{}", "{time.year}", "{time[0]}", "{time!r}", "{time:>99999999}", "{time:%Q}", "{x}", "{", "}", "{time"],
)
def test_a_template_reaches_nothing_else(text: str) -> None:
    """No attribute, no index, no conversion, no width."""
    with pytest.raises(InvalidInput):
        fill(text, schedule="late", at=AT, time_zone="UTC")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cron": "0  7 * * mon-fri"}, "0 7 * * mon-fri"),
        ({"cron": ["@daily", "0 9 * * *"]}, "@daily; 0 9 * * *"),
        ({"every": "1h30m", "offset": 60}, "every 1h30m + 1m"),
        ({"every": timedelta(days=8)}, "every 1w1d"),
        ({"calendar": {"hour": "8-18/2", "day_of_week": "fri-7"}}, "hour=8-18/2 day_of_week=fri-7"),
    ],
)
def test_times_are_shown_as_they_were_written(given: dict[str, Any], said: str) -> None:
    """Whatever form Temporal has for them."""
    assert shown(times(**given)) == said


def test_a_calendar_is_ranges() -> None:
    """Names, steps, lists, and both Sundays."""
    [calendar] = times(calendar={"month": "jan,mar-may", "minute": "*/20", "day_of_week": "sat-7"}).calendars
    assert [(r.start, r.end, r.step) for r in calendar.month] == [(1, 1, 1), (3, 5, 1)]
    assert [(r.start, r.end, r.step) for r in calendar.minute] == [(0, 59, 20)]
    assert [(r.start, r.end) for r in calendar.day_of_week] == [(0, 0), (6, 6)]
