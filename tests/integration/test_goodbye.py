"""A PostgreSQL connection on which the server has said goodbye, and which is still open when it is used again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from holdfast.memory.database import UNAVAILABLE, connect
from tests.conftest import MakeWorld
from tests.kit import until


async def test_a_connection_between_goodbye_and_its_end_is_unavailable(make_world: MakeWorld) -> None:
    """The driver reports a mistake of its own then. To whoever asks it is an outage, and they ask again."""
    world = await make_world("")
    url = world.settings.database_url or ""
    host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")
    writers: list[asyncio.StreamWriter] = []
    ended = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        ended.set()  # the other side does not hear of it: the end of the stream is still on its way

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection(host, int(port))
        writers.extend((writer, out))
        await asyncio.gather(carry(reader, out), carry(there, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    conn = await connect(url.replace(f"{host}:{port}", f"127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    try:
        await world.rows("select pg_terminate_backend($1)", conn.get_server_pid())
        await until(ended.is_set, "the server has hung up")
        assert not conn.is_closed()
        with pytest.raises(UNAVAILABLE):
            await conn.fetch("select 1")
    finally:
        conn.terminate()
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        server.close()
        await server.wait_closed()
