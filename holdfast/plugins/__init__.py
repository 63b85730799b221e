"""The room of plugins. `contract.py` is all that a plugin's author needs; workers load and call them.

contract.py (what a plugin is) <- load.py (finds and orders them) <- host.py (calls their hooks) <- equip.py (before
polling) · source.py (stands for their tools)
"""

from __future__ import annotations

from holdfast.plugins.contract import AskedCall, At, ModelCall, Plugin, Refused, Reply, ToolCall, ToolResult
from holdfast.plugins.source import plugin_tools

__all__ = [
    "AskedCall",
    "At",
    "ModelCall",
    "Plugin",
    "Refused",
    "Reply",
    "ToolCall",
    "ToolResult",
    "plugin_tools",
]
