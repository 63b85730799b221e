"""What the reference promises of a command's JSON, held against what the command wrote."""

from __future__ import annotations

import json
from typing import Any

from scripts.reference.shapes import SHAPES

__all__ = ["fits"]


def fits(command: str, number: int, line: dict[str, Any]) -> None:
    """Compare a line with the shape of that number on the page."""
    promised = SHAPES[command][number].fields
    wanted = {name for name in promised if not name.endswith("?")}
    assert wanted <= set(line) <= {name.rstrip("?") for name in promised}, f"{command}: {sorted(line)}"
    for name, kind in promised.items():
        if kind.startswith('"') and " or " not in kind:
            assert json.dumps(line[name]) == kind
