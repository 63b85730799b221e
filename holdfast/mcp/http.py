"""A server that speaks streamable HTTP: a client that marks what happened to each call. Only `link.py` uses it.

The library turns a refused connection, amid a session, into the end of the session and of every other call on it. Here
such a failure becomes an answer of its own, so that it concerns one call, and the call's mark keeps what it proves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx2

from holdfast.errors import ConfigurationError
from holdfast.mcp.answers import MARK, Mark
from holdfast.mcp.server import Endpoint
from holdfast.mcp.weight import Weight
from holdfast.settings import Settings
from holdfast.tools.builtin.addresses import is_local, parse
from holdfast.tools.builtin.credentials import in_the_clear
from holdfast.tools.builtin.urls import Resolve, look_up

__all__ = ["Caller", "check_private", "open_client"]

_READABLE = ("application/json", "text/event-stream")
_NO_ANSWER = (202, 301, 302, 303, 307, 308)
_IDLE = 300.0  # seconds without a byte after which a stream is taken for dead, at least
_LISTENING_AGAIN = 0.5  # seconds between requests for a stream: a server says itself how soon the library asks again
_BETWEEN = re.compile(rb"\n\n|\r\r|\r\n\r\n")
_CONNECTING = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


async def check_private(declared: Endpoint, url: str, *, resolve: Resolve = look_up) -> None:
    """Make sure that credentials which go to *url* without encryption stay on this machine or in a private network.

    Raises:
        ConfigurationError: the server's name leads elsewhere.
        OSError: it cannot be looked up.

    """
    headers = dict(declared.headers)
    if url.startswith("https:") or not (in_the_clear(url, headers) or in_the_clear(declared.url or "", headers)):
        return
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    for found in await resolve(host, port):
        address = parse(found)
        if address is None or not is_local(address):
            raise ConfigurationError(
                f"{host} resolves to {found}, which is not in a private network, and credentials would be sent there "
                "in the "
                "clear. Use https://."
            )


def open_client(endpoint: Endpoint, settings: Settings, *, timeout: float) -> Caller:
    """Return a client that sends the endpoint's headers. *timeout* is the longest call, in seconds.

    Raises:
        ConfigurationError: a header has characters that HTTP does not allow.

    """
    for name, value in endpoint.headers:
        if not (value.isascii() and value.isprintable()):
            raise ConfigurationError(
                f"MCP server {endpoint.name!r}, headers: the value of {name} has characters that HTTP does not allow."
            )
    return Caller(
        settings,
        headers={**dict(endpoint.headers), "accept-encoding": "identity"},
        timeout=httpx2.Timeout(endpoint.connect_timeout, read=max(_IDLE, timeout + 10)),
        trust_env=(endpoint.url or "").startswith("https:"),  # a proxy would see what goes without encryption
    )


class Caller(httpx2.AsyncClient):
    """An HTTP client whose failures, once a call is under way, are told by the call's mark."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        """Take what httpx2 takes, and the settings, which say how long an answer may be."""
        super().__init__(**options)
        self._settings = settings
        self._listen_at = 0.0

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send one request; a failure of a marked one is a made-up answer of status 502 or 503."""
        if request.method == "GET":
            now = asyncio.get_running_loop().time()
            begin = max(now, self._listen_at)
            self._listen_at = begin + _LISTENING_AGAIN
            await asyncio.sleep(begin - now)
        mark = MARK.get() if request.method == "POST" else None
        if mark is not None and mark.taken and not mark.every:
            mark = None
        elif mark is not None:
            mark.taken = True
        try:
            response = await super().send(request, **options)
        except _CONNECTING as exc:
            if mark is None:
                raise
            mark.refused = _words(exc)
            return httpx2.Response(503, request=request)
        except httpx2.TransportError as exc:
            if mark is None:
                raise
            mark.lost = _words(exc)
            return httpx2.Response(502, request=request)
        if mark is not None:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            mark.status = response.status_code
            mark.readable = kind in _READABLE and response.status_code not in _NO_ANSWER
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()  # unasked for; unpacking it could fill our memory
            if mark is not None:
                mark.lost = "its answer is compressed, which was not asked for"
            return httpx2.Response(502, request=request)
        if options.get("stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            events = response.headers.get("content-type", "").startswith("text/event-stream")
            response.stream = _Bounded(response.stream, self._settings, mark, events=events)
        return response


class _Bounded(httpx2.AsyncByteStream):
    """A body none of whose messages may grow over a limit, and whose loss is marked."""

    def __init__(self, inner: httpx2.AsyncByteStream, settings: Settings, mark: Mark | None, *, events: bool) -> None:
        self._inner = inner
        self._settings = settings
        self._mark = mark
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            left, weight = self._settings.mcp_message_max, Weight(self._settings.mcp_values_max)
            async for chunk in self._inner:
                if self._events and _BETWEEN.search(chunk):  # another event begins
                    left, weight = self._settings.mcp_message_max, Weight(self._settings.mcp_values_max)
                left -= len(chunk)
                if left < 0:
                    raise httpx2.ReadError("the answer is longer than HOLDFAST_MCP_MESSAGE_MAX")
                if not weight.add(chunk):
                    raise httpx2.ReadError("the answer holds more than HOLDFAST_MCP_VALUES_MAX")
                yield chunk
        except httpx2.TransportError as exc:
            if self._mark is None:
                raise
            self._mark.lost = _words(exc)
            raise httpx2.StreamError(self._mark.lost) from exc

    async def aclose(self) -> None:
        await self._inner.aclose()


def _words(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
