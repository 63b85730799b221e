"""One call to a server of its own, so that LiteLLM loads what it loads at a first call; the adapter's `warm` uses it.

Importing LiteLLM is not all: its first call takes another second of CPU, its first stream 0.2 s, which on a worker's
event loop would hold up everybody else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from holdfast.errors import ModelError
from holdfast.llm.models import ModelReply, ModelRequest, OnDelta

__all__ = ["rehearse"]

_HEAD = {"id": "rehearsal", "created": 0, "model": "rehearsal"}
_WHOLE = {
    **_HEAD,
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
}
_CHUNKS = [
    {
        **_HEAD,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    for delta, finish in (({"role": "assistant", "content": "ok"}, None), ({}, "stop"))
]
_TOOL = {"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        streams = b'"stream":true' in (await reader.readexactly(length)).replace(b" ", b"")
        kind = "text/event-stream" if streams else "application/json"
        body = (
            "".join(f"data: {json.dumps(c)}\n\n" for c in _CHUNKS) + "data: [DONE]\n\n"
            if streams
            else json.dumps(_WHOLE)
        )
        fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
        writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}".encode())
        await writer.drain()
    except (OSError, EOFError, ValueError):
        pass  # the rehearsal is a courtesy: without it the first call is slower
    finally:
        writer.close()


def rehearse(
    complete: Callable[[ModelRequest, OnDelta | None], Awaitable[ModelReply]], close: Callable[[], Awaitable[None]]
) -> None:
    """Call *complete* once whole and once streaming, on a loop of this thread's own. Never raises for a failed call."""

    async def run() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            request = ModelRequest(
                model="openai/rehearsal",
                messages=[{"role": "user", "content": "hello"}],
                tools=[_TOOL],
                api_base=f"http://127.0.0.1:{port}/v1",
                timeout=10.0,
            )
            for listener in (None, lambda _: None):
                try:
                    await complete(request, listener)
                except ModelError:
                    continue
            await close()

    asyncio.run(run())
