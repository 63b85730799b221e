"""The test kit: real servers, a scripted model, assertions on runs, recordings; the pytest plugin hands them out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.testing.asserts import assert_called, effects, steps
    from holdfast.testing.calls import FinishedRun, ToolCall
    from holdfast.testing.model_server import ModelServer
    from holdfast.testing.models import ScriptedModels
    from holdfast.testing.recording import Recording, record
    from holdfast.testing.replaying import Replayed, replay
    from holdfast.testing.running import RunAgent, Running
    from holdfast.testing.script import Script
    from holdfast.testing.stack import Stack

__all__ = [
    "FinishedRun",
    "ModelServer",
    "Recording",
    "Replayed",
    "RunAgent",
    "Running",
    "Script",
    "ScriptedModels",
    "Stack",
    "ToolCall",
    "assert_called",
    "effects",
    "record",
    "replay",
    "steps",
]

# Loaded on use: so `python -m holdfast.testing.model_server` finds the module not yet imported, and naming a type costs
# a test nothing. No module may have a public name: its import would put it in the place of what has that name.
_HOMES = {
    "FinishedRun": "calls",
    "ModelServer": "model_server",
    "Recording": "recording",
    "Replayed": "replaying",
    "RunAgent": "running",
    "Running": "running",
    "Script": "script",
    "ScriptedModels": "models",
    "Stack": "stack",
    "ToolCall": "calls",
    "assert_called": "asserts",
    "effects": "asserts",
    "record": "recording",
    "replay": "replaying",
    "steps": "asserts",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast.testing' has no attribute {name!r}")
    value = getattr(import_module(f"holdfast.testing.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
