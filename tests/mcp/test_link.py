"""One session with a real server, by either transport and in both revisions: calls, failures and what they prove."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from holdfast import MCPServer, secret
from holdfast.errors import ConfigurationError, ServerLost, ToolError, ToolNotStarted
from holdfast.mcp.link import CannotConnect, Link
from holdfast.tools.outcomes import classify
from holdfast.tools.results import ErrorResult
from tests.kit import until
from tests.mcp.kit import SERVER, effects, linked, pids, stdio_server, web_server

Open = Callable[..., AbstractAsyncContextManager[Link]]

WAYS = ["stdio", "http", "http-json"]
REVISIONS = ["2025-11-25", "2026-07-28"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Give each transport."""
    return str(request.param)


@pytest.fixture(params=REVISIONS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Give each revision."""
    return str(request.param)


@pytest.fixture
def connect(way: str, protocol: str, tmp_path: Path) -> Open:
    """Return a function that connects to the test server."""

    @asynccontextmanager
    async def opened(**more: Any) -> AsyncIterator[Link]:
        if way == "stdio":
            async with linked(stdio_server(tmp_path, protocol=protocol, **more), tmp_path) as link:
                yield link
            return
        with web_server(tmp_path, *(["json"] if way == "http-json" else [])) as server:
            await server.start()
            async with linked(server.declared(protocol=protocol, **more), tmp_path) as link:
                yield link

    return opened


async def test_calls_and_their_results(connect: Open, protocol: str, tmp_path: Path) -> None:
    """Structured results come as values, text as text, pictures described; the revision asked for is spoken."""
    async with connect() as link:
        assert link.said == {"name": "test server", "version": "1.0", "protocol": protocol}
        assert {"note", "add", "die"} <= set(link.offers)
        assert await link.call("note", {"text": "one"}) == "noted one"
        assert await link.call("add", {"a": 1, "b": 2}) == {"result": 3}
        assert await link.call("picture", {}) == "here it is\n[image image/png, 300 bytes; left out, it is no text]"
        assert len(await link.call("long", {"size": 3_000_000})) == 3_000_000
    assert effects(tmp_path) == ["note one", "add 1+2"]


async def test_an_error_of_the_server_is_an_answer(connect: Open, tmp_path: Path) -> None:
    """`isError`, errors of the protocol and a question back are what the model reads; the session goes on."""
    async with connect() as link:
        for tool, args, words in [
            ("fails", {"text": "a"}, "no luck with a"),
            ("breaks", {"text": "b"}, "out of order: b (code -32000)"),
            ("asks", {}, ""),
            ("nothing", {}, ""),
        ]:
            answer = await link.call(tool, args)
            assert isinstance(answer, ErrorResult), tool
            assert words in answer.text
        assert await link.call("note", {"text": "on"}) == "noted on"
    assert effects(tmp_path) == ["fails a", "breaks b", "note on"]


async def test_a_server_that_dies_leaves_unknown_what_it_did(connect: Open, tmp_path: Path) -> None:
    """The call was sent, no answer came: that proves nothing, and the session is known to be over."""
    async with connect() as link:
        with pytest.raises(ServerLost, match="not known") as caught:
            await link.call("die", {"text": "x"})
        assert classify(caught.value, "once") == "unknown"
    assert effects(tmp_path) == ["die x"]


async def test_a_call_that_is_cancelled_is_cancelled_there(
    connect: Open, way: str, protocol: str, tmp_path: Path
) -> None:
    """Giving up tells the server, other calls on the session are not touched."""
    told = (way, protocol) != ("http-json", "2026-07-28")  # there the closed connection says so, and nobody looks
    async with connect() as link:
        other = asyncio.create_task(link.call("wait_for", {"name": "go"}))
        call = asyncio.create_task(link.call("slow", {"text": "y"}))
        await until(lambda: len(effects(tmp_path)) == 2, "both calls have arrived")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        if told:
            await until(lambda: "slow-cancelled y" in effects(tmp_path), "the server heard of it")
        (tmp_path / "go").touch()
        assert await other == {"result": "go came"}


@pytest.mark.parametrize("protocol", REVISIONS)
async def test_a_web_server_that_is_away_proves_that_nothing_was_sent(protocol: str, tmp_path: Path) -> None:
    """A refused connection concerns one call and is proof; it does not end the others."""
    with web_server(tmp_path) as server:
        await server.start()
        async with linked(server.declared(protocol=protocol), tmp_path) as link:
            server.kill()
            with pytest.raises(ToolNotStarted, match="Nothing was sent") as caught:
                await link.call("note", {"text": "never"})
            assert classify(caught.value, "once") == "not_sent"
            assert link.over.is_set()
    assert effects(tmp_path) == []


async def test_a_restarted_web_server_refuses_the_old_session(tmp_path: Path) -> None:
    """In the older revision it no longer knows the session: proof that it did nothing, and a reason to connect anew."""
    with web_server(tmp_path) as server:
        await server.start()
        async with linked(server.declared(protocol="2025-11-25"), tmp_path) as link:
            server.kill()
            await server.start()
            with pytest.raises(ToolNotStarted, match="404"):
                await link.call("note", {"text": "never"})
            assert link.over.is_set()
        async with linked(server.declared(), tmp_path) as link:
            assert link.said["protocol"] == "2026-07-28", "asked for nothing, the newest is agreed on"
    assert effects(tmp_path) == []


async def test_a_child_gets_a_minimal_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH, HOME, LANG, TERM and what its declaration names, `${NAME}` replaced; no key of ours."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("FOR_THE_SERVER", "token-123456")
    async with linked(stdio_server(tmp_path, env={"GIVEN": "v-${FOR_THE_SERVER}"}), tmp_path) as link:
        seen = json.loads(await link.call("environment", {}))
    assert seen["GIVEN"] == "v-token-123456"
    assert set(seen) <= {"PATH", "HOME", "LANG", "TERM", "GIVEN", "LC_CTYPE", "PWD"}
    assert (tmp_path / "home/logs/mcp-test.log").read_text().startswith("the test server starts")


async def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    """Nothing is started, and the message has the variable's name."""
    with pytest.raises(CannotConnect, match="SURELY_NOT_SET is not set"):
        async with linked(stdio_server(tmp_path, env={"A": "${SURELY_NOT_SET}"}), tmp_path):
            pass
    assert pids(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["surely-no-such-program"], "surely-no-such-program could not be started: No such file"),
        ([sys.executable, "-c", "import sys; sys.exit('bad key s3cret-value')"], "bad key \\*\\*\\*"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "not ready within"),
    ],
)
async def test_a_program_that_serves_nothing_is_told_with_its_last_words(
    command: list[str], words: str, tmp_path: Path
) -> None:
    """The message has what it wrote to standard error, less the values of its variables."""
    server = MCPServer("bad", command=command, env={"KEY": "s3cret-value"}, connect_timeout=3.0)
    with pytest.raises(CannotConnect, match=words) as caught:
        async with linked(server, tmp_path):
            pass
    assert "s3cret" not in str(caught.value)


