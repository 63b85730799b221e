"""Tools that come along, and functions that make some. Agents files name them; each loads when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.tools.builtin.arithmetic import calculator
    from holdfast.tools.builtin.clock import current_time
    from holdfast.tools.builtin.commands import Command, shell
    from holdfast.tools.builtin.filesystem import files
    from holdfast.tools.builtin.http_tools import http_request
    from holdfast.tools.builtin.large import result_page, result_search, result_select, result_tools
    from holdfast.tools.builtin.longterm import recall, remember
    from holdfast.tools.builtin.runs import run_state
    from holdfast.tools.builtin.sql import sql_query
    from holdfast.tools.builtin.tables import csv_query, json_query, queries
    from holdfast.tools.builtin.webpage import web_page

__all__ = [
    "Command",
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
    "web_page",
]

_HOMES = {
    "Command": "commands",
    "calculator": "arithmetic",
    "csv_query": "tables",
    "current_time": "clock",
    "files": "filesystem",
    "http_request": "http_tools",
    "json_query": "tables",
    "queries": "tables",
    "recall": "longterm",
    "remember": "longterm",
    "result_page": "large",
    "result_search": "large",
    "result_select": "large",
    "result_tools": "large",
    "run_state": "runs",
    "shell": "commands",
    "sql_query": "sql",
    "web_page": "webpage",
}


def __getattr__(name: str) -> Any:
    """Load a tool from its module."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
