"""Writes docs/reference/settings.md: `python -m scripts.settings_reference`. A test compares it with `Settings`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from holdfast.settings import Settings

__all__ = ["PAGE", "render"]

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"

_HEAD = """# Settings

Written by `python -m scripts.settings_reference`; do not edit.

Sources, strongest first: arguments, `HOLDFAST_*` variables, `.env`, `holdfast.toml`, the defaults here.
In `holdfast.toml` a setting is written in lower case without the prefix: `agents = "bots/agents.py"`.
Sizes are in bytes, times in seconds. All are checked at start; what is wrong is refused with its name and a reason.
"""


def render() -> str:
    """Return the page."""
    lines = [_HEAD]
    fields = Settings.model_fields
    for title, names in _groups():
        lines += [f"## {title}", "", "| variable | default | what it is |", "|---|---|---|"]
        lines += [_row(name, fields[name]) for name in names]
        lines.append("")
    return "\n".join(lines)


def _groups() -> list[tuple[str, list[str]]]:
    """Return the settings under the headings that the source has as comments."""
    groups: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(Settings).splitlines():
        if heading := re.match(r"    # ([A-Z].*)$", line):
            groups.append((heading[1], []))
        elif groups and (field := re.match(r"    (\w+): ", line)) and field[1] in Settings.model_fields:
            groups[-1][1].append(field[1])
    return groups


def _row(name: str, field: FieldInfo) -> str:
    variables = [f"`HOLDFAST_{name.upper()}`"]
    choices: list[Any] = getattr(field.validation_alias, "choices", [])
    variables += [f"`{choice}`" for choice in choices if choice.isupper() and f"`{choice}`" not in variables]
    about = (field.description or "").replace("|", "\\|")
    if rule := _rule(field):
        about += f" {rule}."
    return f"| {', '.join(variables)} | {_default(field.default)} | {about} |"


def _default(value: object) -> str:
    if value is None:
        return "unset"
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


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
