"""The tools `remember` and `recall`: declared here, carried out by the memory process on its own task queue."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast.errors import ToolNotStarted
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import AnyTool, Tool

__all__ = ["LONG_TERM", "recall", "remember"]


def _elsewhere(name: str) -> ToolNotStarted:
    return ToolNotStarted(
        f"{name} is carried out by the memory process, not by this function. Give it to an agent: tools=[{name}] or "
        "memory=True."
    )


async def _remember(
    ctx: ToolContext,
    text: Annotated[str, Field(min_length=1, max_length=4000, description="one fact, in a sentence that stands alone")],
) -> str:
    """Keep a fact in long-term memory, so that it is known later in this conversation."""
    raise _elsewhere("remember")


async def _recall(
    query: Annotated[str, Field(min_length=1, max_length=4000, description="what to look for, in plain words")],
    limit: Annotated[int, Field(ge=1, le=50, description="how many memories at most")] = 5,
) -> str:
    """Find what long-term memory has about something from earlier in this conversation."""
    raise _elsewhere("recall")


# Keyed: the point's id derives from the key, so writing it twice writes it once.
remember = Tool(_remember, name="remember", effect="keyed", key_lifetime=10 * 365 * 86_400.0, routed="memory")
recall = Tool(_recall, name="recall", effect="pure", routed="memory")

LONG_TERM: dict[str, AnyTool] = {tool.name: tool for tool in (remember, recall)}
"""What the memory process carries out, by name, whichever agents it has loaded."""
