"""The outside world of the conformance suite: an HTTP service that takes effects and keeps count; a process of its own.

It shares no code with what is tested. Each arrival is an effect, on disk before it is answered. Only tools whose name,
behind an MCP server's prefix, starts with `keyed` honour the idempotency key: a key seen before gets its first answer
again and has no effect.

    python tests/outside/recorder.py --port 0 --log FILE      prints its port on a line of its own

    POST /effect/{tool}?delay_before=MS&delay_after=MS        {"key": ..., any arguments}, header Idempotency-Key
        &land=GATE, &answer=GATE                              takes effect, or answers, once that gate is open
    POST /open/{gate}                                         opens it, for good
    GET  /lookup/{tool}/{key}                                 200 {"result": ...} or 404
    GET  /count                                               {"effects": N, "deduped": M, "by_tool": {tool: effects}}

A line of the log: {"kind": "effect" | "duplicate-deduped", "n", "time", "tool", "key", "args", "pid", "result"}; pid is
that of the caller, from its header X-Pid. An existing log is read at start, so a restart forgets nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from aiohttp import web

LARGEST_BODY = 64 * 1024 * 1024  # bytes


class Recorder:
    """The effects so far, in memory and in the log."""

    def __init__(self, log: Path) -> None:
        self.effects: Counter[str] = Counter()
        self.deduped = 0
        self.first: dict[tuple[str, str], str] = {}  # (tool, key): the result of the first effect
        self._file = log.open("a+b")
        self._file.seek(0)
        written = self._file.read()
        for line in written.splitlines():
            try:
                self._count(json.loads(line))
            except ValueError:
                continue  # cut off by a kill: never answered
        if written and not written.endswith(b"\n"):
            self._append(b"\n")

    def take(self, tool: str, key: str, args: dict[str, Any], pid: str | None) -> str:
        """Record one arrival and return its result. Without an await: arrivals cannot overtake each other in here."""
        known = self.first.get((tool, key)) if tool.rpartition("__")[2].startswith("keyed") else None
        number = self.effects.total() + (known is None)
        entry = {
            "kind": "effect" if known is None else "duplicate-deduped",
            "n": number,
            "time": time.time(),
            "tool": tool,
            "key": key,
            "args": args,
            "pid": pid,
            "result": f"{tool} #{number}" if known is None else known,
        }
        self._append(json.dumps(entry).encode() + b"\n")
        self._count(entry)
        return str(entry["result"])

    def _append(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _count(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "effect":
            self.effects[entry["tool"]] += 1
            self.first.setdefault((entry["tool"], entry["key"]), entry["result"])
        else:
            self.deduped += 1


RECORDER = web.AppKey("recorder", Recorder)
GATES = web.AppKey("gates", defaultdict[str, asyncio.Event])


def bad_request(message: str) -> web.HTTPBadRequest:
    """Refuse a request; it is no effect."""
    return web.HTTPBadRequest(text=json.dumps({"error": message}), content_type="application/json")


def delay(request: web.Request, name: str) -> float:
    """Return a delay of the query in seconds."""
    try:
        return max(0.0, float(request.query.get(name, "0"))) / 1000
    except ValueError:
        raise bad_request(f"{name} must be a number of milliseconds") from None


async def passed(request: web.Request, name: str) -> None:
    """Wait until the gate is open that the query names, if it names one."""
    if name in request.query:
        await request.app[GATES][request.query[name]].wait()


async def open_gate(request: web.Request) -> web.Response:
    """Let pass what waits at a gate, and all that comes."""
    request.app[GATES][request.match_info["gate"]].set()
    return web.json_response({})


async def effect(request: web.Request) -> web.Response:
    """Take one effect. A caller that hangs up meanwhile does not stop it."""
    before, after = delay(request, "delay_before"), delay(request, "delay_after")
    try:
        body = await request.json()
    except ValueError:
        raise bad_request("the body must be JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object")
    inside = body.pop("key", None)
    key = request.headers.get("Idempotency-Key", inside)
    if not isinstance(key, str) or not key or inside not in (None, key):
        raise bad_request("give one key, in the header Idempotency-Key or in the body or the same in both")
    await asyncio.sleep(before)
    await passed(request, "land")
    result = request.app[RECORDER].take(request.match_info["tool"], key, body, request.headers.get("X-Pid"))
    await asyncio.sleep(after)
    await passed(request, "answer")
    return web.json_response({"result": result})


async def lookup(request: web.Request) -> web.Response:
    """Tell the result of the first effect of a key."""
    result = request.app[RECORDER].first.get((request.match_info["tool"], request.match_info["key"]))
    if result is None:
        return web.json_response({"error": "no such effect"}, status=404)
    return web.json_response({"result": result})


async def count(request: web.Request) -> web.Response:
    """Tell how many effects there were."""
    recorder = request.app[RECORDER]
    return web.json_response(
        {"effects": recorder.effects.total(), "deduped": recorder.deduped, "by_tool": dict(recorder.effects)}
    )


async def serve(port: int, log: Path) -> None:
    """Serve on 127.0.0.1 until SIGTERM or Ctrl-C."""
    app = web.Application(client_max_size=LARGEST_BODY)
    app[RECORDER] = Recorder(log)
    app[GATES] = defaultdict(asyncio.Event)
    app.router.add_post("/effect/{tool}", effect)
    app.router.add_post("/open/{gate}", open_gate)
    app.router.add_get("/lookup/{tool}/{key}", lookup)
    app.router.add_get("/count", count)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Take effects over HTTP and keep count.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.log))


if __name__ == "__main__":
    main()
