"""The tools room: how tools are declared, checked and run. Agents files and the activities use it.

tool.py (declare) <- schema.py (what a model may send), context.py (what a tool learns)
toolset.py, registry.py (by name; the agents file) · runner.py <- threads.py (run, off the worker's loop)
outcomes.py (what an exception proves) · results.py (the text a model reads) · builtin/ (tools that come along)
agents.py (agents as tools of agents)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.tools.agents import agent_tool
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import Tool, tool

if TYPE_CHECKING:
    from holdfast.tools.builtin import (
        Command,
        calculator,
        csv_query,
        current_time,
        files,
        http_request,
        json_query,
        queries,
        recall,
        remember,
        result_page,
        result_search,
        result_select,
        result_tools,
        run_state,
        shell,
        sql_query,
        web_page,
    )

__all__ = [
    "Command",
    "Tool",
    "ToolContext",
    "agent_tool",
    "calculator",
    "csv_query",
    "current_time",
    "files",
    "http_request",
    "json_query",
    "queries",
    "recall",
    "remember",
    "result_page",
    "result_search",
    "result_select",
    "result_tools",
    "run_state",
    "shell",
    "sql_query",
    "tool",
    "web_page",
]


def __getattr__(name: str) -> Any:
    """Load the built-in tools when first asked for."""
    if name in __all__:
        from holdfast.tools import builtin

        return getattr(builtin, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
