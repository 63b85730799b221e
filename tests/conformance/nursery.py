"""Bears agent workers and memory processes by fork, also with a guard switched off; a program told by `stage`.

As `tests.crash.nursery`, which explains why it forks; here every child may have a role and an environment of its own.

    python -m tests.conformance.nursery
    {"bear": READY_FILE, "log": FILE, "role": agents | memory, "env": {…}, "switches": […]}   out: {"pid"}
    {"reap": PID}    in: kill -9 and reap, dead or alive;   out: {"at": Unix seconds, "status": wait status}
    end of input     every child is killed
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from typing import Any

from tests.crash.nursery import PR_SET_PDEATHSIG, kill


def bear(told: dict[str, Any]) -> int:
    """Fork a process of the product and return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no child outlives the nursery
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


def serve() -> None:
    """Import everything, then bear and reap until the input ends."""
    import aiohttp  # noqa: F401  # as the agents file does
    import httpx  # noqa: F401

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
            pid = bear(told)
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
