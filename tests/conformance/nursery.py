"""Bears processes of the product by fork, ready within a second, also with a guard switched off; told by `stage`.

A worker needs about six CPU-seconds to import LiteLLM. Thirty of them would turn a test of two minutes into one of ten,
so the nursery imports once what `python -m holdfast.runtime` imports and forks. A child runs that very `main`; nothing
but imports happens before the fork, and no thread, connection or event loop of the parent is alive then.

    python -m tests.conformance.nursery
    {"bear": READY_FILE, "log": FILE, "role": agents | memory, "env": {…}, "switches": […], "fork": true | false}
                     out: {"pid"}
    {"reap": PID}    in: kill -9 and reap, dead or alive;   out: {"at": Unix seconds, "status": wait status}
    end of input     every child is killed
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

PR_SET_PDEATHSIG = 1


def bear(told: dict[str, Any]) -> int:
    """Fork a process of the product and return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _dies_with_us()  # no child outlives the nursery
        os.setsid()
        os.environ.update(told["env"], HOLDFAST_READY_FILE=told["bear"])
        out = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        if told["switches"]:
            from tests.conformance.switches import install

            install(told["switches"])
        from holdfast.runtime import main

        code = main([told["role"]])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(told: dict[str, Any]) -> int:
    """Start a process of the product as its supervisor does, from nothing, and return its id."""
    with open(told["log"], "ab") as out:  # noqa: PTH123  # as few modules as can be are imported before a fork
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.runtime", told["role"]],
            env={**os.environ, **told["env"], "HOLDFAST_READY_FILE": told["bear"]},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_dies_with_us,
        )
    process.returncode = 0  # `kill` reaps it, and nobody else
    return process.pid


def _dies_with_us() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill(pid: int) -> dict[str, float]:
    """Kill a child that was not reaped yet, so its id is still its own."""
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    return {"at": at, "status": os.waitpid(pid, 0)[1]}


def serve() -> None:
    """Import everything, then bear and reap until the input ends."""
    import aiohttp  # noqa: F401  # as the agents file does
    import httpx  # noqa: F401

    import holdfast.mcp.rack
    import holdfast.memory.qdrant_edge
    import holdfast.runtime  # noqa: F401
    from holdfast import llm

    llm.warm()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(timeout=30)  # one of the rehearsal's is still on its way out
    assert threading.active_count() == 1, f"no thread may be alive at a fork: {threading.enumerate()}"
    living: set[int] = set()
    for line in sys.stdin:
        told = json.loads(line)
        if "bear" in told:
            pid = bear(told) if told["fork"] else start(told)
            living.add(pid)
            answer: dict[str, float] = {"pid": pid}
        else:
            living.remove(told["reap"])
            answer = kill(told["reap"])
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    for pid in living:
        kill(pid)


if __name__ == "__main__":
    serve()
