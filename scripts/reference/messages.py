"""The page of Temporal messages, from its text beside this file and the contracts, and the same as JSON Schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticUndefined

from holdfast import contracts
from scripts.reference.markdown import code, escaped, fill, table
from scripts.reference.shapes import named

__all__ = ["MODELS", "examples", "render", "render_schema"]

_TEXT = Path(__file__).with_suffix(".md")

MODELS: tuple[type[BaseModel], ...] = (
    contracts.Ask,
    contracts.AskResult,
    contracts.Message,
    contracts.Accepted,
    contracts.Decision,
    contracts.Resolution,
    contracts.StopRequest,
    contracts.Receipt,
    contracts.ThreadState,
    contracts.MemoryQuestion,
    contracts.MemoryAnswer,
    contracts.Event,
)


def examples() -> dict[str, list[Any]]:
    """Return the page's examples by the name of their contract."""
    found: dict[str, list[Any]] = {}
    for name, text in re.findall(r"<!-- json: (\w+) -->\n```json\n(.*?)```", _TEXT.read_text(encoding="utf-8"), re.S):
        found.setdefault(name, []).append(json.loads(text))
    return found


def render() -> str:
    """Return the page."""
    return re.sub(r"\{\{fields: (\w+)\}\}", lambda found: _fields(getattr(contracts, found[1])), fill("messages"))


def render_schema() -> str:
    """Return the JSON Schema of all messages, with their examples."""
    _, schema = models_json_schema([(model, "validation") for model in MODELS])
    defs = _plain(schema["$defs"])
    for name, given in examples().items():
        defs[name]["examples"] = given
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages of Holdfast's Temporal workflows",
        "$defs": defs,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Leave out the titles that pydantic makes of names, and breaks of lines in descriptions."""
    if isinstance(value, dict):
        return {
            key: " ".join(part.split()) if key == "description" and isinstance(part, str) else _plain(part)
            for key, part in value.items()
            if key != "title" or isinstance(part, dict)
        }
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _fields(model: type[BaseModel]) -> str:
    rows = [
        (f"`{name}`", escaped(_type(field)), field.description or "", _default(field))
        for name, field in model.model_fields.items()
    ]
    return table(("field", "type", "meaning", "default"), rows)


def _type(field: FieldInfo) -> str:
    low = next((each.min_length for each in field.metadata if hasattr(each, "min_length")), None)
    high = next((each.max_length for each in field.metadata if hasattr(each, "max_length")), None)
    kind = named(field.annotation).removesuffix(" or null")  # what may be null may be left out
    if kind.startswith("{"):
        kind = "object"
    if high is not None:
        kind += f", {low} to {high} characters" if low else f", at most {high} characters"
    least = next((each.ge for each in field.metadata if hasattr(each, "ge")), None)
    most = next((each.le for each in field.metadata if hasattr(each, "le")), None)
    return f"{kind}, {least} to {most}" if least is not None and most is not None else kind


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "" if field.default in (None, PydanticUndefined) else code(json.dumps(field.default))
