"""An MCP server of the suite, whose tools send to the recorder; workers start it as a child, or reach it by HTTP.

    python -I -S office.py PREFIX RECORDER LISTING stdio | http PORT

Written by hand and without any import beyond Python's own, for each worker that is born starts one: with a library it
would take longer to start than the worker. LISTING names a file with a number, read when it starts: another number is
another description and schema of `once_shifty`. No `once` tool is told its key: the recorder knows a call by its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

PREFIX, RECORDER, LISTING = sys.argv[1], urlsplit(sys.argv[2]), Path(sys.argv[3])
PROTOCOL = "2025-11-25"
SPAN = 500  # milliseconds before an effect and after it, at most each
TEXT = {"type": "string"}
SESSION = f"{os.getpid()}"  # of the HTTP transport: who comes with that of a server that is no more begins anew

Json = dict[str, Any]


def tools() -> list[Json]:
    """Return what is listed."""
    edition = LISTING.read_text(encoding="utf-8").strip()
    plain = {"run": TEXT, "n": TEXT}
    shifty = plain if edition == "1" else {**plain, f"copy_to_{edition}": TEXT}
    listed = {
        "once": ("Each arrival is an effect, and nobody can look.", plain),
        "keyed": ("Arrivals with the same key are one effect.", {**plain, "key": TEXT}),
        "pure": ("May run again.", plain),
        "once_shifty": (f"Each arrival is an effect. Edition {edition}.", shifty),
    }
    return [
        {
            "name": name,
            "description": said,
            "inputSchema": {"type": "object", "properties": given, "required": ["run", "n"]},
        }
        for name, (said, given) in listed.items()
    ]


TOOLS = tools()


def take(name: str, args: Json) -> str:
    """Take one effect."""
    tool = f"{PREFIX}__{name}"
    key = args.pop("key", None) or f"{tool}:{args['run']}:{args['n']}"
    spread = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
    query = urlencode({"delay_before": spread % SPAN, "delay_after": spread // SPAN % SPAN})
    conn = HTTPConnection(RECORDER.hostname or "", RECORDER.port, timeout=20)
    headers = {"Idempotency-Key": key, "X-Pid": str(os.getpid()), "Content-Type": "application/json"}
    conn.request("POST", f"/effect/{tool}?{query}", json.dumps(args), headers)
    found: Json = json.loads(conn.getresponse().read())
    conn.close()
    return str(found["result"])


def answer(message: Json) -> Json | None:
    """Return the answer to a message; None: it wants none."""
    number, method, given = message.get("id"), message.get("method"), message.get("params") or {}
    if number is None or method is None:
        return None
    out: Json = {"jsonrpc": "2.0", "id": number}
    if method == "initialize":
        about = {"name": "office", "version": "1.0"}
        return {**out, "result": {"protocolVersion": PROTOCOL, "capabilities": {"tools": {}}, "serverInfo": about}}
    if method == "ping":
        return {**out, "result": {}}
    if method == "tools/list":
        return {**out, "result": {"tools": TOOLS}}
    if method == "tools/call":
        said = take(given["name"], dict(given["arguments"]))
        return {**out, "result": {"content": [{"type": "text", "text": said}]}}
    return {**out, "error": {"code": -32601, "message": f"{method} is not known here"}}


def serve_pipe() -> None:
    """Speak on standard input and output, with a thread for each call, until the input ends."""
    turn = threading.Lock()

    def work(message: Json) -> None:
        said = answer(message)
        if said is not None:
            with turn, contextlib.suppress(OSError):
                sys.stdout.write(json.dumps(said) + "\n")
                sys.stdout.flush()

    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "tools/call":
            threading.Thread(target=work, args=(message,), daemon=True).start()
        else:
            work(message)


class Web(BaseHTTPRequestHandler):
    """Streamable HTTP in its shortest form: each answer is one piece of JSON."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take one message."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.headers.get("Mcp-Session-Id") in (None, SESSION)
        said = answer(message) if known else None
        body = json.dumps(said).encode() if said is not None else b""
        self.send_response(404 if not known else 200 if body else 202)
        if message.get("method") == "initialize":
            self.send_header("Mcp-Session-Id", SESSION)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Offer no stream."""
        self.send_response(405)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_DELETE = do_GET  # noqa: N815  # the base class's name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


if __name__ == "__main__":
    if sys.argv[4] == "stdio":
        serve_pipe()
    else:
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[5])), Web).serve_forever()
