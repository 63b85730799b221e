"""From what a server answered to what a model reads, and from what went wrong to what that proves. Used by `link.py`.

Once a call was handed to the transport there are three ways it can end:

- The server answered, with a result, an error result (`isError`) or a JSON-RPC error. Either way the call was made,
  once, and has ended: its row is done, and the model reads what the server said. An error proves nothing about the
  effect (a tool may fail half-way, or with an error code that came from a request of its own), so it is never
  "refused"; and it leaves nobody in doubt about whether the call was made, so no person is asked.
- HTTP said no before the protocol was reached (401, 403, 404, 429), or nothing listened: not sent.
- The connection was lost before an answer: unknown, and the tool's class decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from holdfast.errors import ServerLost, ToolError, ToolNotStarted
from holdfast.secrets import Mask
from holdfast.tools.results import ErrorResult

if TYPE_CHECKING:
    from mcp.shared.exceptions import MCPError

__all__ = ["MARK", "Mark", "hidden", "judge", "marked", "read_answer"]

_REFUSED_FOR_GOOD = {401: "the credentials are missing or wrong", 403: "the credentials do not allow it"}
_REFUSED_FOR_NOW = {404: "it does not know this session any more", 429: "it is asked too often"}


@dataclass
class Mark:
    """What happened to one call below the protocol, where it goes by HTTP. Written by `http.py`."""

    refused: str | None = None  # no connection was made: no byte of the request left
    lost: str | None = None  # the connection ended while it was under way
    status: int | None = None
    readable: bool = False  # the answer was of a kind that the protocol allows
    taken: bool = False  # its request was sent; what follows in its name (answers to the server) is not marked
    every: bool = False  # unless it consists of several requests


MARK: ContextVar[Mark | None] = ContextVar("mcp_call", default=None)
"""The call in whose name a request is sent."""


def judge(server: str, exc: MCPError, mark: Mark, *, http: bool, over: bool, stateless: bool) -> ErrorResult:
    """Return a server's own error as a result.

    *stateless* is the revision of 2026: its servers also answer 404 when a tool, half-way through, raised an error of
    the code "method not found".

    Raises:
        ToolNotStarted, ToolError: the call was not sent, or refused before the protocol was reached.
        ServerLost: there was no answer.

    """
    if mark.refused is not None:
        raise ToolNotStarted(f"MCP server {server!r} cannot be reached: {mark.refused}. Nothing was sent.") from exc
    if mark.status in _REFUSED_FOR_GOOD:
        raise ToolError(
            f"MCP server {server!r} refused the call with HTTP {mark.status}: {_REFUSED_FOR_GOOD[mark.status]}. "
            "A person must look at the headers of its declaration."
        ) from exc
    if mark.status in _REFUSED_FOR_NOW and not (mark.status == 404 and stateless and mark.readable):
        raise ToolNotStarted(
            f"MCP server {server!r} refused the call with HTTP {mark.status}: {_REFUSED_FOR_NOW[mark.status]}."
        ) from exc
    if mark.lost is not None or _made_up(exc, mark, http=http, over=over):
        raise ServerLost(
            f"MCP server {server!r} was lost before it answered ({mark.lost or exc.message}). "
            "Whether the call took effect is not known."
        ) from exc
    return ErrorResult(f"{server} answered with an error: {exc.message} (code {exc.code})")


def _made_up(exc: MCPError, mark: Mark, *, http: bool, over: bool) -> bool:
    """Tell whether the client's own library wrote this error, because no answer came that it could read."""
    if exc.code == CONNECTION_CLOSED:
        return over or exc.message.startswith(("SSE stream", "Connection closed"))
    if not http:
        return False
    if exc.code == PARSE_ERROR:
        return True
    if exc.code == INTERNAL_ERROR:
        return mark.status is None or mark.status >= 400
    return exc.code == INVALID_REQUEST and not mark.readable


def read_answer(server: str, result: Any) -> Any:
    """Return what a model reads of a result: text, or a JSON value; an ErrorResult where the server says that."""
    if isinstance(result, InputRequiredResult):
        asked = ", ".join(sorted({request.method for request in (result.input_requests or {}).values()}))
        return ErrorResult(
            f"{server} asks for input that no agent gives ({asked or 'more rounds'}); it did not finish."
        )
    if not isinstance(result, CallToolResult):
        return ErrorResult(f"{server} answered with something that is no result of a tool.")
    texts = [_block(block) for block in result.content]
    if result.is_error:
        return ErrorResult("\n".join(texts) or f"{server} says that the call failed, and not why.")
    if result.structured_content is not None:
        beside = [_block(block) for block in result.content if not isinstance(block, TextContent)]
        return {"result": result.structured_content, "beside": beside} if beside else result.structured_content
    return "\n".join(texts) or None


def hidden(value: Any, hide: Mask | None) -> Any:
    """Return an answer without the credentials that *hide* knows: some servers send back what they got."""
    if hide is None or not hide:
        return value
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, ErrorResult):
        return ErrorResult(hide(value.text))
    if isinstance(value, list):
        return [hidden(part, hide) for part in value]
    if isinstance(value, dict):
        return {hide(key): hidden(part, hide) for key, part in value.items()}
    return value


def _block(block: Any) -> str:
    """Return a piece of content as text. What is no text is described: models of this port read text."""
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, ImageContent | AudioContent):
        return f"[{block.type} {block.mime_type}, {_size(block.data)}; left out, it is no text]"
    if isinstance(block, ResourceLink):
        about = ", ".join(part for part in (block.mime_type, block.description) if part)
        return f"[resource {block.uri}{f' ({about})' if about else ''}]"
    if isinstance(block, EmbeddedResource):
        found = block.resource
        if isinstance(found, TextResourceContents):
            return f"[resource {found.uri}]\n{found.text}"
        return f"[resource {found.uri} {found.mime_type or ''}, {_size(found.blob)}; left out, it is no text]"
    return f"[{getattr(block, 'type', 'content')} of a kind that cannot be read]"


def _size(base64: str) -> str:
    return f"{len(base64) * 3 // 4:,} bytes"


@contextlib.contextmanager
def marked(*, every: bool = False) -> Iterator[Mark]:
    """Give a mark for what is sent in this context: one request, or *every* one."""
    mark = Mark(every=every)
    token = MARK.set(mark)
    try:
        yield mark
    finally:
        MARK.reset(token)
