"""The tools room: how tools are declared, checked and run. Agents files and the activities use it.

tool.py (declare) <- schema.py (what a model may send), context.py (what a tool learns)
toolset.py, registry.py (by name; the agents file) · runner.py <- threads.py (run, off the worker's loop)
outcomes.py (what an exception proves) · results.py (the text a model reads) · builtin/ (tools that come along)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.tools.context import ToolContext
from holdfast.tools.tool import Tool, tool

if TYPE_CHECKING:
    from holdfast.tools.builtin import calculator, current_time, files, recall, remember

__all__ = ["Tool", "ToolContext", "calculator", "current_time", "files", "recall", "remember", "tool"]


def __getattr__(name: str) -> Any:
    """Load the built-in tools when first asked for."""
    if name in __all__:
        from holdfast.tools import builtin

        return getattr(builtin, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
