"""Threads for synchronous tools. Only the runner uses them.

Not a ThreadPoolExecutor, for two reasons: its threads are joined at interpreter exit, so one tool that hangs would
keep a worker from ever ending; and a thread that was given up keeps its place, so a few hanging calls would stop
all other tools.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

__all__ = ["Attempt", "Ended", "Seat", "ThreadPool"]

T = TypeVar("T")

_MOST = 4  # times the limit: how many threads there may be when tools hang


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How a call ended. It travels as a value: some exceptions cannot be carried by a future."""

    value: T | None = None
    error: BaseException | None = None


@dataclass(eq=False)
class Attempt:
    """One call handed to a thread. Its future never holds an exception, always an Ended."""

    work: Callable[[], Any]
    future: Future[Ended[Any]] = field(default_factory=Future)
    left: bool = False
    queued: bool = False  # no thread was free for it at first


class ThreadPool:
    """Daemon threads, made when needed, at most *limit* that somebody still waits for."""

    def __init__(self, limit: int, name: str = "holdfast-tool") -> None:
        """Make no thread yet."""
        self._limit = limit
        self._name = name
        self._waiting: deque[Attempt] = deque()
        self._changed = threading.Condition()
        self._idle = self._threads = self._left = self._made = 0
        self._closed = False

    @property
    def left(self) -> int:
        """Threads whose call was given up and which still run."""
        return self._left

    def submit(self, work: Callable[[], Any]) -> Attempt:
        """Run *work* in a thread as soon as one is free."""
        attempt = Attempt(work)
        with self._changed:
            if self._closed:
                attempt.future.cancel()
                return attempt
            self._waiting.append(attempt)
            self._grow()
            attempt.queued = len(self._waiting) > self._idle
            self._changed.notify()
        return attempt

    def leave(self, attempt: Attempt) -> bool:
        """Give up on *attempt*. Return True if it had not begun: then it never will."""
        if attempt.future.cancel():
            with self._changed:
                if attempt in self._waiting:
                    self._waiting.remove(attempt)
            return True
        with self._changed:
            if not attempt.future.done() and not attempt.left:
                attempt.left = True
                self._left += 1
                self._grow()
        return False

    def close(self) -> None:
        """Start nothing more; idle threads end. Running ones are left to themselves."""
        with self._changed:
            self._closed = True
            for attempt in self._waiting:
                attempt.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()

    def _grow(self) -> None:
        """Add threads for what is waiting, the lock being held."""
        while (
            len(self._waiting) > self._idle
            and self._threads - self._left < self._limit
            and self._threads < self._limit * _MOST
        ):
            self._threads += 1
            self._made += 1
            self._idle += 1  # until it takes its first attempt
            threading.Thread(target=self._serve, name=f"{self._name}-{self._made}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed and self._threads - self._left <= self._limit:
                    self._changed.wait()
                self._idle -= 1
                if not self._waiting or self._threads - self._left > self._limit:
                    self._threads -= 1
                    self._changed.notify()  # what this thread was woken for may be another's
                    return
                attempt = self._waiting.popleft()
            if attempt.future.set_running_or_notify_cancel():
                ended: Ended[Any]
                try:
                    ended = Ended(attempt.work())
                except BaseException as exc:  # noqa: BLE001 - whatever a tool raises is its outcome
                    ended = Ended(error=exc)
                with self._changed:
                    if attempt.left:
                        self._left -= 1
                    attempt.future.set_result(ended)
                    self._idle += 1
                del ended
            else:
                with self._changed:
                    self._idle += 1
            del attempt


class Seat:
    """A thread that is held for a call: what must count from the call's start is done once the thread is there."""

    def __init__(self, pool: ThreadPool) -> None:
        """Queue for a thread; `taken` is done as soon as there is one."""
        self.taken: Future[None] = Future()
        self._pool = pool
        self._go = threading.Event()
        self._work: Callable[[], Any] | None = None
        self.attempt = pool.submit(self._serve)

    def start(self, work: Callable[[], Any]) -> Attempt:
        """Let the thread begin."""
        self._work = work
        self._go.set()
        return self.attempt

    def release(self) -> None:
        """Let the thread go, or leave the queue; without effect once it has begun."""
        if not self._go.is_set():
            self._pool.leave(self.attempt)
            self._go.set()

    def _serve(self) -> Any:
        self.taken.set_result(None)
        self._go.wait()
        return None if self._work is None else self._work()
