"""Stands for tools that are known only once a worker runs. Agents hold it; a room with such tools derives from it."""

from __future__ import annotations

__all__ = ["ToolSource"]


class ToolSource:
    """Stands among an agent's tools for tools that come later: the worker asks for them and equips the agent."""

    name: str
    """How people and logs call it."""
    kind: str = "tools"
    """What it is, in a word or two, for listings."""
