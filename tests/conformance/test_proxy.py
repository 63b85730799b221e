"""The fault proxy drops a connection whole, whenever it is told to: one left open would hang a client for nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.conformance.proxy import FaultProxy
from tests.kit import PATIENCE


async def test_a_connection_cut_as_it_begins_is_dropped() -> None:
    """Its tasks are cancelled before their first step: both ends are closed all the same."""
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            ended.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    proxy = FaultProxy(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await proxy.open()
    host, _, port = proxy.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    while not proxy.pipes:  # noqa: ASYNC110  # one turn of the loop: the tasks are there, and have not begun
        await asyncio.sleep(0)
    proxy.cut()
    with suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), PATIENCE / 6) == b""
    await asyncio.wait_for(ended.wait(), PATIENCE / 6)
    writer.transport.abort()
    await proxy.shut()
    server.close()
