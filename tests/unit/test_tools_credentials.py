"""A user's headers go to the host they were named for, over https unless it is local, and to nobody else."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from holdfast import secret
from holdfast.errors import ConfigurationError, ToolError
from holdfast.tools import ToolContext, http_request, web_page
from holdfast.tools.builtin.credentials import HostHeaders
from holdfast.tools.builtin.urls import UrlGuard
from holdfast.tools.tool import AnyTool
from holdfast.tools.toolset import Toolset
from tests.kit import serving

BEARER = {"Authorization": f"Bearer {secret('SHOP_KEY')}"}
PUBLIC = "93.184.216.34"


async def _public(host: str, port: int) -> list[str]:
    return [PUBLIC]


async def _headers(
    given: Any, url: str, allow: Any = ("api.example.com", "b.example.com", "*.wild.org"), **more: Any
) -> Any:
    guard = UrlGuard(allow, resolve=more.pop("resolve", _public), **more)
    return await HostHeaders(given, guard, "http_request").of(await guard.check(url))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the secret."""
    monkeypatch.setenv("SHOP_KEY", "sk-shop-123456")


async def test_each_host_gets_its_own() -> None:
    """Those of its port, its own, then those of its domain and of all; another host, nothing of it."""
    given = {
        "*": {"Accept-Language": "de", "X-Team": "all"},
        "*.wild.org": {"X-Team": "wild"},
        "api.example.com": BEARER,
        "b.example.com:443": {"X-Key": "of-b"},
    }
    both = {"Accept-Language": "de", "X-Team": "all"}
    assert await _headers(given, "https://api.example.com/") == {**both, "Authorization": "Bearer sk-shop-123456"}
    assert await _headers(given, "https://b.example.com/") == {**both, "X-Key": "of-b"}
    assert await _headers(given, "https://x.wild.org/") == {"Accept-Language": "de", "X-Team": "wild"}
    assert await _headers(BEARER, "https://a.example.com/", allow="a.example.com") == {
        "Authorization": "Bearer sk-shop-123456"
    }


@pytest.mark.parametrize(
    ("allow", "headers"),
    [
        ("*", BEARER),
        (["api.example.com", "evil.example.com"], BEARER),
        (["*.example.com"], BEARER),
        (["api.example.com", "*.example.com"], BEARER),
        ("*", {"*": BEARER}),
        (["api.example.com"], {"*": BEARER}),
        (["*.example.com"], {"*.example.com": BEARER}),
        ("*", {"*": {"X-Lang": f"{secret('SHOP_KEY')}"}}),
        ("*", {"*": {"Authorization": "Bearer sk-plain"}}),
        ("*", {"*": {"X-Api-Key": "plain"}}),
        ("*", {"*": {"Cookie": "session=1"}}),
        (["api.example.com"], {"other.example.com": BEARER}),
        (["api.example.com"], {"api.example.com:9000": BEARER}),
        (["api.example.com"], {"api.example.com": BEARER, "X-Other": "mixed"}),
        (["api.example.com"], {"https://api.example.com": BEARER}),
    ],
)
def test_a_credential_is_bound_to_a_host(allow: Any, headers: Any) -> None:
    """A model chooses among several hosts, so a declaration that leaves it open is refused when it is read."""
    with pytest.raises(ConfigurationError):
        http_request(allow, headers=headers)


async def test_a_credential_goes_by_https() -> None:
    """Unless each address of the host is on this machine or in a private network; other headers go anyhow."""
    with pytest.raises(ToolError, match="over https:// only"):
        await _headers({"api.example.com": BEARER}, "http://api.example.com/")
    assert await _headers({"api.example.com": {"Accept": "x"}}, "http://api.example.com/") == {"Accept": "x"}
    for address, passes in (("127.0.0.1", True), ("10.1.2.3", True), ("fd12::1", True), (PUBLIC, False)):

        async def resolve(host: str, port: int, address: str = address) -> list[str]:
            return [address]

        asked = _headers(BEARER, "http://tools.lan:8080/", allow=(), allow_local=["tools.lan:8080"], resolve=resolve)
        if passes:
            assert (await asked)["Authorization"] == "Bearer sk-shop-123456"
        else:
            with pytest.raises(ToolError, match="over https:// only"):
                await asked


# -------------------------------------------------------------------------------------------------------- real servers


