"""The tools `http_get` and `http_send`, which `http_request` makes for the hosts that a user allows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from holdfast.contracts import ApprovalPolicy, EffectClass
from holdfast.errors import ConfigurationError, ToolError
from holdfast.tools.builtin.credentials import HostHeaders
from holdfast.tools.builtin.fetching import Exchange, Fetcher
from holdfast.tools.builtin.urls import UrlGuard
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import AnyTool, Tool
from holdfast.tools.toolset import makes_tools

__all__ = ["http_request"]

_READING = ("GET", "HEAD")
_WRITING = ("POST", "PUT", "PATCH", "DELETE")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_NOT_THE_MODELS = re.compile(
    r"(?i)(host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|via|keep-alive|accept-encoding"
    r"|cookie|authorization|idempotency-key|forwarded|x-forwarded-.*|x-real-ip|true-client-ip|cf-connecting-ip|x-client-ip"
    r"|x-cluster-client-ip|x-original-.*|x-rewrite-.*|metadata.*|x-aws-ec2-.*|proxy-.*|sec-.*|x-http-method.*|x-method.*)"
)
_SHOWN = ("content-type", "location", "retry-after", "etag", "last-modified", "link")
_DEPTH = 64  # levels of JSON that are passed on as JSON
_BODY = 256 * 1024  # characters of a request's body

Url = Annotated[str, Field(min_length=8, max_length=4096, description="http:// or https:// URL")]
Headers = Annotated[dict[str, str] | None, Field(description="more headers, such as Accept; no credentials")]


@makes_tools
def http_request(
    allow: str | Iterable[str] | None = None,
    *,
    methods: Iterable[str] = _READING,
    idempotency_key: bool = False,
    headers: Mapping[str, Mapping[str, str]] | Mapping[str, str] | None = None,
    allow_local: Iterable[str] = (),
    ports: Iterable[int] = (80, 443),
    timeout: float = 30.0,
    max_bytes: int = 1024 * 1024,
    max_redirects: int = 5,
    approval: ApprovalPolicy | None = None,
    prefix: str = "",
) -> list[AnyTool]:
    """Return the tools `http_get` (pure) and, if *methods* has one that writes, `http_send` (once, or keyed).

    Whatever the list allows, no request reaches loopback, private, link-local or reserved addresses, however they are
    spelled or looked up; name those that may in *allow_local*.

    Args:
        allow: a list of `host`, `*.domain` and `host:port`, or `"*"` for every public host.
        methods: of GET, HEAD, POST, PUT, PATCH, DELETE.
        idempotency_key: the servers honour the header Idempotency-Key for longer than Holdfast retries: `http_send` is
            then `keyed`, sends ctx.idempotency_key, and is sent again after a crash. Wrongly said, it acts twice.
        headers: sent along, by host: `{"api.example.com": {"Authorization": f"Bearer {secret('KEY')}"}}`; the host may
            be left out if only one is allowed. Neither the model nor another host (after a redirect) sees them.
            Credentials are sent over https only, except to this machine and private networks, and never to `*` or
            `*.domain`, which accept only other headers. `secret("NAME")` in a value is replaced when it is sent.
        allow_local: each `host:port` on this machine or a private network that may be asked too.
        ports: that need no mention in *allow*.
        timeout: seconds of a whole exchange.
        max_bytes: of a decompressed body; the rest is cut off, and the model told so.
        max_redirects: that `http_get` follows, each checked anew. `http_send` follows none.
        approval: of both tools. `always` asks a person before each call; the default if *allow* is `"*"`, since a
            URL can carry data to the host that it names.
        prefix: goes before the tools' names.

    Raises:
        ConfigurationError: a list or a limit is wrong.

    """
    chosen = [method.upper() for method in methods]
    if not chosen or set(chosen) - {*_READING, *_WRITING}:
        raise ConfigurationError(f"http_request(methods={chosen}): choose of {', '.join([*_READING, *_WRITING])}.")
    if not (timeout > 0 and max_bytes > 0 and max_redirects >= 0):
        raise ConfigurationError("http_request: timeout and max_bytes must be above 0, max_redirects at least 0.")
    guard = UrlGuard(allow, allow_local=allow_local, ports=ports)
    own = HostHeaders(headers, guard, "http_request")
    fetcher = Fetcher(guard, headers=own, timeout=timeout, most=max_bytes, redirects=max_redirects)
    asked = approval or guard.approval
    made: list[AnyTool] = []
    if set(chosen) & set(_READING):
        made.append(_reader(fetcher, own, chosen, timeout, asked, prefix))
    writing = [method for method in chosen if method in _WRITING]
    if writing:
        made.append(_writer(fetcher, own, writing, timeout, asked, prefix, keyed=idempotency_key))
    for tool in made:
        tool.secrets = own.secrets
    return made


def _reader(
    fetcher: Fetcher, own: HostHeaders, methods: list[str], timeout: float, approval: ApprovalPolicy, prefix: str
) -> AnyTool:
    mine = [method for method in methods if method in _READING]

    async def http_get(
        url: Url, method: Annotated[str, _one_of(mine)] = mine[0], headers: Headers = None
    ) -> dict[str, Any]:
        """Ask a URL and return status, type and body (as JSON if it is JSON). Changes nothing."""
        return _told(await fetcher.get(url, method, _checked(headers, own.names)), own.hide)

    return Tool(
        http_get, effect="pure", approval=approval, name=f"{prefix}http_get", timeout=timeout + 5.0, local=locals()
    )


def _writer(
    fetcher: Fetcher,
    own: HostHeaders,
    methods: list[str],
    timeout: float,
    approval: ApprovalPolicy,
    prefix: str,
    *,
    keyed: bool,
) -> AnyTool:
    async def http_send(
        ctx: ToolContext,
        method: Annotated[str, _one_of(methods)],
        url: Url,
        body: Annotated[
            str | dict[str, Any] | list[Any] | None, Field(description="text, or a JSON value to send as JSON")
        ] = None,
        headers: Headers = None,
    ) -> dict[str, Any]:
        """Send something to a URL and return status, type and body. Redirects are told, not followed."""
        sent = _checked(headers, own.names)
        if body is not None and not any(name.lower() == "content-type" for name in {*sent, *own.names}):
            sent["Content-Type"] = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        data = None if body is None else _encoded(body)
        if keyed:
            sent["Idempotency-Key"] = ctx.idempotency_key
        done = await fetcher.send(method, url, sent, data)
        return _told(done, own.hide)

    effect: EffectClass = "keyed" if keyed else "once"
    return Tool(
        http_send,
        effect=effect,
        approval=approval,
        name=f"{prefix}http_send",
        timeout=timeout + 5.0,
        single_request=True,  # see Fetcher.send: no redirect is followed, no request repeated
        local=locals(),
    )


def _encoded(body: str | dict[str, Any] | list[Any]) -> bytes:
    """Return a body as it is sent. What cannot be is refused here, where it is known that nothing was sent."""
    try:
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, allow_nan=False)
        data = text.encode()
    except (ValueError, TypeError, RecursionError) as exc:
        raise ToolError(f"the body cannot be sent as JSON or text: {exc}. Nothing was sent.") from None
    if len(text) > _BODY:
        raise ToolError(f"the body has {len(text):,} characters, more than {_BODY:,}. Nothing was sent.")
    return data


def _one_of(methods: list[str]) -> Any:
    """Return a field that takes one of these words."""
    return Field(pattern=f"^({'|'.join(methods)})$", json_schema_extra={"enum": list(methods)})


def _checked(headers: Mapping[str, str] | None, owned: frozenset[str]) -> dict[str, str]:
    """Return a model's headers, if it may set them."""
    for name, value in (headers or {}).items():
        if not _TOKEN.fullmatch(name) or not value.isprintable() or len(value) > 2000:
            raise ToolError(f"{name[:100]!r} or its value is no HTTP header. Nothing was sent.")
        if _NOT_THE_MODELS.fullmatch(name) or name.lower() in owned:
            raise ToolError(f"the header {name} is set by the tool itself: leave it out. Nothing was sent.")
    return dict(headers or {})


def _told(done: Exchange, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return what the model reads of an answer, without the user's credentials where the server sends them back."""
    told: dict[str, Any] = {"status": done.status, "reason": hide(done.reason), "url": done.url}
    told.update({name: hide(done.headers[name]) for name in _SHOWN if name in done.headers})
    if done.hops:
        told["redirected_from"] = done.hops
    text = done.text()
    text = None if text is None else hide(text)
    if text is None:
        told["body"] = f"({len(done.body):,} bytes that are not text)"
    else:
        told["body"] = text if done.cut or done.lost or "json" not in done.content_type else _parsed(text)
    if done.lost is not None:
        told["cut"] = f"the server answered so, and then its body was lost after {len(done.body):,} bytes: {done.lost}"
    elif done.cut:
        told["cut"] = f"the body went on; only its first {len(done.body):,} bytes are here"
    return told


def _parsed(text: str) -> Any:
    """Return JSON as values, so that it can be queried; as text if it is not JSON after all, or nested too deeply."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEPTH:
            return text
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
    return value