async def test_all_that_a_server_started_ends_with_its_session(tmp_path: Path) -> None:
    """A launcher's grandchildren too, and those that do not heed a closed input or SIGTERM."""
    stubborn = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); "
        "print(os.getpid(), file=open(r'{}', 'w')); time.sleep(600)"
    )
    script = tmp_path / "launcher.py"
    script.write_text(
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', {stubborn.format(tmp_path / 'stubborn')!r}])\n"
        f"sys.exit(subprocess.call([sys.executable, {str(SERVER)!r}, {str(tmp_path)!r}, 'stdio']))\n"
    )
    async with linked(MCPServer("test", command=[sys.executable, str(script)]), tmp_path) as link:
        assert await link.call("note", {"text": "a"}) == "noted a"
        await until(lambda: (tmp_path / "stubborn").exists() and (tmp_path / "stubborn").read_text(), "it is there")
    left = [*pids(tmp_path), int((tmp_path / "stubborn").read_text())]
    await until(lambda: not any(map(psutil.pid_exists, left)), "all are gone")


async def test_a_message_without_end_ends_the_session(tmp_path: Path) -> None:
    """What a server may make us hold in memory is bounded."""
    async with linked(stdio_server(tmp_path), tmp_path, mcp_message_max=100_000) as link:
        with pytest.raises(ServerLost):
            await link.call("long", {"size": 1_000_000})
    with web_server(tmp_path, "json") as server:
        await server.start()
        async with linked(server.declared(), tmp_path, mcp_message_max=100_000) as link:
            with pytest.raises(ServerLost, match="MCP_MESSAGE_MAX"):
                await link.call("long", {"size": 1_000_000})
            assert await link.call("note", {"text": "on"}) == "noted on"


async def test_a_message_of_too_many_values_ends_the_session(tmp_path: Path) -> None:
    """Small in bytes, it would take gigabytes and keep the loop busy; as many bytes of text pass."""
    limit = {"mcp_values_max": 10_000}
    async with linked(stdio_server(tmp_path), tmp_path, **limit) as link:
        assert len(await link.call("long", {"size": 300_000})) == 300_000
        with pytest.raises(ServerLost):
            await link.call("dense", {"count": 2_000})
    for flags in ([], ["json"]):
        with web_server(tmp_path, *flags) as server:
            await server.start()
            async with linked(server.declared(), tmp_path, **limit) as link:
                with pytest.raises(ServerLost, match="MCP_VALUES_MAX"):
                    await link.call("dense", {"count": 2_000})
                assert len(await link.call("long", {"size": 300_000})) == 300_000


async def test_a_listing_may_not_be_endless(tmp_path: Path) -> None:
    """A server with more tools than the limit is refused, with the setting's name."""
    with pytest.raises(CannotConnect, match="HOLDFAST_MCP_TOOLS_MAX"):
        async with linked(stdio_server(tmp_path), tmp_path, mcp_tools_max=3):
            pass


