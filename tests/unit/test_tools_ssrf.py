"""No spelling, look-up or redirect leads a guarded request to an address that is not public."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from holdfast.errors import ConfigurationError, ToolError
from holdfast.tools import http_request, web_page
from holdfast.tools.builtin.fetching import Fetcher
from holdfast.tools.builtin.urls import UrlGuard
from holdfast.tools.tool import AnyTool
from tests.kit import serving

PUBLIC = "93.184.216.34"

DISGUISED = Path(__file__).with_name("disguised_urls.txt").read_text(encoding="utf-8").split()

LEADS_TO = [
    "127.0.0.1",
    "10.0.0.5",
    "172.20.0.1",
    "192.168.0.10",
    "169.254.169.254",
    "100.64.1.1",
    "0.0.0.0",
    "224.0.0.251",
    "240.1.1.1",
    "168.63.129.16",
    "::1",
    "::ffff:10.0.0.5",
    "::10.0.0.5",
    "fe80::1",
    "fe80::1%lo",
    "fd12::1",
    "64:ff9b::a00:5",
    "2002:a00:5::",
    "2001:0:1::1",
    "2a00::5efe:10.0.0.5",
    "ff02::1",
]


def _get(allow: str | list[str] = "*", **given: object) -> AnyTool:
    [tool] = http_request(allow, **given)  # type: ignore[arg-type]
    return tool


@pytest.mark.parametrize("url", DISGUISED)
@pytest.mark.parametrize("kind", ["http_get", "web_page"])
async def test_a_disguised_address_is_refused(url: str, kind: str) -> None:
    """Whatever it is spelled like, it is refused by the tool itself, before anything is looked up or sent."""
    tool = _get() if kind == "http_get" else web_page("*")
    with pytest.raises(ToolError):
        await tool(url=url)


def test_the_table_is_long() -> None:
    """Each line of it stands for one way that some guard has missed."""
    assert len(set(DISGUISED)) >= 100


@pytest.mark.parametrize("address", LEADS_TO)
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    """Also when it comes among public addresses: all must be public."""

    async def resolve(host: str, port: int) -> list[str]:
        return [PUBLIC, address]

    for allow in ("*", ["intranet.example.com"]):
        guard = UrlGuard(allow, resolve=resolve)
        with pytest.raises(ToolError, match=r"intranet\.example\.com leads to"):
            await guard.check("http://intranet.example.com/")


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("https://example.com/a?b=c#d", [PUBLIC]),
        ("http://sub.example.com:80/", ["2606:2800:220:1::1"]),
        ("https://xn--exmple-cua.com/", [PUBLIC]),
        ("https://example.com/", ["64:ff9b::8.8.8.8"]),  # how an IPv6-only network reaches it
        ("https://8.8.8.8/", []),
        ("https://[2606:2800:220:1::1]/", []),
    ],
)
async def test_what_is_public_passes(url: str, addresses: list[str]) -> None:
    """The guard is no obstacle to plain URLs of public hosts."""

    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    target = await UrlGuard("*", resolve=resolve).check(url)
    assert target.addresses
    assert target.url.fragment == ""


@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("https://api.example.com/", True),
        ("https://api.example.com:8443/", True),
        ("https://other.example.com/", False),
        ("https://api.example.com.evil.com/", False),
        ("https://evilapi.example.com/", False),
        ("https://a.wild.org/", True),
        ("https://a.b.wild.org/", True),
        ("https://wild.org/", False),
        ("https://evilwild.org/", False),
        ("https://api.example.com:8444/", False),
        ("https://only.port.com:9000/", True),
        ("https://only.port.com/", False),
    ],
)
async def test_the_allow_list(url: str, passes: bool) -> None:
    """A host is itself, a star its subdomains, a port only where it is named."""

    async def resolve(host: str, port: int) -> list[str]:
        return [PUBLIC]

    allow = ["api.example.com", "api.example.com:8443", "*.wild.org", "only.port.com:9000"]
    guard = UrlGuard(allow, resolve=resolve)
    if passes:
        assert (await guard.check(url)).addresses
    else:
        with pytest.raises(ToolError, match="not allowed"):
            await guard.check(url)


@pytest.mark.parametrize("entry", ["https://a.com", "a.com/path", "a b", "", "a.com:0", "a.com:99999", "a@b"])
def test_a_wrong_list_is_refused_at_once(entry: str) -> None:
    """When the agents file is read, and with the way to write it."""
    with pytest.raises(ConfigurationError):
        http_request([entry])
    with pytest.raises(ConfigurationError):
        http_request("*", allow_local=[entry])
    with pytest.raises(ConfigurationError):
        http_request([])
    with pytest.raises(ConfigurationError, match="needs its port"):
        http_request("*", allow_local=["localhost"])


# ------------------------------------------------------------------------------------------------------- real servers


class Sites:
    """Two real servers on one port of two loopback addresses: one that is meant, one that is not."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.onward: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """Answer, or redirect as the test wants it."""
        here = str(request.transport.get_extra_info("sockname")[0]) if request.transport else ""
        self.asked.append(f"{here}{request.path}")
        to = self.onward.get(request.path)
        if to is not None:
            return web.Response(status=302, headers={"Location": to.replace("PORT", str(self.port))})
        return web.Response(text=f"hello from {here}, asked for {request.host}")


@pytest.fixture
async def sites() -> AsyncIterator[Sites]:
    """Start both."""
    made = Sites()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.answer)
    async with serving(app, "127.0.0.1", "127.0.0.2") as made.port:
        yield made


async def test_localhost_on_purpose(sites: Sites) -> None:
    """What is named in allow_local is asked, by its name; its neighbours are not."""
    tool = _get([], allow_local=[f"localhost:{sites.port}"])
    answer = await tool(url=f"http://localhost:{sites.port}/a")
    assert answer["status"] == 200
    assert answer["body"] == f"hello from 127.0.0.1, asked for localhost:{sites.port}"
    for other in (f"http://127.0.0.1:{sites.port}/", f"http://127.0.0.2:{sites.port}/", "http://localhost:1/"):
        with pytest.raises(ToolError):
            await tool(url=other)
    assert sites.asked == ["127.0.0.1/a"]


async def test_a_rebound_name_is_looked_up_once(sites: Sites) -> None:
    """A name server that says something else the second time is not asked a second time."""
    answers = [["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"]]

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    guard = UrlGuard([], allow_local=[f"rebind.example.com:{sites.port}"], resolve=resolve)
    fetcher = Fetcher(guard, timeout=10, most=1000, redirects=3)
    done = await fetcher.get(f"http://rebind.example.com:{sites.port}/a")
    assert done.body.startswith(b"hello from 127.0.0.1")
    assert len(answers) == 2
    assert sites.asked == ["127.0.0.1/a"]


async def test_a_name_rebound_between_redirects_is_refused(sites: Sites) -> None:
    """Each hop is looked up and checked anew, and only that look-up counts."""
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    sites.onward["/a"] = "/b"

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    guard = UrlGuard([], allow_local=[f"rebind.example.com:{sites.port}"], resolve=resolve)
    fetcher = Fetcher(guard, timeout=10, most=1000, redirects=3)
    with pytest.raises(ToolError, match="link-local"):
        await fetcher.get(f"http://rebind.example.com:{sites.port}/a")
    assert sites.asked == ["127.0.0.1/a"]


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.2:PORT/x",
        "//127.0.0.2:PORT/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.2]:PORT/x",
        "http://2130706434:PORT/x",
        "http://localhost:1/x",
        "http://localhost:PORT@127.0.0.2:PORT/",
        "http://127.0.0.2:PORT\\@localhost:PORT/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:PORT/",
        "http://metadata.google.internal/",
        "http://[bad",
    ],
)
async def test_a_redirect_inside_is_refused(sites: Sites, to: str) -> None:
    """The first hop was allowed; where it points is judged like a URL of the model's own."""
    sites.onward["/a"] = to
    for tool in (
        _get("*", allow_local=[f"localhost:{sites.port}"]),
        web_page("*", allow_local=[f"localhost:{sites.port}"]),
    ):
        with pytest.raises(ToolError):
            await tool(url=f"http://localhost:{sites.port}/a")
    assert set(sites.asked) == {"127.0.0.1/a"}


