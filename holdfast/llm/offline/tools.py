"""What a tool is for, judged by its name, description and schema; the offline model's other parts use it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from holdfast.llm.offline.text import stem, wordset

__all__ = ["Parameter", "ToolView", "view_tools"]

_LOOKS = wordset(
    "ask browse calculate check compare compute convert count current describe detail estimate evaluate explain fetch "
    "find get inspect is list look lookup measure query read recall report retrieve return score search show summarise "
    "summarize tell translate view what which work"
)
_NOUNS = wordset("balance date details history info information price status time version weather")
_KINDS: tuple[tuple[str, frozenset[str]], ...] = (
    ("expression", wordset("expression formula calculation equation")),
    ("timezone", wordset("timezone tz zone")),
    ("email", wordset("email mail recipient to cc")),
    ("url", wordset("url link href uri")),
    ("path", wordset("path file filename filepath document doc")),
    ("query", wordset("query q question search keywords keyword terms term topic phrase")),
    ("id", wordset("id number no key code reference ref sku")),
    ("date", wordset("date day deadline due")),
    ("title", wordset("title subject summary headline name label")),
    ("body", wordset("body message text description content note reason comment details")),
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `kind` says what it wants: query, path, id, number, flag, choice, list, title, body and so on."""

    name: str
    kind: str
    schema: dict[str, Any]
    required: bool

    @property
    def words(self) -> list[str]:
        """Return the parts of its name."""
        return _split(self.name)


@dataclass(frozen=True)
class ToolView:
    """A tool as the offline model sees it. `looks`: it looks something up, rather than do something."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]

    @cached_property
    def words(self) -> list[str]:
        """Return the parts of its name."""
        return _split(self.name)

    @cached_property
    def verb(self) -> str:
        """Return the first word of its description."""
        return (re.match(r"\W*([A-Za-z]+)", self.description) or ["", ""])[1].casefold()

    @cached_property
    def looks(self) -> bool:
        """Tell whether it only looks something up. A tool that does not show it counts as one that acts."""
        first, verb = self.words[0] if self.words else "", self.verb
        says = {stem(word) for word in (verb, verb.removesuffix("s"))}
        if first in _LOOKS or verb == "how" or says & {stem(word) for word in _LOOKS}:
            return True
        return not verb and bool(_NOUNS & set(self.words))

    @cached_property
    def required(self) -> list[Parameter]:
        """Return the parameters that must be given."""
        return [parameter for parameter in self.parameters if parameter.required]

    def sole(self, kind: str) -> Parameter | None:
        """Return the parameter of this kind, if nothing else must be given."""
        found = next((each for each in self.parameters if each.kind == kind and each.required), None)
        return found if found is not None and len(self.required) == 1 else None

    @property
    def searches(self) -> bool:
        """Tell whether it takes words and finds things."""
        return self.looks and self.sole("query") is not None

    @property
    def reads(self) -> bool:
        """Tell whether it takes a path and returns what is there."""
        return self.looks and self.sole("path") is not None

    @property
    def lists(self) -> bool:
        """Tell whether it lists files."""
        return self.looks and not self.required and "list" in self.words and bool({"files", "file"} & set(self.words))

    @property
    def tells_time(self) -> bool:
        """Tell whether it knows the time."""
        return self.looks and bool({"time", "clock", "now", "date"} & set(self.words)) and len(self.required) <= 1

    @property
    def form(self) -> str:
        """Return how a call is written: `stock(item=…)`."""
        return f"{self.name}({', '.join(f'{parameter.name}=…' for parameter in self.required)})"

    @property
    def meaning(self) -> str:
        """Return the text that says what it is for."""
        return f"{' '.join(self.words)}. {self.description}"


def view_tools(tools: list[dict[str, Any]]) -> list[ToolView]:
    """Read OpenAI function tools."""
    views = []
    for tool in tools:
        function = tool.get("function") or {}
        schema = function.get("parameters") or {}
        definitions = schema.get("$defs") or {}
        needed = set(schema.get("required") or [])
        parameters = tuple(
            _parameter(name, _resolved(part, definitions), name in needed)
            for name, part in (schema.get("properties") or {}).items()
        )
        views.append(ToolView(str(function.get("name") or ""), str(function.get("description") or ""), parameters))
    return views


def _resolved(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with its reference followed, and of alternatives the first that is not null."""
    if not isinstance(schema, dict):
        return {}
    if "$ref" in schema:
        return {**definitions.get(str(schema["$ref"]).rpartition("/")[2], {}), **schema}
    options = [part for part in schema.get("anyOf") or [] if part.get("type") != "null"]
    return {**_resolved(options[0], definitions), **schema} if options else schema


def _parameter(name: str, schema: dict[str, Any], required: bool) -> Parameter:
    return Parameter(name, _kind(_split(name), schema), schema, required)


def _kind(words: list[str], schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if schema.get("enum") or "const" in schema:
        return "choice"
    if kind == "boolean":
        return "flag"
    if kind == "array":
        return "list"
    if kind == "object":
        return "object"
    if kind in ("integer", "number"):
        return "id" if set(words) & {"id"} else "number"
    if schema.get("format") in ("email", "uri", "date", "date-time"):
        return {"email": "email", "uri": "url"}.get(str(schema["format"]), "date")
    last = words[-1] if words else ""
    for name, known in _KINDS:
        if last in known:
            return name
    return next((name for name, known in _KINDS[:6] if set(words) & known), "words")


def _split(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^A-Za-z0-9]+", spaced.casefold()) if word]
