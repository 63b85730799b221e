"""Starts an MCP server and sees to its end. `holdfast.mcp.stdio` runs this file as a script; nobody imports it.

Servers are often started through launchers (`npx`, `uvx`) that do not pass signals on, and many do not notice that
whoever started them is gone. This process leads their process group, and sees by the closed standard input that the
worker wants an end, or was killed: then the whole group ends.
"""

from __future__ import annotations

import os
import select
import signal
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


def main() -> int:
    """Run `guard.py SECONDS COMMAND…`: so long may the server take to end by itself, and then again after SIGTERM."""
    grace, command = float(sys.argv[1]), sys.argv[2:]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        child = subprocess.Popen(command)
    except OSError as exc:
        sys.stderr.write(f"{command[0]} could not be started: {exc.strerror}\n")
        return 127
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # or the worker would not see the end of the server's output
    watch = select.poll()
    watch.register(0, 0)  # a hang-up is reported without being asked for, and nothing is read
    watch.register(wake_read, select.POLLIN)
    while child.poll() is None:
        if any(number == 0 for number, _ in watch.poll()):
            _child_ends_within(child, grace)
            break
        os.read(wake_read, 64)
    else:
        code = child.returncode
        sys.stderr.write(f"the server ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}\n")
        sys.stderr.flush()
    _end_group(grace)
    return 0


if __name__ == "__main__":
    sys.exit(main())
