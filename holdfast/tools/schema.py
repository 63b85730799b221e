"""From a function's type hints and docstring to the JSON schema a model sees, and back: checked arguments.

Used by `holdfast.tools.tool` alone.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from holdfast.errors import ConfigurationError, ToolArgumentsInvalid
from holdfast.ids import canonical_json
from holdfast.tools.context import ToolContext

__all__ = ["Signature", "parse_docstring", "read_signature"]

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?|Attributes|Todo):\s*$")
_PARAMETER = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_KINDS: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "gathers any number of values",
    inspect.Parameter.VAR_KEYWORD: "gathers any number of names",
    inspect.Parameter.POSITIONAL_ONLY: "has no name to call it by",
}
_ERRORS_SHOWN = 20


class _Schema(GenerateJsonSchema):
    """A default that has no JSON form is left out of the schema; it is still used."""

    ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}


@dataclass(frozen=True)
class Signature:
    """What a model may send to a function, and which parameter gets the context."""

    name: str
    description: str
    parameters: dict[str, Any]
    context: str | None
    fields: tuple[str, ...]
    model: type[BaseModel]

    def validate(self, args: Any) -> dict[str, Any]:
        """Return *args* as keyword arguments of the right types, defaults filled in.

        Raises:
            ToolArgumentsInvalid: they do not fit; the message tells a model how to mend each one.

        """
        if not isinstance(args, dict):
            raise ToolArgumentsInvalid(
                f"{self.name} was not called: its arguments must be a JSON object, not {_shown(args)}. "
                f"It takes: {self._summary()}."
            )
        try:
            canonical_json(args).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise ToolArgumentsInvalid(
                f"{self.name} was not called: its arguments are not valid JSON ({exc}). Send plain JSON values."
            ) from None
        try:
            checked = self.model.model_validate(args)
        except ValidationError as exc:
            raise ToolArgumentsInvalid(self._complaint(exc)) from None
        except RecursionError:
            raise ToolArgumentsInvalid(f"{self.name} was not called: its arguments are nested too deeply.") from None
        return {name: getattr(checked, f"p{index}") for index, name in enumerate(self.fields)}

    def _complaint(self, exc: ValidationError) -> str:
        lines = []
        properties = self.parameters.get("properties", {})
        errors = exc.errors(include_url=False, include_context=False)
        for error in errors[:_ERRORS_SHOWN]:
            where = ".".join(str(part) for part in error["loc"]) or "arguments"
            top = str(error["loc"][0]) if error["loc"] else ""
            expected = _described(properties[top]) if top in properties else ""
            if error["type"] == "extra_forbidden" and top not in properties:
                lines.append(f"- {where}: there is no such parameter; there are: {', '.join(self.fields) or 'none'}")
            elif error["type"] == "missing" and len(error["loc"]) == 1:
                lines.append(f"- {where}: is missing; expected: {expected}")
            else:
                lines.append(f"- {where}: {error['msg']}; you sent {_shown(error['input'])}; expected: {expected}")
        if len(errors) > _ERRORS_SHOWN:
            lines.append(f"- and {len(errors) - _ERRORS_SHOWN} more")
        return (
            f"{self.name} was not called: its arguments are wrong.\n" + "\n".join(lines) + "\nMend them and call again."
        )

    def _summary(self) -> str:
        properties = self.parameters.get("properties", {})
        return ", ".join(f"{name} ({_described(schema)})" for name, schema in properties.items()) or "no parameters"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=repr)
    return text if len(text) <= 80 else text[:79] + "…"


def _described(schema: Mapping[str, Any]) -> str:
    """Say in words what a property's schema asks for."""
    if "enum" in schema:
        kind = "one of " + ", ".join(_shown(value) for value in schema["enum"])
    elif "const" in schema:
        kind = _shown(schema["const"])
    elif "anyOf" in schema:
        kind = " or ".join(_described(choice) for choice in schema["anyOf"])
    elif "$ref" in schema:
        kind = "object " + str(schema["$ref"]).rpartition("/")[2]
    elif schema.get("type") == "array":
        kind = "array of " + _described(schema.get("items", {}))
    else:
        kind = str(schema.get("type", "any JSON value"))
        if "format" in schema:
            kind += f" ({schema['format']})"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    if bounds:
        kind += " " + " and ".join(bounds)
    return f"{kind}, {schema['description']}" if schema.get("description") else kind


def parse_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """Return (description, {parameter: description}) of a Google-style docstring.

    The sections on arguments and exceptions are for programmers and left out of the description.
    """
    if not text:
        return "", {}
    kept: list[str] = []
    parameters: dict[str, str] = {}
    section, indent, current = "", None, ""
    for line in inspect.cleandoc(text).splitlines():
        if match := _SECTION.match(line):
            section, indent, current = match[1], None, ""
            if section not in ("Args", "Arguments", "Parameters", "Raises"):
                kept.append(line)
        elif section in ("Args", "Arguments", "Parameters") and (not line.strip() or line[0].isspace()):
            depth = len(line) - len(line.lstrip())
            if not line.strip():
                continue
            indent = depth if indent is None else indent
            if depth <= indent and (match := _PARAMETER.match(line.strip())):
                current = match[1]
                parameters[current] = match[2].strip()
            elif current:
                parameters[current] = f"{parameters[current]} {line.strip()}".strip()
        elif section == "Raises" and (not line.strip() or line[0].isspace()):
            continue
        else:
            if line.strip() and not line[0].isspace():
                section = ""
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), parameters


