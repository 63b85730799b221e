"""Tools that come along. Agents files name them; each is an ordinary tool, except that memory carries out two."""

from __future__ import annotations

from holdfast.tools.builtin.arithmetic import calculator
from holdfast.tools.builtin.clock import current_time
from holdfast.tools.builtin.filesystem import files
from holdfast.tools.builtin.longterm import recall, remember

__all__ = ["calculator", "current_time", "files", "recall", "remember"]
