"""Search attributes on a Temporal server of one's own: registered when missing, named when that cannot be."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time

import pytest

from holdfast.errors import HoldfastError, StackError
from holdfast.search_attributes import SEARCH_ATTRIBUTES, ensure_search_attributes
from holdfast.server.binary import find_binary
from holdfast.settings import load_settings


async def test_missing_search_attributes_are_registered_and_a_dead_server_is_named() -> None:
    """A plain server gets all five; where nothing listens, the error names the address."""
    binary = find_binary(load_settings())
    assert binary is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    with pytest.raises(StackError, match=address):
        await ensure_search_attributes(address, "default")
    plain = await asyncio.create_subprocess_exec(
        *(str(binary), "server", "start-dev", "--port", str(port), "--headless", "--log-level", "never"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                names = await ensure_search_attributes(address, "default")
                break
            except HoldfastError:
                assert time.monotonic() < deadline
        assert names == list(SEARCH_ATTRIBUTES)
        assert await ensure_search_attributes(address, "default") == []
    finally:
        plain.terminate()
        await plain.wait()
