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
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from holdfast.errors import HoldfastError, ServerLost, ToolNotStarted
from holdfast.mcp.answers import Mark, hidden, judge, marked, read_answer
from holdfast.mcp.http import check_private, open_client
from holdfast.mcp.offers import list_offers
from holdfast.mcp.server import Endpoint, revealed
from holdfast.mcp.stdio import Child
from holdfast.memory.pins import Offer
from holdfast.secrets import Mask, mask
from holdfast.settings import Settings
from holdfast.tools.builtin.credentials import is_credential
from holdfast.tools.results import ErrorResult

__all__ = ["CannotConnect", "Link", "open_link"]

log = structlog.get_logger(__name__)

_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)
_MORE_ROUNDS = 10  # a server of 2026-07-28 may ask to be asked again so often, with no question of its own
_ROUND_PAUSE = 0.1
_RELIST_PAUSE = 1.0  # a server whose list changes all the time is asked no oftener


class CannotConnect(HoldfastError):
    """The server could not be reached, did not agree on a protocol, or did not list its tools."""


class Link:
    """A session that is open: what the server lists, and calls of its tools."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: Client,
        offers: dict[str, Offer],
        settings: Settings,
        *,
        over: asyncio.Event,
        stale: asyncio.Event,
        hide: Mask | None = None,
    ) -> None:
        """Wrap an open session; use `open_link`. *stale* is set when the server says that its list has changed.

        *hide* takes our credentials out of what the server answers: models and logs read that.
        """
        self.endpoint = endpoint
        self.offers = offers
        self.over = over
        """Set when the session has ended, or is of no more use."""
        self._client = client
        self._settings = settings
        self._stale = stale
        self._hide = hide
        self._told = offers
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
                return hidden(read_answer(server, await self._ask(tool, args, mark)), self._hide)
            except MCPError as exc:
                over = self.over.is_set()
                self._look_at(mark)
                answer = judge(server, exc, mark, http=http, over=over, stateless=self._stateless)
                return hidden(answer, self._hide)
            except ValidationError as exc:
                return ErrorResult(f"{server} answered, but not as the protocol wants it ({exc.error_count()} errors).")
            except Exception as exc:
                self.over.set()
                raise ServerLost(
                    f"MCP server {server!r} was lost before it answered ({type(exc).__name__}: {exc}). "
                    "Whether the call took effect is not known."
                ) from exc

    async def news(self) -> bool:
        """Wait until the server lists other tools than were told: True. Once the session is over: False.

        It is asked when it says that its list has changed, and now and then: not all say so.
        """
        every = self._settings.scaled(self._settings.mcp_relist_every)
        while not self.over.is_set():
            await _any_of(every, self.over, self._stale)
            if self.over.is_set():
                break
            self._stale.clear()
            if await self._list_again():
                return True
            await _any_of(_RELIST_PAUSE, self.over)
        return False

    async def _list_again(self) -> bool:
        """Ask what the tools are now; tell whether they differ. A failure concerns no call and ends no session."""
        with marked(every=True) as mark:
            try:
                async with asyncio.timeout(self.endpoint.connect_timeout):
                    self.offers = await list_offers(self._client.session, self.endpoint.name, self._settings)
            except Exception as exc:  # noqa: BLE001  # it is asked again
                log.info("an MCP server did not list its tools", server=self.endpoint.name, error=type(exc).__name__)
                self._look_at(mark)
        return _hashes(self.offers) != _hashes(self._told)

    def _look_at(self, mark: Mark) -> None:
        """After a failure: end a session that the server no longer knows; the next call gets a new one."""
        if self.endpoint.url is not None and (mark.refused is not None or mark.status in self._session_is_gone):
            self.over.set()

    def told(self) -> None:
        """Take note that what it lists now was told."""
        self._told = self.offers

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
        rounds = 0
        while True:
            mark.taken = False
            params = CallToolRequestParams(name=tool, arguments=args, request_state=state)
            answer = await self._client.session.send_request(CallToolRequest(params=params), _ANSWER)
            rounds += 1
            if not isinstance(answer, InputRequiredResult) or answer.input_requests or rounds == _MORE_ROUNDS:
                return answer
            state = answer.request_state
            await asyncio.sleep(_ROUND_PAUSE)


@contextlib.asynccontextmanager
async def open_link(endpoint: Endpoint, settings: Settings, *, longest_call: float) -> AsyncIterator[Link]:
    """Connect, agree on a protocol, list the tools, and yield the session.

    Raises:
        CannotConnect: one of these failed; the message says which and why, and has no secret in it.

    """
    child: Child | None = None
    hide: Callable[[str], str] = mask
    problem: Exception
    async with contextlib.AsyncExitStack() as stack:
        try:
            over, stale = asyncio.Event(), asyncio.Event()
            async with asyncio.timeout(endpoint.connect_timeout):
                reached = await revealed(endpoint)  # at each connecting: a value may have been changed
                hide = _hider(reached)
                if reached.url is None:
                    child = Child(reached, settings, hide)
                    over = child.gone
                    transport: Any = child.streams()
                else:
                    await check_private(endpoint, reached.url)
                    caller = open_client(reached, settings, timeout=longest_call)
                    transport = streamable_http_client(
                        reached.url,
                        http_client=await stack.enter_async_context(caller),
                        max_sse_event_size=settings.mcp_message_max,
                    )
                client = await stack.enter_async_context(_client(endpoint, transport, hide, stale))
                if endpoint.protocol == "2026-07-28" and client.protocol_version != endpoint.protocol:
                    raise CannotConnect(f"it speaks {client.protocol_version}, and its declaration wants 2026-07-28")
                offers = await list_offers(client.session, endpoint.name, settings)
        except Exception as exc:  # noqa: BLE001  # told below, once what was opened is closed
            problem = exc
        else:
            yield Link(endpoint, client, offers, settings, over=over, stale=stale, hide=_credentials(reached))
            return
    late = isinstance(problem, TimeoutError)
    why = f"it was not ready within {endpoint.connect_timeout:g} s" if late else hide(_plain(problem)).rstrip(".")
    words = f". Its last words: {child.last_words}" if child is not None and child.last_words else ""
    raise CannotConnect(why + words) from problem


def _client(endpoint: Endpoint, transport: Any, hide: Callable[[str], str], stale: asyncio.Event) -> Client:
    """Return a client that offers a server nothing: no sampling, no elicitation, no roots."""

    async def told(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            stale.set()

    async def heard(params: LoggingMessageNotificationParams) -> None:
        log.debug("an MCP server says", server=endpoint.name, level=params.level, text=hide(str(params.data))[:2000])

    return Client(
        transport,
        mode="legacy" if endpoint.protocol == "2025-11-25" else "auto",
        client_info=Implementation(name="holdfast", version=version("holdfast")),
        logging_callback=heard,
        message_handler=told,
        cache=None,
    )


async def _any_of(seconds: float, *events: asyncio.Event) -> None:
    """Wait until one of *events* is set, or *seconds* have passed."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


def _hashes(offers: dict[str, Offer]) -> dict[str, str]:
    return {name: offer.hash for name, offer in offers.items()}


def _hider(endpoint: Endpoint) -> Callable[[str], str]:
    """Return a function that takes the values of env and headers out of a text."""
    secrets = set()
    for _, value in (*endpoint.env, *endpoint.headers):
        secrets |= {value, value.partition(" ")[2]}
    own = Mask(secrets)
    return lambda text: mask(own(text))


def _credentials(endpoint: Endpoint) -> Mask | None:
    """Return what takes the endpoint's credentials out of a text; other values of env are ordinary words."""
    values = [value for name, value in (*endpoint.env, *endpoint.headers) if is_credential(name, value)]
    return Mask(part for value in values for part in (value, value.partition(" ")[2])) if values else None


def _plain(exc: BaseException) -> str:
    """Return the first reason within groups of exceptions."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, HoldfastError | MCPError):
        return str(exc)
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
