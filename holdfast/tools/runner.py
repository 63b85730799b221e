"""Runs tools off the worker's event loop, so that no tool can stop a heartbeat. The runtime starts one per worker."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Self, TypeVar, TypeVarTuple

import structlog

from holdfast.errors import ToolNotStarted
from holdfast.settings import Settings
from holdfast.settings import defaults as default_settings
from holdfast.tools.context import ToolContext
from holdfast.tools.results import result_text
from holdfast.tools.threads import Attempt, Ended, Seat, ThreadPool
from holdfast.tools.tool import AnyTool
from holdfast.tools.watchdog import Watchdog

__all__ = ["CLOSING", "Begun", "NeverBegan", "NotBegun", "ToolRunner", "invoke"]

CLOSING = 2.0  # seconds to close what is open, in all; a supervisor allows five beyond `shutdown_grace`

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Begun = Callable[[Future[Ended[Any]]], None]

log = structlog.get_logger(__name__)


class NotBegun(asyncio.CancelledError):
    """A cancellation that came before the tool began: proof that nothing was sent."""


class NeverBegan(ToolNotStarted):
    """What was to be run was not begun: something was in its way, or the worker stops. Its code never raises this."""


async def invoke(tool: AnyTool, args: dict[str, Any], ctx: ToolContext) -> Any:
    """Call an async tool from a coroutine already on the tool loop (`ToolRunner.call`), as `local_tx` needs it.

    *args* are validated. Raises whatever the tool raises.
    """
    task = asyncio.current_task()
    if task is not None:
        task.set_name(tool.name)  # the name the watchdog gives
    return await tool(**tool.bind(args, ctx))


class _LoopCall:
    """One call on the tool loop. Its future never holds an exception, always an Ended."""

    def __init__(self, name: str, start: Callable[[], Awaitable[Any]]) -> None:
        self.name = name
        self.start = start
        self.future: Future[Ended[Any]] = Future()
        self.body: Future[Ended[Any]] = Future()  # done when the call and all that `add` was given have ended
        self.context = contextvars.copy_context()
        self.context.run(_CALL.set, self)
        self.task: asyncio.Task[None] | None = None
        self._parts: set[Future[Any] | asyncio.Task[Any]] = {self.future}
        self._lock = threading.Lock()
        self.future.add_done_callback(self._part_ended)

    async def drive(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return  # given up before it began
        ended: Ended[Any]
        try:
            ended = Ended(await self.start())
        except BaseException as exc:  # noqa: BLE001 - whatever a tool raises is its outcome
            ended = Ended(error=exc)
        self.future.set_result(ended)

    def add(self, part: Future[Any] | asyncio.Task[Any]) -> None:
        """Count a task, or work in an executor, as part of this call's body."""
        with self._lock:
            self._parts.add(part)
        part.add_done_callback(self._part_ended)

    def _part_ended(self, part: Future[Any] | asyncio.Task[Any]) -> None:
        with self._lock:
            self._parts.discard(part)
            if self._parts or self.body.done():
                return
            if self.future.cancelled():
                self.body.cancel()
            else:
                self.body.set_result(self.future.result())

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def loop_closed(self) -> None:
        """Take note that no task goes on; work in executors does."""
        if not self.future.cancel() and not self.future.done():
            self.future.set_result(Ended(error=RuntimeError("the tool loop of the worker was closed")))
        with self._lock:
            tasks = [part for part in self._parts if isinstance(part, asyncio.Task)]
        for task in tasks:
            self._part_ended(task)


@dataclass
class _Start:
    """How long a call may wait for its begin, and may take from then on, in seconds."""

    patience: float
    timeout: float
    begun: Future[None] = field(default_factory=Future)


_CALL: contextvars.ContextVar[_LoopCall | None] = contextvars.ContextVar("holdfast_tool_call", default=None)


class _Loop(asyncio.SelectorEventLoop):
    """The tool loop. It counts the tasks of a call and its work in executors as part of the call's body.

    Cancelling a call does not end what it has shielded, or what runs in a thread: that may still take effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads = ThreadPoolExecutor(thread_name_prefix="holdfast-to-thread")
        self.set_default_executor(self._threads)  # shut down with the loop
        self.set_task_factory(_task_of_call)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Submit to *executor*, and keep what the awaiting task cannot see: whether the work still runs."""
        future = (executor or self._threads).submit(func, *args)
        call = _CALL.get()
        if call is not None:
            call.add(future)
        return asyncio.wrap_future(future, loop=self)


