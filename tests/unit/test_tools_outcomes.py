"""What exceptions prove, with real sockets: refused ports, resets, silence, bad certificates, redirects."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from holdfast.contracts import EffectClass
from holdfast.errors import ToolArgumentsInvalid, ToolError, ToolNotStarted
from holdfast.tools.outcomes import classify


def _refused_port() -> int:
    """Return a port nobody listens on: bound, never listening, until the process ends it stays ours."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    return int(held.getsockname()[1])


_HELD: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    while _HELD:
        _HELD.pop().close()


@contextmanager
def _server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections on a port and treat each with *answer*."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def _reset(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


def _silence(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def _see_other(port: int) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(
            f"HTTP/1.1 303 X\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n".encode()
        )

    return answer


def _httpx(url: str) -> None:
    httpx.post(url, timeout=0.5, follow_redirects=True, trust_env=False)


def _requests(url: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.post(url, timeout=0.5)


def _urllib(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data=b"x"), timeout=0.5):
        pass


def _aiohttp(url: str) -> None:
    async def post() -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=0.5, sock_read=0.5)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url):
            pass

    asyncio.run(post())


def _asyncio(url: str) -> None:
    async def send() -> None:
        parts = httpx.URL(url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        with closing(writer):
            writer.write(b"x")
            async with asyncio.timeout(0.5):
                if not await reader.read(1):
                    raise ConnectionResetError("hung up")

    asyncio.run(send())


CLIENTS = [_httpx, _requests, _urllib, _aiohttp]
ALL = [*CLIENTS, _asyncio]


def _raised(act: Callable[[str], None], url: str) -> BaseException:
    try:
        act(url)
    except Exception as exc:
        return exc
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("client", ALL)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_refused_port_proves_that_nothing_was_sent(client: Callable[[str], None], host: str) -> None:
    """Bare or wrapped by a client library, with one address or several."""
    assert classify(_raised(client, f"http://{host}:{_refused_port()}/"), "once", single_request=True) == "not_sent"


@pytest.mark.parametrize("effect", ["once", "keyed", "verifiable"])
def test_a_failed_connection_proves_nothing_of_a_body_with_more_than_one(effect: EffectClass) -> None:
    """Not declared `single_request`, the body may have made its effect before; that its tool says so is kept."""
    for client in ALL:
        for url in (f"http://127.0.0.1:{_refused_port()}/", "http://holdfast.invalid:80/"):
            assert classify(_raised(client, url), effect) == "unknown"
    assert classify(ssl.SSLCertVerificationError(), effect) == "unknown"
    assert classify(ToolNotStarted(), effect) == "not_sent"
    assert classify(ToolError("no"), effect) == "refused"


@pytest.mark.parametrize("client", ALL)
def test_an_unknown_name_proves_that_nothing_was_sent(client: Callable[[str], None]) -> None:
    """The .invalid domain never resolves, with or without a network."""
    assert classify(_raised(client, "http://holdfast.invalid:80/"), "verifiable", single_request=True) == "not_sent"


@pytest.mark.parametrize("client", ALL)
@pytest.mark.parametrize("answer", [_reset, _hang_up, _silence])
def test_once_bytes_left_nobody_knows(client: Callable[[str], None], answer: Callable[[socket.socket], None]) -> None:
    """A reset, a closed connection and silence after the request prove nothing."""
    with _server(answer) as port:
        exc = _raised(client, f"http://127.0.0.1:{port}/")
    for effect in ("once", "keyed"):
        assert classify(exc, effect, single_request=True) == "unknown"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_redirect_to_a_refused_port_was_sent(client: Callable[[str], None]) -> None:
    """The first server took the request: its effect may stand although the second refused."""
    with _server(_see_other(_refused_port())) as port:
        assert classify(_raised(client, f"http://127.0.0.1:{port}/"), "once", single_request=True) == "unknown"


@pytest.mark.parametrize("client", CLIENTS)
def test_an_untrusted_certificate_proves_that_nothing_was_sent(client: Callable[[str], None], tmp_path: Path) -> None:
    """The handshake fails before the request."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    received: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                received.append(secured.recv(65536))
        except OSError:
            pass

    with _server(answer) as port:
        exc = _raised(client, f"https://127.0.0.1:{port}/")
    assert classify(exc, "once", single_request=True) == "not_sent"
    assert not b"".join(received)


def test_a_connect_timeout_of_httpx_proves_it_and_a_read_timeout_does_not() -> None:
    """The one happens before, the other after the request."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers: list[socket.socket] = []
    try:
        port = full.getsockname()[1]
        for _ in range(4):  # fill the queue of connections: the next one hangs in connect
            filler = socket.socket()
            fillers.append(filler)
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        exc = _raised(_httpx, f"http://127.0.0.1:{port}/")
        assert isinstance(exc, httpx.ConnectTimeout)
        assert classify(exc, "once", single_request=True) == "not_sent"
        assert classify(_raised(_aiohttp, f"http://127.0.0.1:{port}/"), "once", single_request=True) == "not_sent"
    finally:
        for each in (*fillers, full):
            each.close()
    assert classify(httpx.ReadTimeout("late"), "once", single_request=True) == "unknown"


def test_a_second_try_inside_the_tool_hides_nothing() -> None:
    """A refused fall-back after a request that was cut off: the first may have taken effect."""
    refused = f"http://127.0.0.1:{_refused_port()}/"
    for answer in (_reset, _silence):
        for client in ALL:

            def tool(url: str, client: Callable[[str], None] = client) -> None:
                try:
                    client(url)
                except Exception:
                    client(refused)

            with _server(answer) as port:
                raised = _raised(tool, f"http://127.0.0.1:{port}/")
                assert classify(raised, "once", single_request=True) == "unknown", (answer, client)


def test_a_refusal_handled_before_something_else_failed_proves_nothing() -> None:
    """An exception of the tool's own may come from after a later send, whatever it was handling."""

    def tool(_: str) -> None:
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError:
            raise ValueError("bad answer of the second server")  # noqa: B904 - the context is what is tested

    assert classify(_raised(tool, ""), "once", single_request=True) == "unknown"


def test_the_tools_own_word_and_the_runners() -> None:
    """A ToolError is a refusal; what never started was not sent; pure and local_tx leave nothing behind."""
    assert classify(ToolError("no"), "once") == "refused"
    assert classify(ToolArgumentsInvalid("no"), "pure") == "refused"
    assert classify(ToolNotStarted(), "once") == "not_sent"
    for exc in (ValueError(), TimeoutError(), ConnectionResetError(), asyncio.CancelledError(), KeyError()):
        assert classify(exc, "once", single_request=True) == "unknown"
        assert classify(exc, "pure") == classify(exc, "local_tx") == "not_sent"
    assert classify(urllib.error.URLError(TimeoutError()), "once", single_request=True) == "unknown"
    assert classify(urllib.error.URLError("text"), "once", single_request=True) == "unknown"
    assert classify(OSError("Multiple exceptions: made up"), "once", single_request=True) == "unknown"


async def test_what_aiohttp_sent_twice_by_itself_was_sent() -> None:
    """It repeats a DELETE when the connection is lost; that the second try is refused proves nothing of the first."""
    seen = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await reader.readuntil(b"\r\n\r\n")
        seen += 1
        server.close()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            async with session.delete(f"http://127.0.0.1:{port}/"):
                pass
        assert seen == 1
        assert classify(caught.value, "once", single_request=True) == "unknown"
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            async with session.delete(f"http://127.0.0.1:{port}/"):
                pass
        assert classify(caught.value, "once", single_request=True) == "not_sent"
