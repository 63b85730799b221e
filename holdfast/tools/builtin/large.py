"""The tools `result_page`, `result_search` and `result_select`: a large result's rest, by the handle in its note.

A result over HOLDFAST_RESULT_INLINE reaches the model trimmed; the whole of it is stored. These read it, of their own
thread alone.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from holdfast.errors import ToolError
from holdfast.tools.builtin.confined import CONFINED_SECONDS, confined
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import AnyTool, Tool

__all__ = ["Handle", "result_page", "result_search", "result_select", "result_tools", "stored_result"]

_LONGEST_PAGE = 12_000  # bytes: below HOLDFAST_RESULT_INLINE, else a page would itself be trimmed
_TABLE = 10_000  # characters of cells in one answer
_TIMEOUT = CONFINED_SECONDS + 20.0

Handle = Annotated[
    str, Field(min_length=8, max_length=100, description="as the note in the trimmed result names it: result-…")
]


async def stored_result(ctx: ToolContext, handle: str) -> bytes:
    """Return the whole of a large result of this thread.

    Raises:
        ToolError: there is none of that handle.

    """
    found = await ctx.stored.result(handle)
    if found is None:
        raise _unknown(handle)
    return found.data


def _unknown(handle: str) -> ToolError:
    return ToolError(
        f"there is no stored result {handle!r} in this conversation: take the handle from the note in a trimmed result"
    )


async def _page(
    ctx: ToolContext,
    handle: Handle,
    offset: Annotated[int, Field(ge=0, description="first byte")] = 0,
    length: Annotated[int, Field(ge=1, le=_LONGEST_PAGE, description="how many bytes at most")] = 8000,
) -> str:
    """Read part of a large result. The first line says which bytes these are and where the next part begins."""
    found = await ctx.stored.result(handle, offset, length)
    if found is None:
        raise _unknown(handle)
    if offset >= found.size:
        raise ToolError(f"the result has {found.size:,} bytes; offset {offset:,} is behind its end")
    data = found.data
    begin = 0
    while begin < min(3, len(data)) and data[begin] & 0xC0 == 0x80:  # in the middle of a character
        begin += 1
    text = data[begin:].decode("utf-8", "ignore")
    first, past = offset + begin, offset + begin + len(text.encode())
    if not text and past < found.size:
        past = offset + len(data)
    rest = f"next offset {past}" if past < found.size else "the end"
    return f"(bytes {first}-{past} of {found.size}; {rest})\n{text}"


async def _search(
    ctx: ToolContext,
    handle: Handle,
    text: Annotated[str, Field(min_length=1, max_length=500, description="what to look for")],
    regex: Annotated[bool, Field(description="it is a regular expression (Python's), not plain text")] = False,
    ignore_case: bool = True,
    limit: Annotated[int, Field(ge=1, le=100, description="how many hits to show")] = 20,
    context: Annotated[int, Field(ge=0, le=500, description="characters shown before and after a hit")] = 80,
) -> dict[str, Any]:
    """Search a large result; each hit with its line and offset (for result_page) and what stands around it."""
    data = await stored_result(ctx, handle)
    found: dict[str, Any] = await confined(
        "search", data, pattern=text, regex=regex, ignore_case=ignore_case, context=context, limit=limit
    )
    return found


async def _select(
    ctx: ToolContext,
    handle: Handle,
    expression: Annotated[
        str | None, Field(max_length=2000, description="JMESPath for a JSON result: body.items[?price > `9`].name")
    ] = None,
    columns: Annotated[list[str] | None, Field(max_length=100, description="columns of a CSV result; []: all")] = None,
    start: Annotated[int, Field(ge=0, description="rows of a CSV result to pass over")] = 0,
    limit: Annotated[int, Field(ge=1, le=1000, description="rows of a CSV result at most")] = 50,
) -> Any:
    """Select values from a large JSON result by a JMESPath expression, or columns and rows from a CSV result."""
    if (expression is None) == (columns is None):
        raise ToolError("give either expression, for a JSON result, or columns, for a CSV result")
    data = await stored_result(ctx, handle)
    if expression is not None:
        return await confined("json", data, expression=expression)
    return await confined("columns", data, columns=columns, start=start, rows=limit, size=_TABLE)


result_page: AnyTool = Tool(_page, name="result_page", effect="pure", timeout=20.0)
result_search: AnyTool = Tool(_search, name="result_search", effect="pure", timeout=_TIMEOUT)
result_select: AnyTool = Tool(_select, name="result_select", effect="pure", timeout=_TIMEOUT)
result_tools: list[AnyTool] = [result_page, result_search, result_select]
"""All three, for `tools=[…, result_tools]`."""
