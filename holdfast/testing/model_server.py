"""A model server that follows a script: real HTTP, OpenAI's chat completions, streaming. Tests and demos start it.

In a test: `async with ModelServer(script) as server:`, then model `openai/test-model` at api_base `server.base_url`.
As a process of its own: `python -m holdfast.testing.model_server --script FILE --port N --journal FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import inspect
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.testing.script import Fault, Reply, Script, Turn, arguments_text, render

__all__ = ["ModelServer", "main"]

Json = dict[str, Any]
ReplyHook = Callable[[Json], Json | Awaitable[Json]]

_BODY_MAX = 256 * 1024 * 1024
_WORDS = 3  # words a chunk of text has
_ARGS = 16  # characters a chunk of arguments has


class ModelServer:
    """A server with scripted replies.

    *script* is a `Script`, YAML text, plain data of the same form, or the path of a YAML file. *reply* answers instead
    of a script: it is given the request's JSON and returns one reply as a script has it, `{"say": …}` or `{"call": …}`.
    `journal` has one entry per request, in order of arrival: at (Unix seconds), model, hash of the body, messages
    (their number), stream, answer, and the body itself unless *bodies* is False. With *journal_file* each entry is a
    line of JSON in that file before the request is answered.

    Raises:
        ConfigurationError: the script is wrong, or the port is taken.

    """

    def __init__(
        self,
        script: Script | Json | str | Path | None = None,
        *,
        reply: ReplyHook | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        journal_file: Path | None = None,
        bodies: bool = True,
    ) -> None:
        if (script is None) == (reply is None):
            raise ConfigurationError("A model server needs either a script or a reply function.")
        self.script = _script(script) if script is not None else None
        self.journal: list[Json] = []
        self._hook = reply
        self._host, self._port, self._bodies = host, port, bodies
        self._journal_file = journal_file
        self._file: TextIO | None = None
        self._faults: Counter[tuple[str, int]] = Counter()
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """Return the address to give as api_base, ending in /v1."""
        if self._runner is None:
            raise HoldfastError("The model server is not running: use it in `async with`.")
        return f"http://{self._host}:{self._port}/v1"

    async def __aenter__(self) -> ModelServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; port 0 finds a free one."""
        app = web.Application(client_max_size=_BODY_MAX)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._completions),
                web.get("/v1/models", self._models),
                web.get("/health", self._health),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port)
        try:
            await site.start()
        except OSError as exc:
            await runner.cleanup()
            raise ConfigurationError(f"Port {self._port} could not be opened: {exc}. Give another --port.") from exc
        self._port = runner.addresses[0][1]
        if self._journal_file is not None:
            self._file = self._journal_file.open("a", encoding="utf-8")
        self._runner = runner

    async def stop(self) -> None:
        """Close every connection and the journal file."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "requests": len(self.journal)})

    async def _models(self, _: web.Request) -> web.Response:
        name = self.script.model if self.script else "test-model"
        return web.json_response(
            {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "holdfast"}]}
        )

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        raw = await http.read()
        try:
            body = json.loads(raw)
        except ValueError as exc:
            return _error(400, f"the body is no JSON: {exc}")
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        turn = await self._turn(body)
        fault = None if isinstance(turn, str) else self._next_fault(turn, digest)
        self._record(body, digest, turn, fault)
        if isinstance(turn, str):
            return _error(400, turn)
        delay = turn.reply.latency if turn.reply.latency is not None else self.script.latency if self.script else 0.0
        if fault is not None and fault.latency is not None:
            delay = fault.latency
        if delay:
            await asyncio.sleep(delay)
        if fault is not None and fault.status is not None:
            return _error(fault.status, fault.message or f"scripted status {fault.status}", fault)
        answer = _answer(body, turn, fault)
        if body.get("stream"):
            return await _stream(http, body, answer, turn.reply, fault)
        return await _whole(http, answer, fault)

    async def _turn(self, body: Json) -> Turn | str:
        if self._hook is None:
            assert self.script is not None
            return self.script.choose(body)
        given = self._hook(body)
        one = await given if inspect.isawaitable(given) else given
        script = Script.of({"conversations": [{"replies": [one]}]}, name="reply function")
        return Turn(reply=script.conversations[0].replies[0], conversation=0, index=0, n=len(self.journal) + 1)

    def _next_fault(self, turn: Turn, digest: str) -> Fault | None:
        for number, fault in enumerate(turn.reply.fault):
            if fault.times == "always":
                return fault
            if self._faults[digest, number] < fault.times:
                self._faults[digest, number] += 1
                return fault
        return None

    def _record(self, body: Json, digest: str, turn: Turn | str, fault: Fault | None) -> None:
        if isinstance(turn, str):
            answer: Json = {"refused": turn}
        else:
            answer = {"conversation": turn.conversation, "reply": turn.index, "n": turn.n}
        if fault is not None:
            answer["fault"] = fault.model_dump(exclude_defaults=True)
        entry: Json = {
            "at": time.time(),
            "model": body.get("model"),
            "hash": digest,
            "messages": len(body.get("messages") or []),
            "stream": bool(body.get("stream")),
            "answer": answer,
        }
        if self._bodies:
            entry["body"] = body
        self.journal.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()


def _script(script: Script | Json | str | Path) -> Script:
    if isinstance(script, Script):
        return script
    if isinstance(script, Path):
        return Script.load(script)
    return Script.parse(script) if isinstance(script, str) else Script.of(script)


def _error(status: int, message: str, fault: Fault | None = None) -> web.Response:
    headers = {} if fault is None or fault.retry_after is None else {"Retry-After": _plain_number(fault.retry_after)}
    kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": fault.code if fault else None}
    return web.json_response({"error": error}, status=status, headers=headers)


def _plain_number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _answer(body: Json, turn: Turn, fault: Fault | None) -> Json:
    """Return the whole completion. It depends on the request alone, ids too: sent again, it is the same."""
    reply, messages = turn.reply, body.get("messages") or []
    seed = hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()
    calls = []
    for index, (name, arguments) in enumerate(reply.call):
        text = arguments_text(arguments, body, turn.n)
        if fault is not None and fault.bad_json:
            text = text[: max(1, len(text) // 2)]
        call_id = "call_" + hashlib.sha256(f"{seed}:{index}".encode()).hexdigest()[:24]
        calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": text}})
    said = render(reply.say, body, turn.n) if reply.say is not None else None
    message: Json = {"role": "assistant", "content": said if said is not None or calls else ""}
    if calls:
        message["tool_calls"] = calls
    written = len(json.dumps(message)) // 4 + 1
    used = reply.usage or (len(json.dumps(messages)) // 4 + 1, written)
    return {
        "id": f"chatcmpl-{seed[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model") or "test-model",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": reply.finish or ("tool_calls" if calls else "stop"),
            }
        ],
        "usage": {
            "prompt_tokens": used[0],
            "completion_tokens": used[1],
            "total_tokens": used[0] + used[1],
            "prompt_tokens_details": {"cached_tokens": used[2] if len(used) > 2 else 0},
        },
    }


async def _whole(http: web.Request, answer: Json, fault: Fault | None) -> web.StreamResponse:
    if fault is None or fault.cut_after is None:
        return web.json_response(answer)
    data = json.dumps(answer).encode()
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(data))})
    await response.prepare(http)
    await response.write(data[: len(data) // 2])
    _drop(http)
    return response


async def _stream(http: web.Request, body: Json, answer: Json, reply: Reply, fault: Fault | None) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(http)
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    for number, chunk in enumerate(_chunks(answer, usage)):
        if fault is not None and fault.cut_after is not None and number >= fault.cut_after:
            if not fault.clean:
                _drop(http)
            return response
        await response.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())
        if reply.pace:
            await asyncio.sleep(reply.pace)
    await response.write(b"data: [DONE]\n\n")
    return response


def _drop(http: web.Request) -> None:
    """Drop the connection as a crash would."""
    if http.transport is not None:
        http.transport.close()


def _chunks(answer: Json, usage: bool) -> list[Json]:
    head = {
        "id": answer["id"],
        "object": "chat.completion.chunk",
        "created": answer["created"],
        "model": answer["model"],
    }
    choice = answer["choices"][0]
    message = choice["message"]
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    words = (message["content"] or "").split(" ")
    for start in range(0, len(words), _WORDS):
        piece = " ".join(words[start : start + _WORDS]) + (" " if start + _WORDS < len(words) else "")
        if piece:
            deltas.append({"content": piece})
    for index, call in enumerate(message.get("tool_calls") or []):
        name, text = call["function"]["name"], call["function"]["arguments"]
        opening = {"index": index, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [opening]})
        deltas.extend(
            {"tool_calls": [{"index": index, "function": {"arguments": text[at : at + _ARGS]}}]}
            for at in range(0, len(text), _ARGS)
        )
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if usage:
        chunks.append({**head, "choices": [], "usage": answer["usage"]})
    return chunks


async def _serve(arguments: argparse.Namespace) -> None:
    server = ModelServer(
        arguments.script,
        host=arguments.host,
        port=arguments.port,
        journal_file=arguments.journal,
        bodies=not arguments.no_bodies,
    )
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        await ended.wait()


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the address is the first line of the output. Return the exit code."""
    parser = argparse.ArgumentParser(prog="holdfast.testing.model_server", description="A scripted model server.")
    parser.add_argument("--script", type=Path, required=True, help="YAML file with the conversations")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 finds a free one")
    parser.add_argument("--journal", type=Path, help="file that gets a line of JSON per request")
    parser.add_argument("--no-bodies", action="store_true", help="leave the requests' bodies out of the journal")
    try:
        asyncio.run(_serve(parser.parse_args(argv)))
    except HoldfastError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
