"""The files that take longest are run first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.order import LONGEST, ROOT, pytest_collection_modifyitems


def test_the_longest_files_come_first_and_the_others_as_they_were() -> None:
    """Each file of the list is there; the tests of a file stay together and in order."""
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []
    paths = [Path("b.py"), ROOT / LONGEST[1], Path("a.py"), ROOT / LONGEST[0], ROOT / LONGEST[1]]
    items: list[Any] = [SimpleNamespace(path=path, number=number) for number, path in enumerate(paths)]
    pytest_collection_modifyitems(items)
    assert [item.number for item in items] == [3, 1, 4, 0, 2]
