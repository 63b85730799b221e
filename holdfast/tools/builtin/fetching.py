"""One HTTP exchange under guard: checked before each hop, connected to what was checked, capped in bytes and time.

The tools `http_get`, `http_send` and `web_page` stand on it.
"""

from __future__ import annotations

import asyncio
import codecs
import socket
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.errors import SecretUnavailable, ToolError, ToolNotStarted
from holdfast.tools.builtin.credentials import HostHeaders
from holdfast.tools.builtin.urls import Target, UrlGuard

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Exchange", "Fetcher"]

_CONNECT = 10.0  # seconds until a connection stands; a time-out there proves that nothing was sent
_REDIRECTS = (301, 302, 303, 307, 308)
_WIRE_SLACK = 64 * 1024  # bytes of a compressed body beyond the cap that may come in without any output
_ENCODINGS = ("", "identity", "gzip", "x-gzip", "deflate")
_NO_CHARSETS = ("idna", "punycode", "undefined")  # Python has them; one takes hours for a megabyte, two only fail


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back. `body` is decompressed and at most as long as allowed; `cut` says that there was more.

    `lost` says why the rest never came, though the server had answered.
    """

    status: int
    reason: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False
    lost: str | None = None
    hops: list[str] = field(default_factory=list)

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def text(self) -> str | None:
        """Return the body as text, or None if it is binary."""
        if b"\x00" in self.body[:4096] and "utf-16" not in self.headers.get("content-type", "").lower():
            return None
        _, mark, rest = self.headers.get("content-type", "").lower().partition("charset=")
        name = rest.partition(";")[0].strip(" \"'") if mark else "utf-8"
        try:
            if codecs.lookup(name).name not in _NO_CHARSETS:
                return self.body.decode(name, "replace")
        except (LookupError, ValueError):  # there is no such charset
            pass
        return self.body.decode("utf-8", "replace")


class Fetcher:
    """Sends requests that its guard lets through.

    *headers* are those of the host that is asked first; they go along as long as a request stays at its scheme, host
    and port. *timeout* is for the whole exchange, redirects and body included, in seconds; *most* caps the decompressed
    body, in bytes.
    """

    def __init__(
        self, guard: UrlGuard, *, headers: HostHeaders | None = None, timeout: float, most: int, redirects: int
    ) -> None:
        self._guard = guard
        self._headers = headers
        self._timeout = timeout
        self._most = most
        self._redirects = redirects

    async def get(self, url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Exchange:
        """Ask, and follow redirects, each checked like the first URL.

        Raises:
            ToolError: a URL may not be asked, there were too many redirects, or no answer in time.
            OSError, aiohttp.ClientError: the server could not be asked; another try may do.

        """
        hops: list[str] = []
        until = asyncio.get_running_loop().time() + self._timeout
        try:
            target = await self._checked(url, until)
            own = await self._own(target, until)
            first = target.origin
            while True:
                mine = {**(headers or {}), **own} if target.origin == first else {}
                done = await self._once(method, target, mine, None, hops, until, whole=True)
                onward = done.headers.get("location")
                if done.status not in _REDIRECTS or not onward:
                    return done
                if len(hops) >= self._redirects:
                    raise ToolError(f"{url} was redirected more than {self._redirects} times")
                hops.append(done.url)
                target = await self._checked(self._joined(target, onward), until)
        except SecretUnavailable:
            raise
        except (TimeoutError, ToolNotStarted):
            raise ToolError(f"{url} did not answer within {self._timeout:g} s") from None

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Exchange:
        """Send one request; a redirect is returned, not followed: following it would be a second effect.

        Once a status has come the request is known to have been made, so what is lost after that is only told.

        Raises:
            ToolError: it may not be asked; nothing was sent.
            ToolNotStarted: in time there was no connection; nothing was sent.
            OSError, aiohttp.ClientError, TimeoutError: what `holdfast.tools.outcomes` makes of them.

        """
        began = asyncio.get_running_loop().time()
        target: Target | None = None
        own: Mapping[str, str] | None = None
        with suppress(TimeoutError):  # unlike with other time-outs, nothing was sent by then
            target = await self._checked(url, began + self._timeout / 4)
            own = await self._own(target, began + self._timeout / 2)
        if target is None or own is None:
            raise socket.gaierror(socket.EAI_AGAIN, "the name, or a secret, was not looked up in time")
        return await self._once(method, target, {**headers, **own}, body, [], began + self._timeout, whole=False)

    async def _own(self, target: Target, until: float) -> Mapping[str, str]:
        """Return our own headers for a target, with the values of secrets.

        Raises:
            ToolError: one is not set, is no header, or may not be sent there; nothing was sent.

        """
        if self._headers is None:
            return {}
        async with asyncio.timeout_at(until):
            return await self._headers.of(target)

    async def _checked(self, url: str, until: float) -> Target:
        async with asyncio.timeout_at(until):
            return await self._guard.check(url)

    @staticmethod
    def _joined(target: Target, location: str) -> str:
        from yarl import URL

        try:
            return str(target.url.join(URL(location)))
        except ValueError as exc:
            raise ToolError(f"{target.host} redirects to what is no URL: {exc}") from None

    async def _once(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        body: bytes | None,
        hops: list[str],
        until: float,
        *,
        whole: bool,
    ) -> Exchange:
        """Make one request. If it is not to be *whole*, what arrives of an answer is good enough."""
        import aiohttp

        def connection(info: Any) -> socket.socket:  # Any: (family, type, protocol, name, address)
            self._guard.check_connection(target, str(info[4][0]))
            return socket.socket(info[0], info[1], info[2])

        made, stands = 0, False

        async def only_one(*_: object) -> None:
            # aiohttp sends PUT and DELETE (and what reads) again by itself when a connection is lost amid them.
            nonlocal made
            made += 1
            if made > 1:
                raise aiohttp.ServerDisconnectedError("the connection was lost after the request was sent")

        async def connected(*_: object) -> None:
            nonlocal stands
            stands = True

        trace = aiohttp.TraceConfig()
        trace.on_connection_create_start.append(only_one)
        trace.on_connection_create_end.append(connected)  # TLS included
        connector = aiohttp.TCPConnector(
            resolver=_pinned(target), use_dns_cache=False, force_close=True, limit=1, socket_factory=connection
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # decompressed here, with a cap
            trace_configs=[trace],
            trust_env=False,  # a proxy would do the look-up again, elsewhere
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT, self._timeout)),
            headers={"User-Agent": "holdfast", "Accept-Encoding": "gzip, deflate"},
        ) as session:
            try:
                async with asyncio.timeout_at(until):
                    asked = session.request(method, target.url, headers=headers, data=body, allow_redirects=False)
                    response = await asked
            except TimeoutError as exc:
                if stands:
                    raise
                raise ToolNotStarted(f"{target.host} took no connection in time. Nothing was sent.") from exc
            async with response:
                told = {name.lower(): value for name, value in response.headers.items()}
                data, cut, lost = bytearray(), False, None
                if method != "HEAD":
                    try:
                        async with asyncio.timeout_at(until):
                            cut = await self._body(response, told, data)
                    except (TimeoutError, OSError, aiohttp.ClientError) as exc:
                        if whole:
                            raise
                        lost = str(exc) or type(exc).__name__
                shown, kept = response.reason or "", bytes(data[: self._most])
                return Exchange(response.status, shown, str(target.url), told, kept, cut, lost, list(hops))

    async def _body(self, response: aiohttp.ClientResponse, headers: Mapping[str, str], out: bytearray) -> bool:
        """Read up to the cap into *out*, never a chunk more, however small the body came in; tell if there was more."""
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            return True  # we did not offer it
        unzip = None if encoding in ("", "identity") else zlib.decompressobj(wbits=47)  # gzip or zlib
        wire = 0
        async for chunk in response.content.iter_any():
            wire += len(chunk)
            if unzip is None:
                out += chunk
            else:
                try:
                    out += unzip.decompress(chunk, self._most + 1 - len(out))
                except zlib.error:
                    return True
                if unzip.eof:
                    break
            if len(out) > self._most or wire > self._most + _WIRE_SLACK:
                return True
        return len(out) > self._most or (unzip is not None and wire > 0 and not unzip.eof)


def _pinned(target: Target) -> Any:
    """Return a resolver that knows one name and what was found for it: nothing is looked up a second time."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            if host.lower() != target.host:
                raise OSError(f"{host} was not checked")
            return [
                ResolveResult(
                    hostname=host,
                    host=str(address),
                    port=port,
                    family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in target.addresses
            ]

        async def close(self) -> None:
            """Nothing is open."""

    return Pinned()
