"""What tests of MCP servers share: the test server by either transport, and what it wrote down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast import Agent, MCPServer
from holdfast.mcp.link import Link, open_link
from holdfast.mcp.rack import Rack
from holdfast.memory import pins
from holdfast.memory.database import Pool
from holdfast.server.ports import listens
from holdfast.settings import Settings, load_settings
from holdfast.tools import ToolContext
from tests.kit import until

__all__ = [
    "SERVER",
    "OpenRack",
    "WebServer",
    "agent_of",
    "context",
    "effects",
    "linked",
    "pids",
    "states",
    "stdio_server",
]

OpenRack = Callable[..., Awaitable[Rack]]

SERVER = Path(__file__).with_name("server.py")


def stdio_server(folder: Path, **more: Any) -> MCPServer:
    """Declare the test server as a child process."""
    return MCPServer("test", command=[sys.executable, str(SERVER), str(folder), "stdio"], **more)


class WebServer:
    """The test server on a port."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.flags = flags
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.popen: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def declared(self, **more: Any) -> MCPServer:
        """Declare it."""
        return MCPServer("test", url=self.url, **more)

    async def start(self) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, str(SERVER), str(self.folder), "http", str(self.port), *self.flags]
        self.popen = await asyncio.to_thread(subprocess.Popen, command, stderr=subprocess.DEVNULL)
        await until(lambda: listens(self.port), "the web server listens")

    def kill(self) -> None:
        """Kill it."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()


@contextlib.contextmanager
def web_server(folder: Path, *flags: str) -> Iterator[WebServer]:
    """Give a web server that is not started yet, and kill it afterwards."""
    server = WebServer(folder, *flags)
    try:
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def linked(server: MCPServer, folder: Path, **settings: Any) -> AsyncIterator[Link]:
    """Connect to a server."""
    async with open_link(server.endpoint, home(folder, **settings), longest_call=60) as link:
        yield link


def home(folder: Path, **more: Any) -> Settings:
    """Return settings whose home is in the folder."""
    return load_settings(home=folder / "home", **more)


def effects(folder: Path) -> list[str]:
    """Return what the server wrote down."""
    path = folder / "effects"
    return path.read_text().splitlines() if path.exists() else []


def pids(folder: Path) -> list[int]:
    """Return the processes that the server ran in."""
    path = folder / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def context(seconds: float = 30.0, key: str = "key") -> ToolContext:
    """Return the context of a call."""
    return ToolContext(
        idempotency_key=key, tenant="default", thread="t", run_id="r", step_no=1, deadline=time.monotonic() + seconds
    )


def agent_of(rack: Rack) -> Agent:
    """Return the agent that was equipped."""
    agent: Agent = rack.agent  # type: ignore[attr-defined]
    return agent


async def states(pool: Pool) -> dict[str, str]:
    """Return the state of each tool of the test server."""
    async with pool.acquire() as conn:
        return {pin.tool: pin.state for pin in await pins.listing(conn, ["test"])}
