"""Starts a program and sees to its end, whatever becomes of the worker. Run as a script by its path, never imported.

    guard.py serve SECONDS COMMAND…        a server: ends with all it started when its standard input closes
    guard.py run SOCKET SECONDS COMMAND…   a command: killed with all it started after so long, or when SOCKET closes

Programs are often started through launchers (`npx`, `uvx`) that do not pass signals on, and many do not notice that
whoever started them is gone. This process leads their process group, and sees by what closes that the worker wants an
end, or was killed. A worker that is frozen closes nothing: so a command's time is kept here too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time


def _child_ends_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end_group(grace: float) -> None:
    """End what is left of our process group, this process last."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.02)
    os.killpg(0, signal.SIGKILL)


class _Watch:
    """Waits for a child's end, for something to close, or for its time to be over."""

    def __init__(self, number: int) -> None:
        """Watch an open file, from before the child is started."""
        self._number = number
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll = select.poll()
        self._poll.register(number, 0)  # a hang-up is reported without being asked for, and nothing is read
        self._poll.register(self._wake, select.POLLIN)

    def ended(self, child: subprocess.Popen[bytes], seconds: float | None = None) -> bool:
        """Return whether the child has ended; else what is watched has closed, or *seconds* have passed."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)  # or the worker would not see the end of the program's output
        deadline = None if seconds is None else time.monotonic() + seconds
        while child.poll() is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            found = self._poll.poll(left)
            if not found or any(number == self._number for number, _ in found):
                return False
            os.read(self._wake, 64)
        return True


def serve(grace: float, command: list[str]) -> int:
    """Run a server: so long may it take to end by itself, and then again after SIGTERM."""
    watch = _Watch(0)
    try:
        child = subprocess.Popen(command)
    except OSError as exc:
        sys.stderr.write(f"{command[0]} could not be started: {exc.strerror}\n")
        return 127
    if watch.ended(child):
        code = child.returncode
        # On a line of its own: what the server wrote last may not have ended in a newline.
        sys.stderr.write(f"\nthe server ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}\n")
        sys.stderr.flush()
    else:
        _child_ends_within(child, grace)
    _end_group(grace)
    return 0


def run(number: int, seconds: float, command: list[str]) -> int:
    """Run a command, and end as it ended. What it leaves behind when it ends by itself is left alone."""
    worker = socket.socket(fileno=number)
    watch = _Watch(number)
    try:
        child = subprocess.Popen(command)
    except OSError as exc:
        worker.send(str(exc.errno).encode())
        return 127
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    if not watch.ended(child, seconds):
        os.killpg(0, signal.SIGKILL)
    if child.returncode < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-child.returncode, signal.SIG_DFL)
        os.kill(os.getpid(), -child.returncode)
    return child.returncode


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        sys.exit(serve(float(sys.argv[2]), sys.argv[3:]))
    sys.exit(run(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
