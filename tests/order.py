"""The files that take longest run first: a process has a whole file, and one that begins it last ends alone."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["LONGEST", "pytest_collection_modifyitems"]

ROOT = Path(__file__).parents[1]
LONGEST = [
    "tests/conformance/test_controls.py",
    "tests/conformance/test_smoke.py",
    "tests/integration/test_subagents_crash.py",
    "tests/integration/test_stack_lifecycle.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by file; within a file, and among all others, the order stays."""
    place = {ROOT / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
