"""The tool `run_state`: how another run of the same tenant stands, in counts and states, without any of its texts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from holdfast.errors import ToolError
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import AnyTool, Tool

__all__ = ["run_state"]


async def _run_state(
    ctx: ToolContext,
    run: Annotated[
        str, Field(min_length=8, max_length=36, pattern=r"^[0-9a-f-]+$", description="a run's id, or how it begins")
    ],
) -> dict[str, Any]:
    """Tell how another run stands: state, agent, rounds, tokens, cost, times, and what it waits for."""
    found = await ctx.stored.runs(run)
    if not found:
        raise ToolError(f"there is no run {run!r}")
    if len(found) > 1:
        raise ToolError(f"more than one run begins with {run!r}: give more of its id")
    return {name: value for name, value in found[0].items() if value is not None}


run_state: AnyTool = Tool(_run_state, name="run_state", effect="pure", timeout=20.0)
