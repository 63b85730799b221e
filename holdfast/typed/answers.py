"""What an answer must be: a Python type, its JSON schema, and what of a model's words does not fit it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from holdfast.contracts import AgentDefinition, AnswerDefinition
from holdfast.errors import ConfigurationError, OutputInvalid
from holdfast.ids import canonical_json
from holdfast.typed.found import NotOneJson, find_json

__all__ = ["WRAPPED", "AnswerType", "answer_value", "read_output", "schema_problem"]

T = TypeVar("T")

WRAPPED = "value"
"""The one member of the object around an answer whose type is no object: providers take objects only."""

_USE = "Use a pydantic model, a dataclass, a TypedDict, or a Literal, union or list of such."
_MOST_PROBLEMS = 10
_SHOWN = 60  # characters of a value that did not fit


class AnswerType(Generic[T]):
    """A type that answers are validated as: a pydantic model, a dataclass, a TypedDict, a Literal, a union, a list."""

    def __init__(self, kind: type[T] | Any) -> None:  # Any: a union or Literal is no type
        """Take the type.

        Raises:
            ConfigurationError: it has no JSON schema; the message says why.

        """
        if isinstance(kind, str) or inspect.isroutine(kind):  # pydantic would take either for something else
            raise ConfigurationError(f"output is {kind!r:.200}, which is no type. {_USE}")
        self._name = _named(kind)
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(kind)
            self._schema = self._adapter.json_schema()
        except (PydanticUserError, PydanticSchemaGenerationError, TypeError, NameError) as exc:
            why = str(exc).partition("\n")[0].rstrip(". ")
            raise ConfigurationError(f"output is {kind!r:.200}, which has no JSON schema: {why}. {_USE}") from None

    def definition(self, *, corrections: int = 2, native: bool | None = None) -> AnswerDefinition:
        """Return the type as runs know it."""
        wrapped = not _is_object(self._schema)
        return AnswerDefinition(
            name=self._name,
            shape=_wrap(self._schema) if wrapped else self._schema,
            wrapped=wrapped,
            corrections=corrections,
            native=native,
        )

    def validate(self, value: Any) -> T:
        """Return JSON as this type.

        Raises:
            OutputInvalid: it does not fit; the message names each place.

        """
        try:
            return self._adapter.validate_json(canonical_json(value))
        except ValidationError as exc:
            raise OutputInvalid(_told(exc)) from None

    def problem(self, value: Any) -> str | None:
        """Say what of a JSON value does not fit, or None. A validator that fails otherwise has a word as well."""
        try:
            self.validate(value)
        except OutputInvalid as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001  # a user's own validator; the reply is paid for and must be recorded
            return f"its validator failed: {type(exc).__name__}: {exc}"[:500]
        return None


def answer_value(answer: AnswerDefinition, text: str) -> Any:  # Any: JSON
    """Return the JSON value of an answer's text, taken out of its wrapping.

    Raises:
        NotOneJson: there is none, or there are several.

    """
    value = find_json(text)
    if answer.wrapped and isinstance(value, dict) and set(value) == {WRAPPED}:
        return value[WRAPPED]
    return value


def read_output(definition: AgentDefinition | None, text: str, kind: Any = None) -> Any:
    """Return an answer as a client reads it: as *kind*, else as the JSON the agent gives, else as text.

    Raises:
        OutputInvalid: it is not of the type *kind*.

    """
    answer = definition.output if definition is not None else None
    if answer is None and kind is None:
        return text
    read: AnswerType[Any] | None = None if kind is None else AnswerType(kind)
    try:
        value = answer_value(answer or read.definition(), text)  # type: ignore[union-attr]  # one of the two is there
        return value if read is None else read.validate(value)
    except (NotOneJson, OutputInvalid) as exc:
        if kind is None:
            return text
        what = getattr(kind, "__name__", kind)
        raise OutputInvalid(
            f"the answer cannot be read as {what}: {exc}. Read it without a type, or give the agent this output=."
        ) from None


def schema_problem(answer: AnswerDefinition, value: Any) -> str | None:
    """Say what of a JSON value does not fit the schema: for workers that have not the type a run began with."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    validator: Any = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]
    whole = {WRAPPED: value} if answer.wrapped else value
    try:
        errors = list(validator(answer.shape).iter_errors(whole))
    except RecursionError:
        return "it is nested too deeply"
    except Exception as exc:  # noqa: BLE001  # the reply is paid for and must be recorded, as with a type's own checks
        return f"its schema cannot be checked: {type(exc).__name__}: {exc}"[:500]
    lines = [f"{'.'.join(str(part) for part in error.absolute_path) or 'it'}: {error.message:.300}" for error in errors]
    return _listed(lines) if lines else None


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    """Check an expression that Python knows too: pydantic's are Rust's, with more in them than Python's."""
    from jsonschema import ValidationError as Unfit

    try:
        if isinstance(value, str) and not re.search(pattern, value):
            yield Unfit(f"{value!r:.{_SHOWN}} does not match {pattern!r}")
    except re.error:
        return


def _told(exc: ValidationError) -> str:
    lines = []
    for error in exc.errors(include_url=False):
        place = ".".join(str(part) for part in error["loc"]) or "it"
        got = "" if error["type"] == "missing" else f" (got {error['input']!r:.{_SHOWN}})"
        lines.append(f"{place}: {error['msg']}{got}")
    return _listed(lines)


def _listed(lines: list[str]) -> str:
    more = len(lines) - _MOST_PROBLEMS
    return "; ".join(lines[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _named(kind: Any) -> str:
    """Return a name that providers take: 1 to 64 of A-Z a-z 0-9 _ -."""
    name = kind.__name__ if isinstance(kind, type) else "answer"
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "answer"


def _is_object(schema: dict[str, Any]) -> bool:
    root = schema
    if "$ref" in schema:
        root = schema.get("$defs", {}).get(schema["$ref"].removeprefix("#/$defs/"), {})
    return root.get("type") == "object"


def _wrap(schema: dict[str, Any]) -> dict[str, Any]:
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    outer = {
        "type": "object",
        "properties": {WRAPPED: inner},
        "required": [WRAPPED],
        "additionalProperties": False,
    }
    return {**outer, "$defs": schema["$defs"]} if "$defs" in schema else outer
