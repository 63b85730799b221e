"""What an exception proves about a call's effect. The activities ask this before they settle a ledger row.

A wrong "not sent" makes an effect happen twice, so anything short of proof is "unknown". A failed connection proves
nothing about what the body did before it: only the tool's author knows that, who declares `single_request`.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Literal
from urllib.error import URLError

from holdfast.contracts import EffectClass
from holdfast.errors import ToolError, ToolNotStarted

__all__ = ["Outcome", "classify"]

Outcome = Literal["not_sent", "refused", "unknown"]

_PROOF = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)

# Errors that these libraries raise only while connecting: before the first byte of a request.
_CONNECTING = {
    "httpx": ("ConnectError", "ConnectTimeout"),
    "httpcore": ("ConnectError", "ConnectTimeout"),
    "aiohttp": ("ClientConnectorError", "ConnectionTimeoutError"),
    "urllib3.exceptions": ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError"),
}
_CONNECT_TIMEOUTS = ("ConnectTimeout", "ConnectionTimeoutError", "ConnectTimeoutError")
_CLIENTS = ("aiohttp", "http", "httpcore", "httpx", "requests", "urllib", "urllib3")
_AIOHTTP_REPEATS = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")  # its IDEMPOTENT_METHODS
_LINKS = 20


def classify(exc: BaseException, effect: EffectClass, *, single_request: bool = False) -> Outcome:
    """Return what *exc*, raised by a tool's body, proves.

    - `refused`: the tool said so with a ToolError; nothing took effect, another try would be refused as well.
    - `not_sent`: nothing took effect, another try may succeed: never started; or, with *single_request*, connection
      refused, name not resolved, certificate not trusted. All that a `pure` or `local_tx` tool raises belongs here: the
      one has no effect, the other's transaction was rolled back.
    - `unknown`: bytes may have left. A reset, a time-out, any other exception out of the tool's body.

    *single_request* is the tool's declaration that its body makes exactly one connection. It is not believed where the
    traceback shows a redirect, a retry inside an HTTP library or a second try of the tool's own.
    """
    if isinstance(exc, ToolError):
        return "refused"
    if isinstance(exc, ToolNotStarted) or effect in ("pure", "local_tx"):
        return "not_sent"
    if not single_request:
        return "unknown"
    return "not_sent" if _never_sent(exc) and not _after_another(exc) else "unknown"


def _never_sent(exc: BaseException) -> bool:
    """Follow wrappers down to a proof. Only known wrappers: any other exception may come from after a later send."""
    link: object = exc
    for _ in range(_LINKS):
        if not isinstance(link, BaseException):
            return False
        if _followed_up(link):
            return False
        if isinstance(link, _PROOF) or _while_connecting(link):
            return True
        if isinstance(link, URLError):
            link = link.reason
        elif _is(link, "urllib3.exceptions", "MaxRetryError"):
            link = getattr(link, "reason", None)
        elif _is(link, "requests.exceptions", "ConnectionError") or _is(link, "urllib3.exceptions", "SSLError"):
            link = link.args[0] if link.args else None
        else:
            return False
    return False


def _is(exc: BaseException, module: str, *names: str) -> bool:
    """Tell whether *exc* is of a class of a library, without loading the library."""
    loaded = sys.modules.get(module)
    classes = tuple(found for name in names if isinstance(found := getattr(loaded, name, None), type))
    return isinstance(exc, classes)


def _while_connecting(exc: BaseException) -> bool:
    if any(_is(exc, module, *names) for module, names in _CONNECTING.items()):
        return True
    # asyncio, when a name has several addresses and each was refused in its own words
    return (
        type(exc) is OSError
        and str(exc).startswith("Multiple exceptions: ")
        and any(frame.f_code.co_name == "create_connection" for frame in _frames(exc))
    )


def _followed_up(exc: BaseException) -> bool:
    """Tell whether an HTTP library had already sent an earlier request of the same call: a redirect or a retry."""
    urllib3_tries = 0
    for frame in _frames(exc):
        module, function = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        if module == "urllib.request" and function.startswith("http_error_30"):
            return True
        if module == "requests.sessions" and function == "resolve_redirects":
            return True
        if module == "httpx._client" and function == "_send_handling_redirects" and frame.f_locals.get("history"):
            return True
        if module == "aiohttp.client" and function == "_request" and _aiohttp_sent_before(frame.f_locals):
            return True
        if module == "urllib3.connectionpool" and function == "urlopen":
            urllib3_tries += 1
    return urllib3_tries > 1


def _aiohttp_sent_before(local: Mapping[str, Any]) -> bool:
    """Tell whether aiohttp followed a redirect, or sent again by itself after a connection was lost amid a request."""
    again = local.get("retry_persistent_connection") is False and local.get("method") in _AIOHTTP_REPEATS
    return again or bool(local.get("history"))


def _after_another(exc: BaseException) -> bool:
    """Tell whether *exc* came up while another request's failure was being handled: a tool's own second try."""
    link, connect_timeout = exc.__context__, type(exc).__name__ in _CONNECT_TIMEOUTS
    for _ in range(_LINKS):
        if link is None:
            return False
        connect_timeout = connect_timeout or type(link).__name__ in _CONNECT_TIMEOUTS
        if isinstance(link, ConnectionResetError | BrokenPipeError):
            return True
        if isinstance(link, TimeoutError) and not connect_timeout:
            return True
        if type(link).__module__.partition(".")[0] in _CLIENTS and not _never_sent(link):
            return True
        link = link.__context__
    return True


def _frames(exc: BaseException) -> Iterator[FrameType]:
    trace = exc.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
