"""A fault proxy before a server: it refuses or cuts connections, delays bytes, drops one after so many of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

__all__ = ["AtCommit", "FaultProxy"]

COMMIT = b"COMMIT;\0"  # as the PostgreSQL driver ends a transaction
_KEPT = 8192  # bytes of what a transaction said before

AtCommit: TypeAlias = Callable[[int, bytes], Awaitable[Literal["pass", "lose", "mute"] | None]]
"""Is told the client's port and the end of what the transaction said. It says: pass it on; lose it with its connection;
or pass it on and lose the answer.

None: this was not the one, the next may be.
"""


class FaultProxy:
    """Forwards a free local port to a server. What is set holds for connections that are open already, too."""

    latency = 0.0  # seconds before each piece of data is passed on
    allowance: int | None = None  # bytes that may still pass; at 0 the connection in hand is dropped, and it ends
    at_commit: AtCommit | None = None  # asked when a COMMIT is on its way to the server, until it gives an answer

    def __init__(self, url: str) -> None:
        """Take the URL that the product would use; `url` is the one to give it instead."""
        self._to = urlsplit(url)
        self._port = 0
        self._server: asyncio.Server | None = None
        self.pipes: set[asyncio.Task[None]] = set()  # two of each connection
        self.turn = asyncio.Lock()  # for whoever shuts and opens: one at a time
        self._muted: set[asyncio.StreamWriter] = set()
        self._clients: set[int] = set()  # ports of those that are connected

    def connected(self, port: int) -> bool:
        """Whether the connection that came from this port is still open."""
        return port in self._clients

    @property
    def url(self) -> str:
        """The URL that leads through the gate."""
        login, _, _ = self._to.netloc.rpartition("@")
        return urlunsplit(self._to._replace(netloc=f"{login}@127.0.0.1:{self._port}"))

    @property
    def address(self) -> str:
        """host:port of this side."""
        return f"127.0.0.1:{self._port}"

    def lead_to(self, url: str) -> None:
        """Lead new connections to another server, by its host and port."""
        there = urlsplit(url)
        login, at, _ = self._to.netloc.rpartition("@")
        self._to = self._to._replace(netloc=f"{login}{at}{there.hostname}:{there.port}")

    async def open(self) -> None:
        """Listen, always on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse and drop everything."""
        if self._server is not None:
            self._server.close()
        self.cut()
        if self.pipes:
            await asyncio.wait(self.pipes)

    def cut(self) -> None:
        """Drop every connection; new ones are welcome."""
        for pipe in self.pipes:
            pipe.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(self._to.hostname, self._to.port)
        except OSError:  # the server is away: so are we
            writer.transport.abort()
            return
        if self._server is None or not self._server.is_serving():  # shut meanwhile
            await _drop(writer, there_writer)
            return
        pipes = {
            asyncio.create_task(self._pass(reader, there_writer, back=writer)),
            asyncio.create_task(self._pass(there_reader, writer)),
        }
        self.pipes |= pipes
        port = writer.get_extra_info("peername")[1]
        self._clients.add(port)
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.wait(pipes)
        await _drop(writer, there_writer)  # a pipe that was cancelled before its first step has dropped nothing
        self.pipes -= pipes
        self._clients.discard(port)
        self._muted.discard(writer)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter | None = None
    ) -> None:
        """Forward one direction; *back* is the client's side if this is the one to the server."""
        said = b""  # since the last commit
        try:
            while data := await reader.read(65536):
                said = (said + data)[-_KEPT:] if back is not None else b""
                if self.latency:
                    await asyncio.sleep(self.latency)
                if writer in self._muted:
                    break
                if back is not None and COMMIT in data:
                    if not await self._may_commit(back, said):
                        break
                    said = b""
                if self.allowance is not None:
                    self.allowance -= len(data)
                    if self.allowance < 0:
                        writer.write(data[: self.allowance])
                        self.allowance = None
                        break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            await _drop(writer)

    async def _may_commit(self, client: asyncio.StreamWriter, said: bytes) -> bool:
        """Ask whoever waits for a commit; return whether it is passed on."""
        if self.at_commit is None:
            return True
        asked, self.at_commit = self.at_commit, None  # one commit at a time
        word = await asked(client.get_extra_info("peername")[1], said)
        if word is None:
            self.at_commit = asked
        elif word == "mute":
            self._muted.add(client)
        return word != "lose"


async def _drop(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()
    for writer in writers:
        with suppress(ConnectionError):
            await writer.wait_closed()
