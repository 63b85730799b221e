"""Checks a model's arguments against the JSON schema of a server's tool. Only `tool.py` uses it.

The schema was written by a stranger: nothing is fetched for it, and what could keep a worker busy for ever is not
evaluated. The server checks its arguments itself; this is to tell the model early, and in words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from holdfast.errors import ToolArgumentsInvalid
from holdfast.ids import canonical_json

__all__ = ["ArgumentCheck", "without"]

_SHOWN = 20  # errors that a model is told at once
_LARGEST = 2000  # objects in a schema: a larger one is not evaluated
_STEPS = 10_000  # keywords evaluated for one call, about a tenth of a second: what takes more is left to the server
_LONG = 64  # of a list that may be compared pair by pair
# Left out: regular expressions, one of which may backtrack for ever; what would switch to another class of validators,
# whose steps nobody counts; and what walks through the schema by itself.
_TEXTS = ("pattern", "format", "$schema")
_ANY = ("patternProperties", "unevaluatedProperties", "unevaluatedItems")


class _TooMuch(Exception):
    """The check would take too long."""


def without(schema: dict[str, Any], argument: str) -> dict[str, Any]:
    """Return *schema* without one of its arguments."""
    made = {**schema, "properties": {k: v for k, v in schema.get("properties", {}).items() if k != argument}}
    if isinstance(schema.get("required"), list):
        made["required"] = [name for name in schema["required"] if name != argument]
    return made


def _tame(schema: Any) -> Any:
    """Leave out what could hold the worker. A check may pass too much: the server looks again."""
    if isinstance(schema, list):
        return [_tame(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _tame(part) for key, part in schema.items() if not _is_wild(key, part)}
    if isinstance(schema.get("patternProperties"), dict):
        kept.pop("additionalProperties", None)
    if isinstance(schema.get("properties"), dict):  # there, `pattern` is somebody's argument
        kept["properties"] = {name: _tame(part) for name, part in schema["properties"].items()}
    return kept


def _is_wild(key: str, part: Any) -> bool:
    if isinstance(part, list):
        return len(part) > _LONG and not all(isinstance(each, str) for each in part)
    return key in _ANY or (key in _TEXTS and isinstance(part, str))


def _objects(node: Any) -> int:
    """Count the objects in a schema."""
    if isinstance(node, dict):
        return 1 + sum(map(_objects, node.values()))
    return sum(map(_objects, node)) if isinstance(node, list) else 0


class ArgumentCheck:
    """The arguments of one tool, by its schema."""

    def __init__(self, tool: str, schema: dict[str, Any]) -> None:
        """Prepare nothing yet: the first check compiles the schema."""
        self._tool = tool
        self._schema = schema
        self._validator: Any = None
        self._ready = False
        self._left = 0

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
        lines: list[str] = []
        self._left = _STEPS
        try:
            for error in validator.iter_errors(args):
                where = ".".join(str(part) for part in error.absolute_path) or "arguments"
                lines.append(f"{where}: {_short(error.message)}")
                if len(lines) == _SHOWN:
                    lines.append("and perhaps more")
                    break
        except _TooMuch:
            return lines
        except Exception:  # noqa: BLE001  # the schema itself is broken: what fits it, the server knows
            return []
        return lines

    def _compiled(self) -> Any:
        """Return a validator that fetches nothing, or None where the schema cannot be used."""
        if self._ready:
            return self._validator
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend, validator_for
        from referencing import Registry

        self._ready = True
        try:
            kind = validator_for(self._schema, default=Draft202012Validator)
            tamed = _tame(self._schema)
            if _objects(tamed) <= _LARGEST:
                kind.check_schema(tamed)
                steps = {name: self._counted(name, check) for name, check in kind.VALIDATORS.items()}
                self._validator = extend(kind, steps)(tamed, registry=Registry())  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001  # whatever a stranger's schema makes a library raise
            self._validator = None
        return self._validator

    def _counted(self, keyword: str, check: Callable[..., Any]) -> Callable[..., Any]:
        """Return a keyword's check that ends all of it after so many steps: references can double at each turn."""

        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise _TooMuch
            if keyword == "uniqueItems" and isinstance(instance, list) and len(instance) > _LONG:
                return ()
            return check(validator, value, instance, schema)

        return counted


def _short(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)[1:-1] if not text.isprintable() else text
    return shown if len(shown) <= 200 else shown[:199] + "…"
