"""How the runner ends: calls are told, threads end, and nothing that hangs keeps the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdfast.errors import ToolNotStarted
from holdfast.settings import Settings
from holdfast.tools import ToolContext, tool
from holdfast.tools.runner import ToolRunner
from holdfast.tools.tool import AnyTool


async def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)


async def _run(runner: ToolRunner, function: Callable[..., Any], *, seconds: float = 30.0) -> Any:
    made: AnyTool = tool(function)
    deadline = time.monotonic() + seconds
    ctx = ToolContext(idempotency_key="key", tenant="t", thread="t", run_id="r", step_no=1, deadline=deadline)
    return await runner.run(made, {}, ctx, deadline=deadline)


async def test_close_ends_calls_and_refuses_new_ones() -> None:
    """What runs is cancelled, what waits never starts, and no thread that could end stays."""
    before = set(threading.enumerate())
    runner = ToolRunner(Settings.model_construct(tool_threads=1))
    runner.start()
    release, began_async, began_sync = threading.Event(), threading.Event(), threading.Event()

    async def patient() -> None:
        began_async.set()
        await asyncio.Event().wait()

    def hang() -> None:
        began_sync.set()
        release.wait(20)

    tasks = [asyncio.create_task(_run(runner, function)) for function in (patient, hang, hang)]
    await _until(lambda: began_async.is_set() and began_sync.is_set())
    began = time.monotonic()
    await runner.close(grace=5)
    assert time.monotonic() - began < 30
    await runner.close()
    with pytest.raises(ToolNotStarted, match="stopping"):
        await _run(runner, patient)
    with pytest.raises(RuntimeError, match="patient ended with CancelledError"):
        await tasks[0]
    with pytest.raises(ToolNotStarted, match="stopping"):
        await tasks[2]
    release.set()
    await tasks[1]
    await _until(lambda: set(threading.enumerate()) <= before)


async def test_close_does_not_wait_for_a_loop_that_is_blocked() -> None:
    """A stack that stops has ten seconds for everything."""
    runner = ToolRunner(Settings.model_construct(tool_threads=1))
    runner.start()
    release, began = threading.Event(), threading.Event()

    async def rude() -> None:
        began.set()
        release.wait(20)

    task = asyncio.create_task(_run(runner, rude, seconds=1.0))
    await _until(began.is_set)
    started = time.monotonic()
    with capture_logs() as logs:
        await runner.close(grace=0.2)
    assert time.monotonic() - started < 15
    assert logs[-1]["loop_ended"] is False
    with pytest.raises(TimeoutError):
        await task
    release.set()
    await _until(lambda: runner._over.done())


HANGING = """
import asyncio, threading, time
from holdfast.tools import ToolContext, tool
from holdfast.tools.runner import ToolRunner

@tool
def hang() -> None:
    threading.Event().wait()

async def main() -> None:
    ctx = ToolContext(idempotency_key="k", tenant="t", thread="t", run_id="r", step_no=1, deadline=0.0)
    async with ToolRunner() as runner:
        try:
            await runner.run(hang, {}, ctx, deadline=time.monotonic() + 0.1)
        except TimeoutError:
            print("given up", runner.left)

asyncio.run(main())
"""


def test_a_tool_that_hangs_does_not_keep_the_process() -> None:
    """A worker that was told to stop must end, whatever its tools do."""
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1:] and "given up 1" in done.stdout) == (0, True), done
