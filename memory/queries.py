"""Named SQL: each `sql/*.sql` file holds queries under `-- name: …` lines. Only the memory room asks for them."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

__all__ = ["queries"]

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def queries(room: str) -> dict[str, str]:
    """Return the queries of `sql/{room}.sql` by name."""
    text = resources.files("holdfast.memory").joinpath("sql", f"{room}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
