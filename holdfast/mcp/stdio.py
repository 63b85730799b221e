"""A server as a child process that speaks MCP on its standard input and output. Only `link.py` uses it.

The library's own transport would do, but for three things: it hands down more of our environment, a message without end
would fill our memory, and a worker that is killed leaves servers behind that were started through a launcher.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from holdfast.mcp.server import Endpoint, inherited
from holdfast.mcp.weight import Weight
from holdfast.private import make_private
from holdfast.settings import Settings
from holdfast.tools.builtin.processes import GUARD

__all__ = ["Child", "Streams"]

log = structlog.get_logger(__name__)

Incoming: TypeAlias = SessionMessage | Exception
Streams: TypeAlias = tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream[SessionMessage]]

_GRACE = 1.0  # seconds a server may take to end by itself when its input closes, and again after SIGTERM
_CHUNK = 64 * 1024
_ODD = 1000  # lines in a row that are no messages: to look at more without end would keep all other tools waiting
_TAIL = 2000  # characters of its last words that an error quotes


class Child:
    """A server's process, and what it wrote to standard error."""

    def __init__(self, endpoint: Endpoint, settings: Settings, hide: Callable[[str], str]) -> None:
        """Start nothing yet. *endpoint* has values in place of names; *hide* takes secrets out of a text."""
        self._endpoint = endpoint
        self._limit = settings.mcp_message_max
        self._values = settings.mcp_values_max
        self._hide = hide
        self._log = _BoundedLog(settings.home / "logs" / f"mcp-{endpoint.name}.log", settings.mcp_log_max)
        self._last_words = ""
        self._odd = 0
        self._heard = asyncio.Event()  # set when the last of its standard error is read
        self._ended = False  # it closed its standard output, which it does when it ends
        self.gone = asyncio.Event()
        """Set when it ends, or can no longer be talked to."""

    @property
    def last_words(self) -> str:
        """The end of what it wrote to standard error, on one line."""
        return " | ".join([line for line in self._last_words.splitlines() if line.strip()][-4:])

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Start the process and yield its messages; end it, and all it started, on the way out.

        Raises:
            OSError: nothing can be started at all.

        """
        environment = inherited() | dict(self._endpoint.env)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", GUARD, "serve", str(_GRACE), *self._endpoint.command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=self._endpoint.cwd,
            start_new_session=True,
        )
        to_session, from_server = anyio.create_memory_object_stream[Incoming](0)
        to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, process, to_session)
                tasks.start_soon(self._write, process, from_session, to_session)
                tasks.start_soon(self._listen, process)
                try:
                    yield from_server, to_server
                finally:
                    from_server.close()  # a reader that is stuck on delivering goes on to the end
                    with anyio.CancelScope(shield=True):
                        await _end(process, ended=self._ended)
                        with anyio.move_on_after(_GRACE):  # a process outside its group may hold the pipe open
                            await self._heard.wait()
                    tasks.cancel_scope.cancel()
        finally:
            for stream in (to_session, from_server, to_server, from_session):
                stream.close()
            self._log.close()
            transport = getattr(process, "_transport", None)
            if transport is not None:
                transport.close()

    async def _read(self, process: asyncio.subprocess.Process, out: MemoryObjectSendStream[Incoming]) -> None:
        assert process.stdout is not None
        buffer, scanned, whole = bytearray(), 0, True
        with out:
            while whole:
                chunk = await process.stdout.read(_CHUNK)
                if not chunk:
                    self._ended = True
                    break
                buffer += chunk
                while (end := buffer.find(b"\n", scanned)) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    scanned = 0
                    if not await self._deliver(line, out):
                        whole = False
                        break
                scanned = len(buffer)
                if len(buffer) > self._limit:
                    log.warning("an MCP server's message is too long", server=self._endpoint.name, limit=self._limit)
                    break
        self.gone.set()
        while await process.stdout.read(_CHUNK):  # so that it is not stuck on writing when it should end
            pass

    async def _deliver(self, line: bytes, out: MemoryObjectSendStream[Incoming]) -> bool:
        if not line.strip():
            return True
        if not Weight(self._values).add(line):
            log.warning("an MCP server's message holds too much", server=self._endpoint.name, limit=self._values)
            return False
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            text = self._hide(line[:200].decode(errors="replace"))
            log.debug("an MCP server wrote something else than messages", server=self._endpoint.name, text=text)
            self._odd += 1
            if self._odd == _ODD:
                log.warning("an MCP server writes no messages to its standard output", server=self._endpoint.name)
            return self._odd < _ODD
        self._odd = 0
        try:
            await out.send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    async def _write(
        self,
        process: asyncio.subprocess.Process,
        messages: MemoryObjectReceiveStream[SessionMessage],
        out: MemoryObjectSendStream[Incoming],
    ) -> None:
        assert process.stdin is not None
        try:
            async for message in messages:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
        except (OSError, RuntimeError, anyio.ClosedResourceError):
            self.gone.set()
            out.close()  # whoever waits for an answer learns that none will come

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Keep what it says on standard error."""
        assert process.stderr is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        kept = ""  # of a line that is not at its end: a value may come in two pieces, each of which shows nothing
        try:
            while chunk := await process.stderr.read(_CHUNK):
                text = decoder.decode(chunk)
                self._last_words = self._hide(self._last_words + text)[-_TAIL:]
                kept = self._hide(kept + text)
                end = max(kept.rfind("\n") + 1, len(kept) - _CHUNK)
                self._log.write(kept[:end])
                kept = kept[end:]
        finally:
            # Other workers append to the same file: a last line without a newline would be joined to one of theirs.
            self._log.write(kept and f"{kept}\n")
            self._heard.set()


async def _end(process: asyncio.subprocess.Process, *, ended: bool) -> None:
    """Close its input; the guard then ends the group. Should the guard fail, end the group from here.

    A server that *ended* by itself has time to be reaped first, so that the guard reports its exit code.
    """
    assert process.stdin is not None
    if ended:
        await _gone(process, _GRACE)
    with contextlib.suppress(OSError, RuntimeError):
        process.stdin.close()
    await _gone(process, 2 * _GRACE + 1.0)
    with contextlib.suppress(OSError):  # nobody is left, unless the guard failed or was killed
        os.killpg(process.pid, signal.SIGKILL)


async def _gone(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Wait so long for its end. Its own wait() also waits for pipes which a child of its may hold open."""
    deadline = asyncio.get_running_loop().time() + seconds
    while process.returncode is None:
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.01)


class _BoundedLog:
    """A file that several workers append to, set aside when it is full. Where there is no place for it, nothing."""

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most
        self._file: int | None = None
        self._usable = True

    def write(self, text: str) -> None:
        if not self._usable or not text:
            return
        try:
            if self._file is None:
                make_private(self._path.parents[1], self._path.parent.name)
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(self._file, text.encode(errors="replace")[: self._most])
            if os.fstat(self._file).st_size > self._most:
                self.close()
                self._path.replace(self._path.with_suffix(".log.1"))
        except OSError:
            self._usable = False
            self.close()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