def _without_titles(schema: Any) -> Any:
    """Drop the titles pydantic makes up: they repeat the names and cost tokens in each request."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    clean: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in ("properties", "$defs", "patternProperties") and isinstance(value, dict):
            clean[key] = {name: _without_titles(inner) for name, inner in value.items()}  # these keys are names
        elif key in ("default", "const", "enum", "examples"):
            clean[key] = value
        else:
            clean[key] = _without_titles(value)
    return clean


def _has_bytes(schema: Any) -> bool:
    if isinstance(schema, dict):
        return schema.get("format") == "binary" or any(_has_bytes(value) for value in schema.values())
    return isinstance(schema, list) and any(_has_bytes(item) for item in schema)


def _resolve(function: Callable[..., Any], owner: str, name: str, local: Mapping[str, Any]) -> Any:
    """Return the type of one parameter, names in quotes resolved where the function was defined."""
    annotation = inspect.signature(function).parameters[name].annotation
    if annotation is inspect.Parameter.empty:
        hint = ", for example `ctx: ToolContext`" if name in ("ctx", "context") else f", for example `{name}: str`"
        raise ConfigurationError(f"tool {owner}: parameter `{name}` has no type. Annotate it{hint}.")
    holder = SimpleNamespace(__annotations__={name: annotation})
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(holder, globalns=scope, localns=dict(local), include_extras=True)[name]
    except Exception as exc:  # any name in the annotation may fail in its own way
        raise ConfigurationError(
            f"tool {owner}: the type {annotation!r} of parameter `{name}` cannot be resolved ({exc}). "
            "Import it in the same module, outside `if TYPE_CHECKING`."
        ) from exc


def _is_context(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    return isinstance(hint, type) and issubclass(hint, ToolContext)


def read_signature(
    function: Callable[..., Any], *, name: str | None = None, local: Mapping[str, Any] | None = None
) -> Signature:
    """Read what a model may send to *function*.

    *local* holds names visible where the function was defined, for functions defined inside others.

    Raises:
        ConfigurationError: a parameter cannot be sent as JSON; function and parameter are named.

    """
    owner = name or function.__name__
    description, documented = parse_docstring(function.__doc__)
    context: str | None = None
    names: list[str] = []
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if why := _KINDS.get(parameter.kind):
            raise ConfigurationError(
                f"tool {owner}: parameter `{parameter}` {why}, and a model sends named arguments only. "
                "Write out plain parameters."
            )
        hint = _resolve(function, owner, parameter.name, local or {})
        if _is_context(hint):
            if context is not None:
                raise ConfigurationError(
                    f"tool {owner}: both `{context}` and `{parameter.name}` are a ToolContext. One is enough."
                )
            context = parameter.name
            continue
        try:
            usable = not _has_bytes(TypeAdapter(hint).json_schema(schema_generator=_Schema))
        except (PydanticUserError, TypeError, ValueError):
            usable = False
        if not usable:
            shown = getattr(hint, "__name__", None) or str(hint)
            raise ConfigurationError(
                f"tool {owner}: parameter `{parameter.name}` of type {shown} has no JSON form: no model can send it. "
                "Use str, numbers, bool, lists, dicts, enums, dates, dataclasses or pydantic models."
            )
        fields[f"p{len(names)}"] = (hint, _field(parameter, documented.get(parameter.name)))
        names.append(parameter.name)
    # Fields are numbered and known by their alias, so that a parameter may be called `json` or `copy` too.
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    try:
        model = create_model(f"{owner}_arguments", __config__=config, **fields)
        schema = model.model_json_schema(by_alias=True, schema_generator=_Schema)
    except (PydanticUserError, TypeError, ValueError) as exc:
        raise ConfigurationError(f"tool {owner}: its parameters make no JSON schema: {exc}") from exc
    parameters = _without_titles(schema)
    parameters.setdefault("properties", {})
    parameters.pop("description", None)
    return Signature(owner, description, parameters, context, tuple(names), model)


def _field(parameter: inspect.Parameter, description: str | None) -> Any:
    """Return the pydantic field of a parameter; a `Field(…)` given as default keeps what it says."""
    options: dict[str, Any] = {"alias": parameter.name}
    if description:
        options["description"] = description
    if isinstance(parameter.default, FieldInfo):
        merged: dict[str, Any] = {**options, **parameter.default._attributes_set, "alias": parameter.name}
        return Field(**{key: value for key, value in merged.items() if key != "annotation"})
    if parameter.default is not inspect.Parameter.empty:
        options["default"] = parameter.default
    return Field(**options)
