"""Checks a model's arguments against the JSON schema of a server's tool. Only `tool.py` uses it.

The schema was written by a stranger: nothing is fetched for it, and what could keep a worker busy for ever is not
evaluated. The server checks its arguments itself; this is to tell the model early, and in words.
"""

from __future__ import annotations

import json
from typing import Any

from holdfast.errors import ToolArgumentsInvalid
from holdfast.ids import canonical_json

__all__ = ["ArgumentCheck", "without"]

_SHOWN = 20  # errors that a model is told at once
_HEAVY = 20_000  # subschemas after following all references: more is not evaluated
_REGEX = ("pattern", "patternProperties", "format")


def without(schema: dict[str, Any], argument: str) -> dict[str, Any]:
    """Return *schema* without one of its arguments."""
    made = {**schema, "properties": {k: v for k, v in schema.get("properties", {}).items() if k != argument}}
    if isinstance(schema.get("required"), list):
        made["required"] = [name for name in schema["required"] if name != argument]
    return made


def _tame(schema: Any) -> Any:
    """Leave out regular expressions: one that backtracks for ever would hold the worker."""
    if isinstance(schema, list):
        return [_tame(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _tame(part) for key, part in schema.items() if not (key in _REGEX and _is_keyword(key, part))}
    if isinstance(schema.get("patternProperties"), dict):
        kept.pop("additionalProperties", None)
        kept.pop("unevaluatedProperties", None)
    if isinstance(schema.get("properties"), dict):  # there, `pattern` is somebody's argument
        kept["properties"] = {name: _tame(part) for name, part in schema["properties"].items()}
    return kept


def _is_keyword(key: str, part: Any) -> bool:
    return isinstance(part, dict if key == "patternProperties" else str)


def _weight(root: dict[str, Any]) -> int:
    """Count the subschemas that a check could visit, references followed; recursion counts once."""
    known: dict[str, int] = {}

    def of(node: Any, depth: int) -> int:
        if depth > 64:
            return _HEAVY
        if isinstance(node, list):
            return sum(of(part, depth + 1) for part in node)
        if not isinstance(node, dict):
            return 0
        total = 1 + sum(of(part, depth + 1) for key, part in node.items() if key not in ("$defs", "definitions"))
        ref = node.get("$ref")
        if isinstance(ref, str) and ref.startswith("#/"):
            if ref not in known:
                known[ref] = 0  # while it is counted: recursion ends here
                known[ref] = of(_pointed(root, ref), depth + 1)
            total += known[ref]
        return min(total, _HEAVY)

    return of(root, 0)


def _pointed(root: Any, ref: str) -> Any:
    node = root
    for part in ref[2:].split("/"):
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node


class ArgumentCheck:
    """The arguments of one tool, by its schema."""

    def __init__(self, tool: str, schema: dict[str, Any]) -> None:
        """Prepare nothing yet: the first check compiles the schema."""
        self._tool = tool
        self._schema = schema
        self._validator: Any = None
        self._ready = False

    def __call__(self, args: Any) -> dict[str, Any]:
        """Return *args* if they fit.

        Raises:
            ToolArgumentsInvalid: they do not; the message tells a model how to mend each one.

        """
        if not isinstance(args, dict):
            raise ToolArgumentsInvalid(f"{self._tool} was not called: its arguments must be a JSON object.")
        try:
            canonical_json(args).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise ToolArgumentsInvalid(
                f"{self._tool} was not called: its arguments are not valid JSON ({exc}). Send plain JSON values."
            ) from None
        problems = self._problems(args)
        if problems:
            raise ToolArgumentsInvalid(
                f"{self._tool} was not called: its arguments are wrong.\n"
                + "\n".join(f"- {line}" for line in problems)
                + "\nMend them and call again."
            )
        return dict(args)

    def _problems(self, args: dict[str, Any]) -> list[str]:
        validator = self._compiled()
        if validator is None:
            return []
        from referencing.exceptions import Unresolvable

        lines = []
        try:
            for error in validator.iter_errors(args):
                where = ".".join(str(part) for part in error.absolute_path) or "arguments"
                lines.append(f"{where}: {_short(error.message)}")
                if len(lines) == _SHOWN:
                    lines.append("and perhaps more")
                    break
        except (Unresolvable, RecursionError, ValueError, TypeError):
            return []  # the schema itself is broken: what fits it, the server knows
        return lines

    def _compiled(self) -> Any:
        """Return a validator that fetches nothing, or None where the schema cannot be used."""
        if self._ready:
            return self._validator
        from jsonschema import Draft202012Validator, SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry

        self._ready = True
        try:
            tamed = _tame(self._schema)
            kind = validator_for(tamed, default=Draft202012Validator)
            kind.check_schema(tamed)
            if _weight(tamed) < _HEAVY:
                self._validator = kind(tamed, registry=Registry())
        except (SchemaError, RecursionError, ValueError, TypeError):
            self._validator = None
        return self._validator


def _short(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)[1:-1] if not text.isprintable() else text
    return shown if len(shown) <= 200 else shown[:199] + "…"