class Echo:
    """A server that sends back what it got, or redirects."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[tuple[str, dict[str, str]]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Serve."""
        self.seen.append((request.host, dict(request.headers)))
        if to := request.query.get("to"):
            return web.Response(status=302, headers={"Location": to})
        return web.json_response({"headers": dict(request.headers)})


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """Start one."""
    made = Echo()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.answer)
    async with serving(app) as made.port:
        yield made


async def _call(tool: AnyTool, **args: Any) -> Any:
    ctx = ToolContext(
        idempotency_key="k" * 64, tenant="t", thread="c", run_id="r", step_no=1, deadline=time.monotonic() + 60
    )
    return await tool(**tool.bind(tool.validate(args), ctx))


async def test_the_model_cannot_carry_a_credential_to_another_host(echo: Echo) -> None:
    """It may ask each allowed host; what is bound to one reaches that one alone, also after a redirect."""
    mine, other = f"localhost:{echo.port}", f"127.0.0.1:{echo.port}"
    tools = Toolset(
        http_request([], allow_local=[mine, other], methods=["GET", "POST"], headers={mine: {"X-Key": "sk-local-1"}})
    )
    get, send = tools["http_get"], tools["http_send"]
    await _call(get, url=f"http://{other}/")
    await _call(send, method="POST", url=f"http://{other}/", body="x")
    await _call(get, url=f"http://{mine}/?to=http://{other}/")
    await _call(get, url=f"http://{other}/?to=http://{mine}/")
    await _call(get, url=f"http://{mine}/")
    told = [(host == mine, "X-Key" in headers) for host, headers in echo.seen]
    assert told == [
        (False, False),
        (False, False),
        (True, True),
        (False, False),
        (False, False),
        (True, False),
        (True, True),
    ]


async def test_the_model_does_not_read_it_from_an_echo(echo: Echo) -> None:
    """Some servers send back what they got; a credential that stands in the declaration is taken out of that."""
    given = {"Authorization": "Bearer sk-literal-1", "Accept-Language": "de"}
    [get] = http_request([], allow_local=[f"localhost:{echo.port}"], headers=given)
    answer = await _call(get, url=f"http://localhost:{echo.port}/")
    assert echo.seen[0][1]["Authorization"] == "Bearer sk-literal-1"
    assert "sk-literal-1" not in json.dumps(answer)
    assert answer["body"]["headers"]["Accept-Language"] == "de"


# ---------------------------------------------------------------------------------------------- which hosts, and asked


def test_no_host_is_allowed_unless_it_is_named() -> None:
    """Every host is one word, and then a person is asked before each call, reading ones too."""
    for factory in (web_page, http_request):
        with pytest.raises(ConfigurationError, match="no host is allowed"):
            factory()
    for allow, approval, expected in (
        (["api.example.com"], None, "never"),
        (["*.example.com"], None, "never"),
        (["api.example.com"], "always", "always"),
        ("*", None, "always"),
        (["*"], None, "always"),
        ("*", "never", "never"),
    ):
        tools = http_request(allow, methods=["GET", "HEAD", "POST"], approval=approval)  # type: ignore[arg-type]
        for tool in (*tools, web_page(allow, approval=approval)):  # type: ignore[arg-type]
            assert tool.definition.approval == expected, (allow, tool.name)


METADATA = [
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:42::42",
    "169.254.169.254",
    "fe80::a9fe:a9fe",
    "100.100.100.200",
]


@pytest.mark.parametrize("address", METADATA)
async def test_no_metadata_service_is_asked_though_private_hosts_may_be(address: str) -> None:
    """Clouds have them in private IPv6 space: named, or led to by a name, they are refused with allow_local too."""

    async def resolve(host: str, port: int) -> list[str]:
        return [address]

    literal = f"[{address}]" if ":" in address else address
    guard = UrlGuard([], allow_local=[f"{literal}:80", "inner.lan:80"], resolve=resolve)
    for host in (literal, "inner.lan"):
        with pytest.raises(ToolError, match="nothing was sent"):
            await guard.check(f"http://{host}/latest/meta-data/")
    with pytest.raises(ToolError):
        guard.check_connection(
            await UrlGuard([], allow_local=["a.lan:80"], resolve=_loopback).check("http://a.lan/"), address
        )


async def _loopback(host: str, port: int) -> list[str]:
    return [socket.inet_ntoa(b"\x7f\0\0\1")]