class ToolRunner:
    """One event loop in a thread of its own for async tools, a pool of threads for sync ones.

    The hooks of each plugin have another one. Use as `async with ToolRunner(settings) as runner`, or call `start` and
    `close`.
    """

    def __init__(
        self, settings: Settings | None = None, *, blocked_after: float = 1.0, whose: str = "the tools"
    ) -> None:
        """Take `tool_threads` from *settings*; warn when something blocks the loop for *blocked_after* seconds."""
        self._whose = whose
        self._settings = settings or default_settings()
        self._blocked_after = blocked_after
        self._pool = ThreadPool(self._settings.tool_threads)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = False
        self._stopping = asyncio.Event()  # used on the tool loop alone
        self._over: Future[None] = Future()
        self._live: set[_LoopCall] = set()
        self._until: float | None = None  # when calls end that have no nearer deadline, as the worker ends
        self._watchdog: Watchdog | None = None

    @property
    def left(self) -> int:
        """Threads still busy with sync calls that were given up."""
        return self._pool.left

    @property
    def running(self) -> bool:
        """Whether it takes calls."""
        return self._running

    def start(self) -> None:
        """Start the tool loop and its watchdog."""
        if self._loop is not None:
            raise RuntimeError("a ToolRunner starts once; make another")
        self._loop = _Loop()
        thread = threading.Thread(target=self._serve, args=(self._loop,), name="holdfast-tool-loop", daemon=True)
        thread.start()
        self._running = True
        self._watchdog = Watchdog(self._loop, thread, self._blocked_after, self._whose)
        self._watchdog.start()

    async def close(self, grace: float = 2.0) -> None:
        """Cancel what still runs and end the threads. A tool that does not let go within *grace* seconds is left."""
        if not self._running or self._loop is None:
            return
        self._running = False
        if self._watchdog is not None:
            self._watchdog.stop()
        self._pool.close()
        with suppress(RuntimeError):  # the loop ended on its own
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._until is not None:
            grace = max(0.0, min(grace, self._until - time.monotonic()))
        await asyncio.wait({asyncio.wrap_future(self._over)}, timeout=grace)
        if self.left or not self._over.done():
            log.warning("tools were left running", threads=self.left, loop_ended=self._over.done())

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------ called by activities

    @asynccontextmanager
    async def seat(self, tool: AnyTool, *, within: float, look_up: bool = False) -> AsyncIterator[Seat | None]:
        """Hold a thread for a sync tool or its *look_up*: its clock need not run while others are busy.

        An async one has none: it waits here until the tool loop answers, which another tool may block.

        Raises:
            NeverBegan: neither happened within so many seconds, or the worker stops.

        """
        function = tool.lookup if look_up else tool.function
        if not self._running:
            raise NeverBegan(f"{tool.name} was not started: the worker is stopping. Nothing took effect.")
        if inspect.iscoroutinefunction(function) if look_up else tool.is_async:
            await self._answered(tool.name, within)
            yield None
            return
        seat = Seat(self._pool)
        try:
            either: set[asyncio.Future[Any]] = {
                asyncio.wrap_future(seat.taken),
                asyncio.wrap_future(seat.attempt.future),
            }
            await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if not seat.taken.done():
                raise NeverBegan(
                    f"{tool.name} was not started: no thread was free for {within:.1f} s. Nothing took effect. Raise "
                    "HOLDFAST_TOOL_THREADS or fix the tool that hangs."
                )
            yield seat
        finally:
            seat.release()

    async def run(
        self,
        tool: AnyTool,
        args: dict[str, Any],
        ctx: ToolContext,
        *,
        deadline: float,
        begun: Begun | None = None,
        seat: Seat | None = None,
    ) -> Any:
        """Return what *tool* returns for validated *args*; *deadline* is on the clock of `time.monotonic()`.

        When the awaiting task is cancelled or the deadline passes, an async tool is cancelled and a sync one left to
        itself; neither is waited for. *begun* is given the future of the tool's body as it begins, which is done when
        the body has ended, however long after: proof for a ledger row in doubt. A sync tool begins in its *seat* at
        once.

        Raises:
            NotBegun: cancelled before the tool began.
            TimeoutError: the deadline passed while the tool ran; or a sync tool returned an awaitable that could not
                be started.
            ToolNotStarted: it passed, or the worker stops, before the tool began: nothing took effect.
            BaseException: whatever the tool raises; what would end a process or fake a cancellation (SystemExit,
                KeyboardInterrupt, CancelledError, StopIteration) as RuntimeError.

        """
        work = functools.partial(tool.function, **tool.bind(args, ctx))
        return await self._run(tool.name, work, is_async=tool.is_async, deadline=deadline, begun=begun, seat=seat)

    async def look_up(
        self, tool: AnyTool, args: dict[str, Any], ctx: ToolContext, *, deadline: float, seat: Seat | None = None
    ) -> Any:
        """Return what a `verifiable` tool's look-up finds for this call: its result, or None for no effect (yet).

        Raises as `run` does.
        """
        if tool.lookup is None:
            raise ValueError(f"tool {tool.name} has no lookup=")
        work = functools.partial(tool.lookup, ctx, **args)
        is_async = inspect.iscoroutinefunction(tool.lookup)
        return await self._run(f"{tool.name} (lookup)", work, is_async=is_async, deadline=deadline, seat=seat)

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function on the tool loop: what shares its connections with tools lives there.

        Cancelling the awaiting task cancels it there, without waiting for it. Raises as `run` does, without deadline.
        """
        name = getattr(function, "__qualname__", repr(function))
        found: T = await self._run(name, functools.partial(function, *args, **kwargs), is_async=True, deadline=None)
        return found

    def end_by(self, until: float) -> None:
        """Let no call from now on take longer than *until*, on the clock of `time.monotonic()`: the worker ends.

        The first word counts.
        """
        if self._until is None:
            self._until = until

    async def let_go(self, function: Callable[[], Awaitable[None]]) -> None:
        """Close what lives on the tool loop. Where a tool blocks the loop it is left as it is, after a moment."""
        self.end_by(time.monotonic() + CLOSING)
        try:
            await self.call(function)
        except (TimeoutError, ToolNotStarted) as exc:
            log.warning("connections were not closed in order, because a tool blocks the tool loop", error=str(exc))

    async def guest(
        self, name: str, function: Callable[..., Any], /, *args: Any, timeout: float, patience: float
    ) -> Any:
        """Return what a plugin's *function*, sync or async, returns. Its time runs from its begin.

        Raises:
            NeverBegan: it did not begin within *patience* seconds, or the worker stops.
            BaseException: as `run` does.

        """
        start = _Start(patience, timeout)

        def work() -> Any:
            start.begun.set_result(None)
            return function(*args)

        is_async = inspect.iscoroutinefunction(function)
        return await self._run(name, work, is_async=is_async, deadline=None, start=start)

    async def text(self, tool: AnyTool, value: Any) -> str:
        """Return the text of a tool's result, made off this loop: see `holdfast.tools.results.result_text`."""
        return await asyncio.to_thread(result_text, tool.name, value, self._settings.result_max)

    # ------------------------------------------------------------------------------------------------------- inside

    async def _answered(self, name: str, within: float) -> None:
        """Wait until the tool loop takes its turn."""
        answer: Future[None] = Future()
        if self._loop is not None:
            with suppress(RuntimeError):  # closed
                self._loop.call_soon_threadsafe(answer.set_result, None)
        await asyncio.wait({asyncio.wrap_future(answer)}, timeout=within)
        if not answer.done():
            raise NeverBegan(
                f"{name} was not started: another tool blocked the tool loop for {within:.1f} s. Nothing took effect. "
                "Fix the tool that blocks; the worker's log names it."
            )

    async def _run(
        self,
        name: str,
        work: Callable[[], Any],
        *,
        is_async: bool,
        deadline: float | None,
        begun: Begun | None = None,
        seat: Seat | None = None,
        start: _Start | None = None,
    ) -> Any:
        started = time.monotonic()
        if self._until is not None:
            deadline = self._until if deadline is None else min(deadline, self._until)
        if deadline is not None and deadline <= started:
            raise NeverBegan(f"{name} was not started: its deadline had passed. Nothing took effect.")
        call = self._begin(name, work, is_async=is_async, seat=seat)
        if begun is not None:
            begun(call.future if isinstance(call, Attempt) else call.body)
        waiter = asyncio.wrap_future(call.future)
        try:
            if start is not None:
                either: set[asyncio.Future[Any]] = {waiter, asyncio.wrap_future(start.begun)}
                patience = self._at_most(start.patience)
                await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not (waiter.done() or start.begun.done()) and self._withdraw(call):
                    raise _never_began(name, time.monotonic() - started)
                started = time.monotonic()
                deadline = started + self._at_most(start.timeout)
            await asyncio.wait({waiter}, timeout=None if deadline is None else deadline - started)
        except asyncio.CancelledError as exc:
            if self._give_up(name, call):
                raise NotBegun from exc
            raise
        if not waiter.done():
            waited = time.monotonic() - started
            if self._give_up(name, call):
                raise _never_began(name, waited)
            raise TimeoutError(f"{name} did not end within {waited:.1f} s and was given up")
        if waiter.cancelled():
            raise NeverBegan(f"{name} was not started: the worker is stopping. Nothing took effect.")
        ended = waiter.result()
        if ended.error is not None:
            raise _tame(name, ended.error)
        if not is_async and inspect.isawaitable(ended.value):  # a plain function that returned a coroutine
            return await self._run_returned(name, ended.value, deadline=deadline, begun=begun)
        return ended.value

    async def _run_returned(
        self, name: str, value: Awaitable[Any], *, deadline: float | None, begun: Begun | None
    ) -> Any:
        """Run the awaitable that a plain function returned.

        The function has run, so that its awaitable never began proves nothing to a caller that settles an effect (one
        that gives *begun*). To others it is overload, and no try.
        """
        try:
            return await self._run(name, lambda: value, is_async=True, deadline=deadline, begun=begun)
        except (NotBegun, NeverBegan) as exc:
            if inspect.iscoroutine(value):
                value.close()
            if begun is None:
                raise
            if isinstance(exc, NotBegun):
                raise asyncio.CancelledError from exc
            raise TimeoutError(
                f"{name} returned an awaitable, which was not started before its deadline or the end of the worker. "
                "What the function did before it returned may have taken effect. Fix the tool that blocks the tool "
                "loop (the worker's log names it), or declare this tool with `async def`."
            ) from exc

    def _at_most(self, seconds: float) -> float:
        """Return *seconds*, or what is left of them until all calls have to end."""
        return seconds if self._until is None else max(0.0, min(seconds, self._until - time.monotonic()))

    def _begin(self, name: str, work: Callable[[], Any], *, is_async: bool, seat: Seat | None) -> _LoopCall | Attempt:
        loop = self._loop
        if not self._running or loop is None:
            raise NeverBegan(f"{name} was not started: the worker is stopping. Nothing took effect.")
        if not is_async:
            bound = functools.partial(contextvars.copy_context().run, work)
            return self._pool.submit(bound) if seat is None else seat.start(bound)
        call = _LoopCall(name, work)
        self._live.add(call)
        call.body.add_done_callback(lambda _: self._live.discard(call))

        def launch() -> None:
            if not call.future.cancelled():
                call.task = loop.create_task(call.drive(), name=name, context=call.context)

        try:
            loop.call_soon_threadsafe(launch)
        except RuntimeError:  # closed between the check and here
            call.future.cancel()
        return call

    def _withdraw(self, call: _LoopCall | Attempt) -> bool:
        """Take *call* back if it has not begun; return whether it had not."""
        if not call.future.cancel():
            return False
        if isinstance(call, Attempt):
            self._pool.leave(call)
        return True

    def _give_up(self, name: str, call: _LoopCall | Attempt) -> bool:
        """Stop waiting for *call*; return True if it had not begun and now never will."""
        if isinstance(call, Attempt):
            if self._pool.leave(call):
                return True
            log.warning("a sync tool was given up; its thread runs on", tool=name, left=self.left)
        else:
            if call.future.cancel():
                return True
            if self._loop is not None:
                with suppress(RuntimeError):  # closed: nothing is left to cancel
                    self._loop.call_soon_threadsafe(call.cancel)
        return False

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be the tool loop's thread."""
        try:
            loop.run_until_complete(self._until_stopped())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
            for call in list(self._live):
                call.loop_closed()  # nobody shall wait for it
            self._over.set_result(None)

    async def _until_stopped(self) -> None:
        await self._stopping.wait()
        me = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not me]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _never_began(name: str, waited: float) -> NeverBegan:
    return NeverBegan(
        f"{name} was not started: for {waited:.1f} s, no thread was free or another function blocked its event loop. "
        "Nothing took effect. Raise HOLDFAST_TOOL_THREADS or fix the function that hangs."
    )


def _task_of_call(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Give tasks that a tool makes the tool's own name, for the watchdog, and count them as part of its call."""
    parent = asyncio.current_task(loop)
    if options.get("name") is None and parent is not None:
        options["name"] = parent.get_name()
    task = asyncio.Task(coro, loop=loop, **options)
    context: contextvars.Context | None = options.get("context")
    call = _CALL.get() if context is None else context.get(_CALL)
    if call is not None:
        call.add(task)
    return task


def _tame(name: str, error: BaseException) -> BaseException:
    """Keep an outcome from being taken for the worker's own cancellation or exit."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | FutureCancelled):
        return error
    tamed = RuntimeError(f"{name} ended with {type(error).__name__}: {error}")
    tamed.__cause__ = error
    return tamed
