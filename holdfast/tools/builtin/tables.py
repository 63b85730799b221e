"""The tools `csv_query` and `json_query`: over text, over a large result by its handle, or over a file under a root."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any

from pydantic import Field

from holdfast.errors import ToolError
from holdfast.tools.builtin.confined import CONFINED_SECONDS, confined
from holdfast.tools.builtin.folder import Folder
from holdfast.tools.builtin.large import stored_result
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import AnyTool, Tool
from holdfast.tools.toolset import makes_tools

__all__ = ["csv_query", "json_query", "queries"]

_ROWS = 200
_SIZE = 100_000  # characters of cells in one answer
_TIMEOUT = CONFINED_SECONDS + 20.0

Sql = Annotated[
    str,
    Field(
        min_length=6,
        max_length=8000,
        description="one SELECT (SQLite) over the table data: select city, sum(total) from data group by city",
    ),
]
Expression = Annotated[
    str, Field(min_length=1, max_length=2000, description="JMESPath, such as orders[?total > `9`].{id: id, city: city}")
]
Text = Annotated[str | None, Field(max_length=1_000_000, description="the data itself")]
GivenHandle = Annotated[str | None, Field(max_length=100, description="or the handle of a large result: result-…")]
Path = Annotated[str | None, Field(max_length=1000, description="or the path of a file")]
Delimiter = Annotated[str | None, Field(min_length=1, max_length=1, description="if it is not found by itself")]


async def _data(
    ctx: ToolContext, text: str | None, handle: str | None, path: str | None, folder: Folder | None
) -> bytes:
    """Return what is to be queried, from the one place that was named."""
    if sum(given is not None for given in (text, handle, path)) != 1:
        choices = "text or handle" if folder is None else "path, text or handle"
        raise ToolError(f"name one thing to query: {choices}")
    if handle is not None:
        return await stored_result(ctx, handle)
    if path is not None and folder is not None:
        return await asyncio.to_thread(folder.read, path)
    return (text or "").encode()


async def _csv(
    ctx: ToolContext, sql: Sql, text: Text = None, handle: GivenHandle = None, delimiter: Delimiter = None
) -> dict[str, Any]:
    """Query CSV by SQL: choose columns, filter, sort, count, sum. Its first line names the columns of `data`."""
    return await _rows(await _data(ctx, text, handle, None, None), sql, delimiter)


async def _json(ctx: ToolContext, expression: Expression, text: Text = None, handle: GivenHandle = None) -> Any:
    """Query JSON by a JMESPath expression: choose, filter, sort, count, sum."""
    return await confined("json", await _data(ctx, text, handle, None, None), expression=expression)


async def _rows(data: bytes, sql: str, delimiter: str | None) -> dict[str, Any]:
    found: dict[str, Any] = await confined("csv", data, sql=sql, rows=_ROWS, size=_SIZE, delimiter=delimiter)
    return found


csv_query: AnyTool = Tool(_csv, name="csv_query", effect="pure", timeout=_TIMEOUT)
json_query: AnyTool = Tool(_json, name="json_query", effect="pure", timeout=_TIMEOUT)


@makes_tools
def queries(root: str | os.PathLike[str], *, prefix: str = "") -> list[AnyTool]:
    """Return `csv_query` and `json_query` that also take the path of a file under *root*, as `files` would read it.

    Raises:
        ConfigurationError: there is no such folder.

    """
    folder = Folder(root, "queries")

    async def csv_of(
        ctx: ToolContext,
        sql: Sql,
        path: Path = None,
        text: Text = None,
        handle: GivenHandle = None,
        delimiter: Delimiter = None,
    ) -> dict[str, Any]:
        return await _rows(await _data(ctx, text, handle, path, folder), sql, delimiter)

    async def json_of(
        ctx: ToolContext, expression: Expression, path: Path = None, text: Text = None, handle: GivenHandle = None
    ) -> Any:
        return await confined("json", await _data(ctx, text, handle, path, folder), expression=expression)

    csv_of.__doc__, json_of.__doc__ = _csv.__doc__, _json.__doc__
    return [
        Tool(csv_of, name=f"{prefix}csv_query", effect="pure", timeout=_TIMEOUT),
        Tool(json_of, name=f"{prefix}json_query", effect="pure", timeout=_TIMEOUT),
    ]
