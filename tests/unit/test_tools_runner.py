"""Tools run off the worker's loop: they cannot delay it, outlive their deadline, or end it."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from holdfast.errors import ToolNotStarted, ToolResultInvalid
from holdfast.settings import Settings
from holdfast.tools import ToolContext, tool
from holdfast.tools.runner import ToolRunner, invoke
from holdfast.tools.threads import Ended
from holdfast.tools.tool import AnyTool, Tool

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def _context() -> ToolContext:
    return ToolContext(
        idempotency_key="key", tenant="default", thread="t", run_id="r", step_no=1, deadline=time.monotonic() + 30
    )


def _soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


async def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def runner() -> AsyncIterator[ToolRunner]:
    """A runner with two threads that warns after 0.3 s."""
    settings = Settings.model_construct(tool_threads=2)
    async with ToolRunner(settings, blocked_after=0.3) as started:
        yield started


async def _run(runner: ToolRunner, function: Callable[..., Any], *, seconds: float = 30.0, **args: Any) -> Any:
    made: AnyTool = function if isinstance(function, Tool) else tool(function)
    return await runner.run(made, made.validate(args), _context(), deadline=_soon(seconds))


async def test_both_kinds_run_elsewhere_with_context_and_variables(runner: ToolRunner) -> None:
    """Neither runs in the worker's thread; both see the caller's context variables."""

    async def slow(ctx: ToolContext, a: int) -> tuple[int, str, str, int]:
        await asyncio.sleep(0)
        return a, ctx.idempotency_key, VARIABLE.get(), threading.get_ident()

    def quick(ctx: ToolContext, a: int) -> tuple[int, str, str, int]:
        return a, ctx.idempotency_key, VARIABLE.get(), threading.get_ident()

    VARIABLE.set("seen")
    for function in (slow, quick):
        a, key, variable, thread = await _run(runner, function, a=1)
        assert (a, key, variable) == (1, "key", "seen")
        assert thread != threading.get_ident()


async def test_a_plain_function_may_return_a_coroutine(runner: ToolRunner) -> None:
    """Decorators that forget `async` are common."""

    async def inner() -> str:
        return "inner"

    def outer() -> Awaitable[str]:
        return inner()

    assert await _run(runner, outer) == "inner"


@pytest.mark.parametrize("late", ["deadline", "cut off", "stopping"])
async def test_a_function_that_ran_began_although_what_it_returned_did_not(runner: ToolRunner, late: str) -> None:
    """The call may have taken effect: a TimeoutError or a plain cancellation, never the proof that nothing was sent."""
    release, blocked, ran, go = (threading.Event() for _ in range(4))

    async def rude() -> None:
        blocked.set()
        release.wait(20)

    @tool
    def posts() -> Awaitable[None]:
        """Take effect, then return a coroutine."""
        ran.set()
        go.wait(20)
        return asyncio.sleep(0)

    first = asyncio.create_task(_run(runner, rude))
    await _until(blocked.is_set)
    deadline = _soon(0.5 if late == "deadline" else 30.0)
    bodies: list[Future[Ended[Any]]] = []

    async def kind() -> type[BaseException] | None:
        try:
            await runner.run(posts, {}, _context(), deadline=deadline, begun=bodies.append)
        except BaseException as exc:
            return type(exc)
        return None

    call = asyncio.create_task(kind())
    await _until(ran.is_set)
    if late == "stopping":
        await runner.close(grace=0.0)
    go.set()
    if late == "cut off":
        await _until(lambda: len(bodies) == 2)
        call.cancel()
    assert await call is (asyncio.CancelledError if late == "cut off" else TimeoutError)
    release.set()
    await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize("in_child", [False, True])
async def test_a_blocking_async_tool_delays_nobody_and_is_named(runner: ToolRunner, in_child: bool) -> None:
    """The worker's heartbeat goes on; the log names tool and line, also when a task of the tool's own blocks."""
    release = threading.Event()

    async def block() -> str:
        release.wait(20)
        return "done at last"

    async def rude_tool() -> str:
        return await (asyncio.create_task(block()) if in_child else block())

    gaps: list[float] = []
    beating = True

    async def beat() -> None:
        last = time.monotonic()
        while beating:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    with capture_logs() as logs:
        heart = asyncio.create_task(beat())
        running = asyncio.create_task(_run(runner, rude_tool))
        await _until(lambda: bool(logs) and len(gaps) > 20)
        release.set()
        assert await running == "done at last"
        await _until(lambda: len(logs) == 2)
        beating = False
        await heart
    assert max(gaps) < 0.9, "the tool blocks its own loop for a second and more, ours goes on"
    warning, again = logs
    assert warning["log_level"] == "warning"
    assert warning["tool"] == "rude_tool"
    assert f"{__file__}:" in warning["at"]
    assert warning["at"].endswith("in block")
    assert again["tool"] == "rude_tool"


async def test_a_deadline_passes_also_while_the_loop_is_blocked(runner: ToolRunner) -> None:
    """The blocked call times out; one that waited behind it never starts, and says so."""
    release, began = threading.Event(), threading.Event()
    ran = []

    async def rude() -> None:
        began.set()
        release.wait(20)

    async def innocent() -> None:
        ran.append(1)

    first = asyncio.create_task(_run(runner, rude, seconds=0.6))
    await _until(began.is_set)
    with pytest.raises(ToolNotStarted, match="Nothing took effect"):
        await _run(runner, innocent, seconds=0.1)
    with pytest.raises(TimeoutError, match="rude did not end within"):
        await first
    release.set()
    assert await _run(runner, alive_tool()) == "alive"
    assert not ran


def alive_tool() -> AnyTool:
    """Return a tool that just answers."""

    @tool(effect="pure")
    async def alive() -> str:
        """Answer."""
        return "alive"

    return alive


async def test_cancelling_cancels_an_async_tool(runner: ToolRunner) -> None:
    """Cancel and deadline reach the tool's own await."""
    cancelled, began = threading.Event(), threading.Event()

    async def patient() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(_run(runner, patient))
    await _until(began.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(cancelled.is_set)
    cancelled.clear()
    with pytest.raises(TimeoutError):
        await _run(runner, patient, seconds=0.1)
    await _until(cancelled.is_set)


async def test_given_up_threads_are_counted_and_do_not_starve_others(runner: ToolRunner) -> None:
    """Two threads hang, the limit is two, a third call still runs; how they end at last is there to be read."""
    release = threading.Event()
    bodies: list[Future[Ended[Any]]] = []

    @tool
    def hang(n: int) -> int:
        """Hang."""
        release.wait(20)
        if n == 2:
            raise ValueError("late failure")
        return n

    async def once(n: int) -> None:
        await runner.run(hang, {"n": n}, _context(), deadline=_soon(0.1), begun=bodies.append)

    results = await asyncio.gather(once(1), once(2), return_exceptions=True)
    assert [type(result) for result in results] == [TimeoutError, TimeoutError]
    assert runner.left == 2
    assert await _run(runner, alive_sync()) == "alive"
    assert [body.done() for body in bodies] == [False, False]
    release.set()
    await _until(lambda: runner.left == 0 and all(body.done() for body in bodies))
    late = [body.result() for body in bodies]
    assert [(ended.value, type(ended.error)) for ended in late] == [(1, type(None)), (None, ValueError)]


async def test_threads_of_an_async_tool_are_part_of_its_body(runner: ToolRunner) -> None:
    """A cancelled tool has not ended while what it runs by `asyncio.to_thread` goes on."""
    release = threading.Event()
    bodies: list[Future[Ended[Any]]] = []

    @tool
    async def sends() -> None:
        """Send in a thread."""
        await asyncio.to_thread(release.wait, 20)

    @tool
    async def waits() -> None:
        """Wait on the loop."""
        await asyncio.Event().wait()

    for each in (sends, waits):
        with pytest.raises(TimeoutError):
            await runner.run(each, {}, _context(), deadline=_soon(0.1), begun=bodies.append)
    await _until(bodies[1].done)
    assert not bodies[0].done()
    release.set()
    await _until(bodies[0].done)
    assert all(isinstance(body.result().error, asyncio.CancelledError) for body in bodies)


def alive_sync() -> AnyTool:
    """Return a sync tool that just answers."""

    @tool(effect="pure")
    def alive() -> str:
        """Answer."""
        return "alive"

    return alive


async def test_a_call_that_found_no_thread_never_runs(runner: ToolRunner) -> None:
    """With all threads busy the waiting call is told apart from one that may have taken effect."""
    release = threading.Event()
    ran = []

    def busy() -> None:
        release.wait(20)

    def waiting() -> None:
        ran.append(1)

    tasks = [asyncio.create_task(_run(runner, busy)) for _ in range(2)]
    await _until(lambda: runner._pool._threads == 2)
    with pytest.raises(ToolNotStarted):
        await _run(runner, waiting, seconds=0.1)
    with pytest.raises(ToolNotStarted):
        await _run(runner, waiting, seconds=-1)
    release.set()
    await asyncio.gather(*tasks)
    assert await _run(runner, alive_sync()) == "alive"
    assert not ran


async def test_what_tools_raise_arrives_and_cannot_pass_for_something_else(runner: ToolRunner) -> None:
    """Exits, faked cancellations and StopIteration become RuntimeErrors; loop and threads live on."""

    async def own() -> None:
        raise KeyError("mine")

    async def leave() -> None:
        sys.exit(3)

    async def fake() -> None:
        raise asyncio.CancelledError

    def leave_thread() -> None:
        raise KeyboardInterrupt

    def stop() -> None:
        next(iter([]))

    def fake_thread() -> None:
        raise asyncio.CancelledError

    with pytest.raises(KeyError):
        await _run(runner, own)
    for function in (leave, fake, leave_thread, stop, fake_thread):
        with pytest.raises(RuntimeError, match=f"{function.__name__} ended with"):
            await _run(runner, function)
    assert await _run(runner, alive_tool()) == "alive"
    assert await _run(runner, alive_sync()) == "alive"


async def test_call_and_invoke_share_the_tool_loop(runner: ToolRunner) -> None:
    """A local_tx tool runs on the loop its connection lives on, and the watchdog would know its name."""
    connection: Any = object()

    @tool(effect="local_tx")
    async def book(ctx: ToolContext, seat: str) -> tuple[bool, str, int]:
        """Book."""
        task = asyncio.current_task()
        assert task is not None
        return ctx.connection is connection, task.get_name(), id(asyncio.get_running_loop())

    async def transaction(ctx: ToolContext) -> Any:
        return await invoke(book, {"seat": "1"}, ctx.with_connection(connection))

    async def loop_id() -> int:
        return id(asyncio.get_running_loop())

    assert await runner.call(transaction, _context()) == (True, "book", await runner.call(loop_id))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await runner.call(asyncio.Event().wait)


async def test_look_up_and_text(runner: ToolRunner) -> None:
    """Look-ups of both kinds run off the loop too; results become text there."""

    def sync_look(ctx: ToolContext, a: int) -> str | None:
        return f"found {a} {ctx.idempotency_key}" if a else None

    async def async_look(ctx: ToolContext, a: int) -> str | None:
        return sync_look(ctx, a)

    def pay(a: int) -> None: ...

    for look in (sync_look, async_look):
        made = tool(effect="verifiable", lookup=look, settle=1.0)(pay)
        assert await runner.look_up(made, {"a": 1}, _context(), deadline=_soon()) == "found 1 key"
        assert await runner.look_up(made, {"a": 0}, _context(), deadline=_soon()) is None
    assert await runner.text(made, {"a": 1}) == '{"a":1}'
    with pytest.raises(ToolResultInvalid):
        await runner.text(made, b"raw")


async def test_fifty_calls_at_once(runner: ToolRunner) -> None:
    """More calls than threads: all run, none twice."""
    seen: list[int] = []

    @tool
    def note(n: int) -> int:
        """Note."""
        seen.append(n)
        return n

    results = await asyncio.gather(
        *(runner.run(note, {"n": n}, _context(), deadline=_soon()) for n in range(50)),
    )
    assert results == list(range(50))
    assert sorted(seen) == list(range(50))
    assert runner._pool._threads <= 2
