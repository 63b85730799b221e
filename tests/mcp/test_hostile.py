"""Servers that mean harm: what they write, list and ask for neither stops a worker nor reaches a model unseen."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from holdfast import MCPServer
from holdfast.errors import ToolNotStarted
from holdfast.mcp.desk import ServerDesk
from holdfast.mcp.link import CannotConnect
from holdfast.memory.database import Pool
from tests.kit import serving, until
from tests.mcp.kit import OpenRack, agent_of, linked, states

SERVER = Path(__file__).with_name("hostile.py")


def hostile(mode: str, **more: Any) -> MCPServer:
    """Declare it."""
    given: dict[str, Any] = {"protocol": "2025-11-25", **more}
    return MCPServer("test", command=[sys.executable, str(SERVER), mode], **given)


async def test_it_is_refused_what_no_agent_gives(tmp_path: Path) -> None:
    """Sampling, questions to the user and roots: each gets an error, and the call goes on to its end."""
    async with linked(hostile("asks"), tmp_path) as link:
        assert await link.call("t", {}) == "refused refused refused"
        assert await link.call("t", {}) == "refused refused refused"


async def test_all_pages_are_read_and_a_circle_ends(tmp_path: Path) -> None:
    """A list comes in parts; one whose parts never end is refused in time."""
    async with linked(hostile("pages"), tmp_path) as link:
        assert list(link.offers) == ["t0", "t1", "t2", "t3", "t4"]
    with pytest.raises(CannotConnect, match=r"never ends its list|not ready within"):
        async with linked(hostile("circles", connect_timeout=20.0), tmp_path):
            pass


async def test_who_only_babbles_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Lines that are no messages, without end: the session is over, and the loop beats on for all other tools."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    async with linked(hostile("babbles"), tmp_path) as link:
        beating = asyncio.create_task(beat())
        await until(link.over.is_set, "it is given up")
        beating.cancel()
        with pytest.raises(ToolNotStarted):
            await link.call("t", {})
    assert longest < 1.0, "what the watchdog calls blocked"


async def test_a_stream_that_always_ends_is_not_asked_for_without_a_pause(tmp_path: Path) -> None:
    """How soon to ask again is for the server to say, and it may say: at once."""
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        if request.method != "POST":
            asked += request.method == "GET"
            return web.Response(text="retry: 0\nid: 1\ndata:\n\n", content_type="text/event-stream")
        message = await request.json()
        if "id" not in message:
            return web.Response(status=202)
        results: dict[str, dict[str, Any]] = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "hostile", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "t", "description": "", "inputSchema": {"type": "object"}}]},
        }
        reply = {"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}
        return web.json_response(reply, headers={"Mcp-Session-Id": "s"})

    app = web.Application()
    app.router.add_route("*", "/mcp", answer)
    async with serving(app) as port:
        url = f"http://127.0.0.1:{port}/mcp"
        async with linked(MCPServer("test", url=url, protocol="2025-11-25"), tmp_path):
            began = time.monotonic()
            await until(lambda: asked >= 4, "it was asked for several times")
            assert time.monotonic() - began > 1.0


async def test_what_nobody_would_see_is_not_trusted_at_first_sight(rack: OpenRack, pool: Pool, tmp_path: Path) -> None:
    """Tools that hide text wait until somebody accepts them; `diff` shows every character."""
    made = await rack(hostile("hides"))
    assert list(agent_of(made).tools) == ["test__plain"]
    assert await states(pool) == {"plain": "pinned", "hidden": "new", "deep": "new"}

    async def read(work: Any) -> Any:
        async with pool.acquire() as conn:
            return await work(conn)

    desk = ServerDesk(read, tmp_path, "holdfast")
    [hidden] = await desk.tools("test", "hidden")
    [deep] = await desk.tools("test", "deep")
    assert any("Do it.\\U000e0073\\U000e0065" in line for line in hidden.diff())
    assert any("a\\u200bb" in line for line in deep.diff())
    assert await desk.accept([hidden]) == ["test__hidden"]


async def test_a_server_that_hangs_delays_a_worker_once(rack: OpenRack, tmp_path: Path) -> None:
    """One that was never seen is waited for; one that was, and hangs now, is not: its pinned tools stand in."""
    await (await rack(hostile("plain"))).close()
    began = time.monotonic()
    made = await rack(hostile("hangs", connect_timeout=300.0))
    assert list(agent_of(made).tools) == ["test__t"]
    assert time.monotonic() - began < 60
