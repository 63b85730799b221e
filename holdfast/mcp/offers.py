"""What a server lists, page by page, as offers that can be pinned. Only `link.py` uses it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog

from holdfast.errors import HoldfastError
from holdfast.ids import canonical_json, storable
from holdfast.memory.pins import Offer
from holdfast.settings import Settings

if TYPE_CHECKING:
    from mcp.client.session import ClientSession
    from mcp_types import Tool as ListedTool

__all__ = ["ListingTooLong", "list_offers"]

log = structlog.get_logger(__name__)

_PAGES = 1000


class ListingTooLong(HoldfastError):
    """The server's list of tools has no end."""


async def list_offers(session: ClientSession, server: str, settings: Settings) -> dict[str, Offer]:
    """Return a server's tools by name, all pages of them; those that no agent can be given are logged and left out.

    Raises:
        ListingTooLong: there are more than `mcp_tools_max`.
        MCPError: the server refused.

    """
    from mcp_types import PaginatedRequestParams

    offers: dict[str, Offer] = {}
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor is not None else None)
        for listed in page.tools:
            offer = _offer(listed, server, settings)
            if offer is not None and offer.tool not in offers:
                offers[offer.tool] = offer
        if len(offers) > settings.mcp_tools_max:
            break
        cursor = page.next_cursor
        if cursor is None:
            return offers
    raise ListingTooLong(
        f"MCP server {server!r} lists more than {settings.mcp_tools_max} tools or never ends its list. "
        "Raise HOLDFAST_MCP_TOOLS_MAX if that is meant."
    )


def _offer(listed: ListedTool, server: str, settings: Settings) -> Offer | None:
    """Return one tool as an offer, or None with a line in the log."""
    name = listed.name
    why: str | None
    try:
        schema = _storable_json(listed.input_schema)
        hints = listed.annotations.model_dump(exclude_none=True, by_alias=True) if listed.annotations else {}
        offer = Offer(name, storable(listed.description or ""), schema, _storable_json(hints))
    except (ValueError, TypeError, RecursionError) as exc:
        why = f"its schema is no JSON: {exc}"
    else:
        why = _why_not(offer, settings)
        if why is None:
            return offer
    log.warning("a tool of an MCP server is left out", server=server, tool=name[:128], why=why)
    return None


def _why_not(offer: Offer, settings: Settings) -> str | None:
    """Say why no agent can be given this tool."""
    if not offer.tool or len(offer.tool) > 128 or not offer.tool.isprintable():
        return "its name is empty, too long or not printable"
    if offer.schema.get("type") != "object":
        return 'its schema is not of type "object"'
    size = len(offer.body().encode())
    if size > settings.mcp_definition_max:
        return f"it takes {size:,} bytes, over HOLDFAST_MCP_DEFINITION_MAX"
    return None


def _storable_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return *value* without what PostgreSQL cannot hold."""
    made: dict[str, Any] = json.loads(storable(canonical_json(value)))
    return made
