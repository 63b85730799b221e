"""Durable AI agents on Temporal. The public API; everything else is a room behind it.

contracts, errors <- memory, llm, tools <- activities <- runtime <- worker, cli, api
contracts, errors <- workflows <- runtime
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.agent import Agent
    from holdfast.client import Client, RunHandle
    from holdfast.contracts import Budget, Event, Price
    from holdfast.errors import HoldfastError, InvalidInput, RunEnded, ToolError
    from holdfast.mcp import MCPServer
    from holdfast.plugins import Plugin, Refused, plugin_tools
    from holdfast.secrets import secret
    from holdfast.settings import Settings
    from holdfast.tools import Tool, ToolContext, files, tool
    from holdfast.typed import Input, Output, Signature

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Budget",
    "Client",
    "Event",
    "HoldfastError",
    "Input",
    "InvalidInput",
    "MCPServer",
    "Output",
    "Plugin",
    "Price",
    "Refused",
    "RunEnded",
    "RunHandle",
    "Settings",
    "Signature",
    "Tool",
    "ToolContext",
    "ToolError",
    "files",
    "plugin_tools",
    "secret",
    "tool",
]

# Names load when they are used: workflow code and the CLI import this package and must stay light.
_HOMES = {
    "Agent": "holdfast.agent",
    "Budget": "holdfast.contracts",
    "Client": "holdfast.client",
    "Event": "holdfast.contracts",
    "HoldfastError": "holdfast.errors",
    "Input": "holdfast.typed",
    "InvalidInput": "holdfast.errors",
    "MCPServer": "holdfast.mcp",
    "Output": "holdfast.typed",
    "Plugin": "holdfast.plugins",
    "Price": "holdfast.contracts",
    "Refused": "holdfast.errors",
    "RunEnded": "holdfast.errors",
    "RunHandle": "holdfast.client",
    "Settings": "holdfast.settings",
    "Signature": "holdfast.typed",
    "Tool": "holdfast.tools",
    "ToolContext": "holdfast.tools",
    "ToolError": "holdfast.errors",
    "files": "holdfast.tools",
    "plugin_tools": "holdfast.plugins",
    "secret": "holdfast.secrets",
    "tool": "holdfast.tools",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its room on first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