@pytest.mark.parametrize(
    ("status", "raised"), [(401, ToolError), (403, ToolError), (429, ToolNotStarted), (500, ServerLost)]
)
async def test_what_http_statuses_prove(status: int, raised: type[Exception], tmp_path: Path) -> None:
    """Refusals before the protocol prove that nothing took effect; a failure of the server proves nothing."""
    async with _answering(lambda path: (status, "text/plain", "no"), tmp_path) as link:
        with pytest.raises(raised):
            await link.call("note", {"text": "x"})


async def test_a_stream_that_ends_without_an_answer_proves_nothing(tmp_path: Path) -> None:
    """Also when it ends in order, as behind a proxy that gives up, and when what comes is no message."""
    for kind, text in [
        ("text/event-stream", ": nothing\n\n"),
        ("application/json", "{"),
        ("text/html", "<p>"),
        ("application/json", ""),
    ]:
        async with _answering(lambda path, kind=kind, text=text: (200, kind, text), tmp_path) as link:  # type: ignore[misc]
            with pytest.raises(ServerLost):
                await link.call("note", {"text": "x"})


async def test_a_redirect_to_another_host_is_not_followed(tmp_path: Path) -> None:
    """The token that was meant for one host does not reach another."""
    seen: list[str] = []

    def elsewhere(path: str) -> tuple[int, str, str]:
        seen.append(path)
        return 307, "location", "http://localhost:9/other"

    async with _answering(elsewhere, tmp_path) as link:
        with pytest.raises(ServerLost, match="not followed"):
            await link.call("note", {"text": "x"})
    assert seen == ["/mcp"]


async def test_no_log_line_has_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither headers nor a user in the address are told, at any level, even when connecting fails."""
    monkeypatch.setenv("TOKEN", "tok-987654")
    caplog.set_level(logging.DEBUG)
    headers = {"Authorization": "Bearer ${TOKEN}"}
    with web_server(tmp_path) as web:
        server = MCPServer("test", url=web.url.replace("http://", "http://user:pass123@"), headers=headers)
        with pytest.raises(CannotConnect) as caught:
            async with linked(server, tmp_path):
                pass
        await web.start()
        async with linked(server, tmp_path) as link:
            await link.call("note", {"text": "x"})
    told = caplog.text + str(caught.value) + repr(server) + repr(server.endpoint)
    assert "tok-987654" not in told
    assert "${TOKEN}" not in told


async def test_a_secret_is_used_as_it_is_and_may_come_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like a variable in it stays; a server that writes it in two halves has it in no log."""
    monkeypatch.setenv("ODD_KEY", "half${HOME}half")
    async with linked(stdio_server(tmp_path, env={"GIVEN": secret("ODD_KEY")}), tmp_path) as link:
        assert json.loads(await link.call("environment", {}))["GIVEN"] == "half${HOME}half"
    says = "import os, sys, time; key = os.environ['GIVEN']; w = sys.stderr.write\n"
    says += "for part in ('key ', key[:7], key[7:], '!', chr(10), 'end'): w(part); sys.stderr.flush(); time.sleep(0.05)"
    with pytest.raises(CannotConnect, match=r"key \*\*\*! \| end \| the server ended with exit code 0"):
        async with linked(
            MCPServer("bad", command=[sys.executable, "-c", says], env={"GIVEN": secret("ODD_KEY")}), tmp_path
        ):
            pass
    assert (tmp_path / "home/logs/mcp-bad.log").read_text() == "key ***!\nend\nthe server ended with exit code 0\n"


def test_a_secret_among_the_arguments_is_refused() -> None:
    """Everybody on the machine could read it there."""
    with pytest.raises(ConfigurationError, match="Give it by env="):
        MCPServer("test", command=["server", f"--key={secret('K')}"])


@asynccontextmanager
async def _answering(answer: Callable[[str], tuple[int, str, str]], folder: Path) -> AsyncIterator[Link]:
    """Give a session with the test server, behind a proxy that answers calls itself."""
    with web_server(folder, "json") as server:
        await server.start()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:")), 0
            )
            body = await reader.readexactly(length)
            if b'"tools/call"' in body:
                status, kind, text = answer(head.split()[1])
                name = "location" if kind == "location" else "content-type"
                value = text if kind == "location" else kind
                writer.write(
                    f"HTTP/1.1 {status} X\r\n{name}: {value}\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode()
                )
            else:
                inner, outer = await asyncio.open_connection("127.0.0.1", server.port)
                lines = [
                    line for line in head.splitlines() if line and not line.lower().startswith(("connection:", "host:"))
                ]
                host = f"host: 127.0.0.1:{server.port}"
                outer.write("\r\n".join([*lines, host, "connection: close", "", ""]).encode() + body)
                writer.write(await inner.read())
                outer.close()
            await writer.drain()
            writer.close()

        proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = proxy.sockets[0].getsockname()[1]
        try:
            declared = MCPServer("test", url=f"http://127.0.0.1:{port}/mcp", protocol="2026-07-28")
            async with linked(declared, folder) as link:
                yield link
        finally:
            proxy.close()
            await proxy.wait_closed()


def test_this_process_leaves_no_server_behind() -> None:
    """After all of the above no child of ours is left."""
    assert [child for child in psutil.Process(os.getpid()).children() if "guard.py" in " ".join(child.cmdline())] == []
