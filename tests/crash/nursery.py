"""Bears worker processes by fork, ready within a second, and kills them; a program of its own, told by `crash.driver`.

A worker needs about six CPU-seconds to import LiteLLM. Thirty of them would turn a test of two minutes into one of ten,
so the nursery imports once what `python -m holdfast.runtime agents` imports and forks. A child runs that very `main`;
nothing but imports happens before the fork, and no thread, connection or event loop of the parent is alive then.

    python -m tests.crash.nursery [--ledger-off]
    {"bear": READY_FILE, "log": FILE}     in: one worker more;   out: {"pid"}
    {"kill": PID}                         in: kill -9 and reap;  out: {"at": Unix seconds, "status": wait status}
    end of input                          every worker is killed
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback

PR_SET_PDEATHSIG = 1


def bear(ready: str, log: str) -> int:
    """Fork a worker and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no worker outlives the nursery
        os.setsid()
        os.environ["HOLDFAST_READY_FILE"] = ready
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
            os.dup2(source, target)

        from holdfast.runtime import main

        code = main(["agents"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def kill(pid: int) -> dict[str, float]:
    """Kill a worker that was not reaped yet, so its id is still its own."""
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    return {"at": at, "status": os.waitpid(pid, 0)[1]}


def serve() -> None:
    """Import everything, then bear and kill workers until the input ends."""
    if "--ledger-off" in sys.argv[1:]:
        from tests.crash import ledger_off

        ledger_off.install()
    import aiohttp  # noqa: F401  # as the agents file does
    import httpx  # noqa: F401

    import holdfast.runtime  # noqa: F401
    from holdfast import llm

    llm.warm()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(timeout=30)  # one of the rehearsal's is still on its way out
    assert threading.active_count() == 1, f"no thread may be alive at a fork: {threading.enumerate()}"
    living: set[int] = set()
    answer: dict[str, float] = {}
    for line in sys.stdin:
        told = json.loads(line)
        if "bear" in told:
            pid = bear(told["bear"], told["log"])
            living.add(pid)
            answer = {"pid": pid}
        elif told["kill"] in living:
            living.remove(told["kill"])
            answer = kill(told["kill"])
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    for pid in living:
        kill(pid)


if __name__ == "__main__":
    serve()
