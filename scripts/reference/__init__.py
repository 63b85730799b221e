"""Writes what is generated in docs/reference: `python -m scripts.reference`. A test compares them with the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scripts.reference import cli, errors, events, messages, settings

__all__ = ["FOLDER", "PAGES"]

FOLDER = Path(__file__).parents[2] / "docs" / "reference"

PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli.render,
    "errors.md": errors.render,
    "events.md": events.render,
    "messages.md": messages.render,
    "messages.json": messages.render_schema,
    "settings.md": settings.render,
}
