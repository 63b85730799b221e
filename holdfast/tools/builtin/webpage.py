"""The tool `web_page`: a page as text, fetched under the same guard as `http_get`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from holdfast.contracts import ApprovalPolicy
from holdfast.errors import ConfigurationError, ToolError
from holdfast.tools.builtin.confined import confined
from holdfast.tools.builtin.fetching import Fetcher
from holdfast.tools.builtin.urls import UrlGuard
from holdfast.tools.tool import AnyTool, Tool
from holdfast.tools.toolset import makes_tools

__all__ = ["web_page"]

_LINKS = 100
_ACCEPT = {"Accept": "text/html, text/plain;q=0.9, */*;q=0.5"}
_HTML = ("text/html", "application/xhtml+xml", "")


@makes_tools
def web_page(
    allow: str | Iterable[str] | None = None,
    *,
    allow_local: Iterable[str] = (),
    ports: Iterable[int] = (80, 443),
    timeout: float = 30.0,
    max_bytes: int = 4 * 1024 * 1024,
    max_text: int = 100_000,
    max_redirects: int = 5,
    approval: ApprovalPolicy | None = None,
    name: str = "web_page",
) -> AnyTool:
    """Return the pure tool `web_page`, which reads a page: title, text with its headings, links.

    Args:
        allow: the hosts, as in `http_request`: a list, or `"*"` for every public one. Required unless *allow_local* is
            given.
        allow_local: each `host:port` on this machine or a private network that may be read too.
        ports: that need no mention in *allow*.
        timeout: seconds for fetching the page; as much again for reading it.
        max_bytes: of the page; the rest is cut off.
        max_text: characters of text that are returned. What is over HOLDFAST_RESULT_INLINE is trimmed and has a handle.
        max_redirects: each is checked anew.
        approval: `always` asks a person before each call; the default if *allow* is `"*"`, since a hostile page can
            talk the model into putting what it knows into a URL.
        name: of the tool.

    Raises:
        ConfigurationError: a list or a limit is wrong.

    """
    if not (timeout > 0 and max_bytes > 0 and max_text > 0 and max_redirects >= 0):
        raise ConfigurationError("web_page: timeout, max_bytes and max_text must be above 0.")
    guard = UrlGuard(allow, allow_local=allow_local, ports=ports)
    fetcher = Fetcher(guard, timeout=timeout, most=max_bytes, redirects=max_redirects)

    async def read_web_page(
        url: Annotated[str, Field(min_length=8, max_length=4096, description="http:// or https:// URL")],
        links: Annotated[bool, Field(description="also list where its links lead")] = False,
    ) -> dict[str, Any]:
        """Read a web page as text: title, headings, paragraphs, lists, tables."""
        done = await fetcher.get(url, headers=_ACCEPT)
        page: dict[str, Any] = {"url": done.url}
        if done.status >= 400:
            page["status"] = f"{done.status} {done.reason}"
        if done.content_type in _HTML:
            _, mark, rest = done.headers.get("content-type", "").partition("charset=")
            charset = rest.partition(";")[0].strip(" \"'") if mark else None
            wanted = _LINKS if links else 0
            page |= await confined(
                "page", done.body, timeout=timeout, charset=charset, base=done.url, links=wanted, size=max_text
            )
        else:
            text = done.text() if done.content_type.startswith("text/") or "json" in done.content_type else None
            text = done.text() if text is None and "xml" in done.content_type else text
            if text is None:
                raise ToolError(f"{done.url} is {done.content_type or 'of no known type'}, not text that can be read")
            page |= {"type": done.content_type, "text": text[:max_text]}
            if len(text) > max_text:
                page["cut"] = f"only the first {max_text:,} of {len(text):,} characters are here"
        if done.cut:
            page["cut"] = f"only the first {max_bytes:,} bytes of the page were read"
        if not links:
            page.pop("links", None)
        return page

    return Tool(read_web_page, effect="pure", approval=approval or guard.approval, name=name, timeout=2 * timeout + 5.0)
