"""One session with a server, from connecting to its end. Opened and closed by one task; called from any on its loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import version
from typing import Any

import structlog
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    LoggingMessageNotificationParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from holdfast.errors import HoldfastError, ServerLost, ToolNotStarted
from holdfast.mcp.answers import Mark, judge, marked, read_answer
from holdfast.mcp.http import open_client
from holdfast.mcp.offers import list_offers
from holdfast.mcp.server import Endpoint, expand
from holdfast.mcp.stdio import Child
from holdfast.memory.pins import Offer
from holdfast.settings import Settings
from holdfast.tools.results import ErrorResult

__all__ = ["CannotConnect", "Link", "open_link"]

log = structlog.get_logger(__name__)

_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)
_MORE_ROUNDS = 10  # a server of 2026-07-28 may ask to be asked again so often, with no question of its own
_ROUND_PAUSE = 0.1


class CannotConnect(HoldfastError):
    """The server could not be reached, did not agree on a protocol, or did not list its tools."""


class Link:
    """A session that is open: what the server lists, and calls of its tools."""

    def __init__(self, endpoint: Endpoint, client: Client, offers: dict[str, Offer], over: asyncio.Event) -> None:
        """Wrap an open session; use `open_link`."""
        self.endpoint = endpoint
        self.offers = offers
        self.over = over
        """Set when the session has ended, or is of no more use."""
        self._client = client
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def said(self) -> dict[str, Any]:
        """What the server says of itself."""
        info = self._client.server_info
        about = {"name": info.name[:200], "version": info.version[:100]} if info is not None else {}
        return {**about, "protocol": self._client.protocol_version}

    async def call(self, tool: str, args: dict[str, Any]) -> Any:
        """Call a tool and return what a model reads of the answer. Cancelling tells the server.

        Raises:
            ToolNotStarted, ToolError: it was not sent, or refused before the protocol was reached.
            ServerLost: there was no answer.

        """
        server, http = self.endpoint.name, self.endpoint.url is not None
        if self.over.is_set():  # it may be closed already; from here on it stays open until this call has its answer
            raise ToolNotStarted(f"the session with MCP server {server!r} has ended. Nothing was sent.")
        with self._counted(), marked() as mark:
            try:
                return read_answer(server, await self._ask(tool, args, mark))
            except MCPError as exc:
                over = self.over.is_set()
                if http and (mark.refused is not None or mark.status in self._session_is_gone):
                    self.over.set()  # the next call gets a new one
                return judge(server, exc, mark, http=http, over=over, stateless=self._stateless)
            except ValidationError as exc:
                return ErrorResult(f"{server} answered, but not as the protocol wants it ({exc.error_count()} errors).")
            except Exception as exc:
                self.over.set()
                raise ServerLost(
                    f"MCP server {server!r} was lost before it answered ({type(exc).__name__}: {exc}). "
                    "Whether the call took effect is not known."
                ) from exc

    async def idle(self, patience: float) -> None:
        """Wait until no call is under way, up to *patience* seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._idle.wait()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    @property
    def _session_is_gone(self) -> tuple[int, ...]:
        """HTTP statuses by which a server that was restarted says so; 400 is what many send in place of 404."""
        return () if self._stateless else (400, 404)

    @property
    def _stateless(self) -> bool:
        return self._client.protocol_version in MODERN_PROTOCOL_VERSIONS

    async def _ask(self, tool: str, args: dict[str, Any], mark: Mark) -> CallToolResult | InputRequiredResult:
        """Send the call. Not by the library's `call_tool`: that raises on results that do not fit their own schema."""
        state: str | None = None
        for _ in range(_MORE_ROUNDS):
            mark.taken = False
            params = CallToolRequestParams(name=tool, arguments=args, request_state=state)
            answer = await self._client.session.send_request(CallToolRequest(params=params), _ANSWER)
            if not isinstance(answer, InputRequiredResult) or answer.input_requests:
                return answer
            state = answer.request_state
            await asyncio.sleep(_ROUND_PAUSE)
        return answer


@contextlib.asynccontextmanager
async def open_link(endpoint: Endpoint, settings: Settings, *, longest_call: float) -> AsyncIterator[Link]:
    """Connect, agree on a protocol, list the tools, and yield the session.

    Raises:
        CannotConnect: one of these failed; the message says which and why, and has no secret in it.

    """
    hide = _hider(endpoint)
    child: Child | None = None
    problem: Exception
    async with contextlib.AsyncExitStack() as stack:
        try:
            over = asyncio.Event()
            async with asyncio.timeout(endpoint.connect_timeout):
                if endpoint.url is None:
                    child = Child(endpoint, settings, hide)
                    over = child.gone
                    transport: Any = child.streams()
                else:
                    caller = open_client(endpoint, settings, timeout=longest_call)
                    transport = streamable_http_client(
                        endpoint.url,
                        http_client=await stack.enter_async_context(caller),
                        max_sse_event_size=settings.mcp_message_max,
                    )
                client = await stack.enter_async_context(_client(endpoint, transport, hide))
                if endpoint.protocol == "2026-07-28" and client.protocol_version != endpoint.protocol:
                    raise CannotConnect(f"it speaks {client.protocol_version}, and its declaration wants 2026-07-28")
                offers = await list_offers(client.session, endpoint.name, settings)
        except Exception as exc:  # noqa: BLE001  # told below, once what was opened is closed
            problem = exc
        else:
            yield Link(endpoint, client, offers, over)
            return
    late = isinstance(problem, TimeoutError)
    why = f"it was not ready within {endpoint.connect_timeout:g} s" if late else hide(_plain(problem)).rstrip(".")
    words = f". Its last words: {child.last_words}" if child is not None and child.last_words else ""
    raise CannotConnect(why + words) from problem


def _client(endpoint: Endpoint, transport: Any, hide: Callable[[str], str]) -> Client:
    """Return a client that offers a server nothing: no sampling, no elicitation, no roots."""

    async def heard(params: LoggingMessageNotificationParams) -> None:
        log.debug("an MCP server says", server=endpoint.name, level=params.level, text=hide(str(params.data))[:2000])

    return Client(
        transport,
        mode="legacy" if endpoint.protocol == "2025-11-25" else "auto",
        client_info=Implementation(name="holdfast", version=version("holdfast")),
        logging_callback=heard,
        cache=None,
    )


def _hider(endpoint: Endpoint) -> Callable[[str], str]:
    """Return a function that takes the values of env and headers out of a text."""
    secrets = set()
    for pair in (*endpoint.env, *endpoint.headers):
        with contextlib.suppress(HoldfastError):
            value = expand([pair], "")[pair[0]]
            secrets |= {value, value.partition(" ")[2]}
    known = sorted((secret for secret in secrets if len(secret) >= 6), key=len, reverse=True)

    def hide(text: str) -> str:
        for secret in known:
            text = text.replace(secret, "***")
        return text

    return hide


def _plain(exc: BaseException) -> str:
    """Return the first reason within groups of exceptions."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, HoldfastError | MCPError):
        return str(exc)
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
