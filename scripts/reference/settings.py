"""The page of settings: all that `Settings` has, under the headings of its source."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic.fields import FieldInfo

from holdfast.settings import Settings
from scripts.reference.markdown import escaped, fill, table

__all__ = ["render"]


def render() -> str:
    """Return the page."""
    fields = Settings.model_fields
    parts = []
    for title, names in _groups():
        rows = [_row(name, fields[name]) for name in names]
        parts.append(f"## {title}\n\n{table(('variable', 'default', 'what it is'), rows)}\n")
    return fill("settings", settings="\n".join(parts).rstrip("\n"))


def _groups() -> list[tuple[str, list[str]]]:
    """Return the settings under the headings that the source has as comments."""
    groups: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(Settings).splitlines():
        if heading := re.match(r"    # ([A-Z].*)$", line):
            groups.append((heading[1], []))
        elif groups and (field := re.match(r"    (\w+): ", line)) and field[1] in Settings.model_fields:
            groups[-1][1].append(field[1])
    return groups


def _row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    variables = [f"`HOLDFAST_{name.upper()}`"]
    choices: list[Any] = getattr(field.validation_alias, "choices", [])
    variables += [f"`{choice}`" for choice in choices if choice.isupper() and f"`{choice}`" not in variables]
    about = escaped(field.description or "")
    if rule := _rule(field):
        about += f" {rule}."
    return ", ".join(variables), _default(field.default), about


def _default(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{_number(value)}`" if isinstance(value, float) else f"`{value}`"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _rule(field: FieldInfo) -> str:
    """Return the bounds of a number."""
    bounds = {"ge": "at least", "gt": "above", "le": "at most"}
    found = [
        f"{words} {_number(getattr(each, bound))}"
        for each in field.metadata
        for bound, words in bounds.items()
        if getattr(each, bound, None) is not None
    ]
    return ", ".join(found).capitalize()
