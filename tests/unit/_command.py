"""The command line as unit tests call it: in this process."""

from __future__ import annotations

import pytest

from holdfast.cli import main

__all__ = ["run"]


def run(*argv: str) -> int:
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(list(argv))
    return int(left.value.code or 0)