async def test_redirects_are_few(sites: Sites) -> None:
    """A circle ends, and says so."""
    sites.onward["/a"] = "/a"
    tool = _get([], allow_local=[f"localhost:{sites.port}"], max_redirects=3)
    with pytest.raises(ToolError, match="more than 3 times"):
        await tool(url=f"http://localhost:{sites.port}/a")
    assert len(sites.asked) == 4


async def test_the_last_check_is_at_the_socket(sites: Sites) -> None:
    """Were the client's own resolver ever asked, the connection to what was not checked would still not be made."""
    guard = UrlGuard([], allow_local=[f"localhost:{sites.port}"])
    target = await guard.check(f"http://localhost:{sites.port}/")
    with pytest.raises(ToolError, match="was not checked"):
        guard.check_connection(target, "127.0.0.2")
    guard.check_connection(target, str(target.addresses[0]))


async def test_a_name_that_is_unknown_was_not_asked() -> None:
    """The system's own error comes through: proof, for the ledger, that nothing was sent."""

    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(socket.gaierror):
        await UrlGuard("*", resolve=resolve).check("http://unknown.example.com/")

    async def nothing(host: str, port: int) -> list[str]:
        await asyncio.sleep(0)
        return []

    with pytest.raises(socket.gaierror):
        await UrlGuard("*", resolve=nothing).check("http://unknown.example.com/")
