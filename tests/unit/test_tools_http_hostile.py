"""The HTTP tools against servers that mean harm: what they send neither holds a worker up nor leaves it in doubt."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from holdfast.errors import ToolError
from holdfast.tools.builtin.confined import confined
from holdfast.tools.builtin.fetching import Exchange, Fetcher
from holdfast.tools.builtin.urls import UrlGuard
from holdfast.tools.outcomes import classify

Parts = Callable[[], Iterator[bytes]]


@asynccontextmanager
async def hostile(parts: Parts, *, silent: bool = False) -> AsyncIterator[int]:
    """Give the port of a server that answers each request with *parts*, or not even a connection's first word."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if silent:
                await done.wait()
            else:
                await reader.readuntil(b"\r\n\r\n")
                for part in parts():
                    if part == STALL:
                        await done.wait()
                    else:
                        writer.write(part)
                        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        done.set()
        server.close()
        await server.wait_closed()


STALL = b"(and nothing more)"


def _fetcher(port: int, *, timeout: float = 20.0) -> Fetcher:
    guard = UrlGuard([], allow_local=[f"localhost:{port}"])
    return Fetcher(guard, timeout=timeout, most=1_000_000, redirects=2)


async def _get(port: int) -> Exchange:
    return await _fetcher(port).get(f"http://localhost:{port}/")


async def _send(port: int, *, timeout: float = 20.0, scheme: str = "http") -> Exchange:
    return await _fetcher(port, timeout=timeout).send("POST", f"{scheme}://localhost:{port}/", {}, b"x")


def _said(body: bytes, *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (*headers, f"content-length: {len(body)}"))
    return f"HTTP/1.1 200 OK\r\n{head}\r\n".encode("latin-1") + body


@pytest.mark.parametrize("charset", ["punycode", "idna", "undefined", "hex", "no-such", "\xff", ""])
async def test_a_charset_is_only_a_name(charset: str) -> None:
    """Some of Python's codecs take hours for what is a megabyte, others raise; the call was made all the same."""
    body = b"a-" + b"b" * 900_000

    async with hostile(lambda: iter([_said(body, f"content-type: text/plain; charset={charset}")])) as port:
        began = time.monotonic()
        assert (await _send(port)).text() == body.decode()
        assert time.monotonic() - began < 10


def _endless_headers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"x-a: " + b"a" * 4000 + b"\r\n"


def _endless_line() -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 200 " + b"a" * 65536


def _endless_trailers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    while True:
        yield b"x-a: " + b"a" * 4000 + b"\r\n"


@pytest.mark.parametrize("parts", [_endless_headers, _endless_line, _endless_trailers])
async def test_what_stands_around_a_body_is_bounded(parts: Parts) -> None:
    """Headers, a first line and trailers without end are given up, long before the time is over."""
    async with hostile(parts) as port:
        began = time.monotonic()
        with pytest.raises((aiohttp.ClientError, OSError)):
            await _get(port)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\nabc"],
        [b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\nabc", STALL],
        [b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", STALL],
    ],
)
async def test_a_status_is_an_answer(parts: list[bytes]) -> None:
    """When a body stops, lies about its length or drips, what was sent is known to have been taken: nobody is asked."""
    async with hostile(lambda: iter(parts)) as port:
        done = await _send(port, timeout=1.0)
        assert (done.status, done.body) == (201, b"abc")
        assert done.lost is not None
        with pytest.raises((ToolError, aiohttp.ClientError, OSError)):
            await _fetcher(port, timeout=1.0).get(f"http://localhost:{port}/")


async def test_who_takes_no_connection_was_sent_nothing() -> None:
    """A TLS handshake that never ends is no request: the ledger need not ask anybody."""
    async with hostile(lambda: iter([]), silent=True) as port:
        with pytest.raises(Exception, match="Nothing was sent") as caught:
            await _send(port, timeout=0.5, scheme="https")
        assert classify(caught.value, "once", single_request=True) == "not_sent"


async def test_half_of_a_packed_body_is_told_to_be_half() -> None:
    """It may have been cut on purpose: the model must not take it for the whole."""
    packed = gzip.compress(b"one two three " * 1000)
    half = packed[: len(packed) // 2]
    async with hostile(lambda: iter([_said(half, "content-encoding: gzip")])) as port:
        assert (await _get(port)).cut
    async with hostile(lambda: iter([_said(packed, "content-encoding: gzip")])) as port:
        assert not (await _get(port)).cut


@pytest.mark.parametrize(
    "odd", ['<base href="http://[bad">', "<![foo[bar]]>", "<![CDATA[x]]>", "<!ELEMENT y>", "<?x?>"]
)
async def test_what_is_odd_in_a_page_spoils_nothing_else(odd: str) -> None:
    """The library's parser gives such a page up; browsers do not."""
    html = f'<p>one</p>{odd}<p>two <a href="/c">three</a></p>'
    page = await confined("page", html.encode(), charset=None, base="http://a.example/b", links=5, size=1000)
    assert page["text"] == "one\n\ntwo three"
    assert page["links"] == [{"text": "three", "url": "http://a.example/c"}]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_no_proxy_of_the_environment_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look the name up again, elsewhere, and connect to what nobody checked."""
    async with hostile(lambda: iter([_said(b"proxy")])) as proxy, hostile(lambda: iter([_said(b"site")])) as port:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert (await _get(port)).body == b"site"
        assert (await _send(port)).body == b"site"
