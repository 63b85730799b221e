"""The test kit: a scripted model server that speaks the OpenAI protocol, for tests, demos and benchmarks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.testing.model_server import ModelServer
    from holdfast.testing.script import Script

__all__ = ["ModelServer", "Script"]

# Loaded on use, so that `python -m holdfast.testing.model_server` finds the module not yet imported.
_HOMES = {"ModelServer": "holdfast.testing.model_server", "Script": "holdfast.testing.script"}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast.testing' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
