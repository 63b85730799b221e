"""The outside world of the demo: an HTTP service that takes reports. A process of its own, with no code of Holdfast.

It does not know what a repeat is: each POST that arrives is one more report. The first answer is held back for a
while, so that whoever sent the report can be killed before hearing of it.

    python recorder.py --hold SECONDS --watch PID     prints its port, serves until the process PID is gone

    POST /reports         {"title": …, "text": …}, headers X-Key and X-Pid: files a report
    GET  /reports         all there is: reports, and who looked one up
    GET  /reports/KEY     one report, or 404
    POST /watch           {"pid": PID}: serve as long as that process instead
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Desk(ThreadingHTTPServer):
    """The reports so far, and who asked for one."""

    daemon_threads = True

    def __init__(self, hold: float, watch: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.reports: list[dict[str, Any]] = []
        self.looks: list[dict[str, Any]] = []
        self.hold = hold
        self.watch = watch

    def keep_watch(self) -> None:
        """End once the process we serve is gone: a recorder is left by nobody."""
        while True:
            time.sleep(1.0)
            try:
                os.kill(self.watch, 0)
            except OSError:
                os._exit(0)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Desk  # pyright: ignore[reportIncompatibleVariableOverride]  # only a Desk makes one

    def do_POST(self) -> None:  # the name http.server calls
        """File a report, or watch another process."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        if self.path == "/watch":
            self.server.watch = int(body["pid"])
            self._answer(200, {})
            return
        with self.server.lock:
            number = len(self.server.reports) + 1
            report = {"number": number, "key": self.headers["X-Key"], "pid": int(self.headers["X-Pid"]), **body}
            report["said"] = f"report {number} is filed"
            report["held"] = number == 1
            self.server.reports.append(report)
        if number == 1:
            time.sleep(self.server.hold)
            report["held"] = False
        self._answer(200, report)

    def do_GET(self) -> None:  # the name http.server calls
        """Tell of all reports, or of one."""
        if self.path == "/reports":
            with self.server.lock:
                self._answer(200, {"reports": self.server.reports, "looks": self.server.looks})
            return
        key = self.path.removeprefix("/reports/")
        with self.server.lock:
            self.server.looks.append({"key": key, "pid": int(self.headers.get("X-Pid", "0"))})
            found = next((report for report in self.server.reports if report["key"] == key), None)
        self._answer(404 if found is None else 200, found or {"error": "no such report"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        with contextlib.suppress(OSError):  # whoever asked may be gone: the report stands
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name http.server passes
        """Keep quiet."""


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Take reports over HTTP.")
    parser.add_argument("--hold", type=float, required=True, help="seconds the first answer is held back")
    parser.add_argument("--watch", type=int, required=True, help="process to serve as long as it lives")
    options = parser.parse_args()
    desk = Desk(options.hold, options.watch)
    threading.Thread(target=desk.keep_watch, daemon=True).start()
    sys.stdout.write(f"{desk.server_address[1]}\n")
    sys.stdout.flush()
    desk.serve_forever()


if __name__ == "__main__":
    main()
