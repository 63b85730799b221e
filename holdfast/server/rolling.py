"""Replaces the agent workers of a stack while runs are under way. Only the supervisor uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from holdfast.errors import ConfigurationError, HoldfastError

if TYPE_CHECKING:
    from holdfast.server.processes import ChildProcess
    from holdfast.server.supervisor import Supervisor

__all__ = ["Roll", "Rolled"]

Rolled: TypeAlias = Literal["done", "changed", "refused", "late"]

_DRAIN_MARGIN: Final = 5.0  # seconds a worker has beyond `shutdown_grace` to close its connections and exit
_TELL: Final = 3.0  # seconds after which a worker that still drains is told of
_MOST_DRAINING: Final = 8  # old workers at once; a further restart waits for one to end


class Roll:
    """Starts new workers, and lets an old one drain for each that is ready.

    An old worker takes no more work, but ends only when its calls have ended, or after `shutdown_grace`: a call of a
    `once` tool that is cut off would be in doubt. Nobody waits for that, so a slow call holds no restart up.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        """Do nothing yet."""
        self._supervisor = supervisor
        self._draining: dict[ChildProcess, asyncio.Task[None]] = {}

    async def roll(self, may_go_on: Callable[[], bool], first: Callable[[], Awaitable[None]] | None) -> Rolled:
        """Replace the workers by as many as the settings say, which start together, as at the start of the stack.

        An old worker drains for each new one that is ready. With *first*, all of them drain as soon as one new worker
        is ready, and *first* is awaited: from then on no work meets old code. A worker that refuses its configuration
        takes nothing away: the roll ends, and old workers that have not been replaced go on as they were. It ends also
        when *may_go_on* says no.
        """
        supervisor = self._supervisor
        while len(self._draining) >= _MOST_DRAINING:
            supervisor.notify(
                f"{len(self._draining)} old workers are still finishing their calls: the restart waits for one of them"
            )
            await asyncio.wait(self._draining.values(), return_when=asyncio.FIRST_COMPLETED)
        old = [child for child in supervisor.workers if child not in self._draining]
        wanted = max(len(old), supervisor.settings.workers)
        supervisor.notify(
            f"rolling restart: starting {wanted} new workers; the old ones take work until the first is ready"
        )
        timeout = supervisor.settings.scaled(supervisor.settings.start_timeout)
        fresh = [supervisor.add_worker(old[0].spec) for _ in range(wanted)]
        coming = {asyncio.create_task(child.wait_ready(timeout=timeout)): child for child in fresh}
        try:
            return await self._replace(old, coming, may_go_on, first)
        finally:
            await self._clear(coming)

    async def _replace(
        self,
        old: list[ChildProcess],
        coming: dict[asyncio.Task[None], ChildProcess],
        may_go_on: Callable[[], bool],
        first: Callable[[], Awaitable[None]] | None,
    ) -> Rolled:
        """Let old workers go as new ones are ready, which leave *coming*; what is left there at the end is not used."""
        notify = self._supervisor.notify
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                failure = task.exception()
                if failure is not None:
                    if not isinstance(failure, HoldfastError):
                        raise failure
                    stay = (
                        f"{' and '.join(child.spec.name for child in old)} keep running"
                        if old
                        else "fewer workers run now"
                    )
                    notify(f"rolling restart ended, {stay}: {str(failure).splitlines()[0]}")
                    return "refused" if isinstance(failure, ConfigurationError) else "late"
                if not may_go_on():
                    notify("rolling restart ended: the agents file has changed since")
                    return "changed"
                del coming[task]
                leaving, old[:] = (old[:], []) if first is not None else (old[:1], old[1:])
                for child in leaving:
                    self._leave(child)
                if first is not None and leaving:
                    await first()
                    notify(
                        "the first new worker is ready and takes new work; the old workers finish their calls and exit"
                    )
        notify("rolling restart done")
        return "done"

    async def _clear(self, coming: dict[asyncio.Task[None], ChildProcess]) -> None:
        """Take away new workers that replace nobody, where a roll ends early."""
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        late = []
        for child in coming.values():
            if child.state == "ready":
                self._leave(child)  # it may have a call in flight already
            else:
                late.append(child)
        await asyncio.gather(*(self._supervisor.drop(child, timeout=1.0) for child in late))

    def _leave(self, child: ChildProcess) -> None:
        task = asyncio.create_task(self._drain(child), name=f"drain {child.spec.name}")
        self._draining[child] = task
        task.add_done_callback(lambda _: self._draining.pop(child))

    async def _drain(self, child: ChildProcess) -> None:
        """Let a worker finish its calls, and say so where that takes long."""
        grace = self._supervisor.settings.shutdown_grace
        going = asyncio.create_task(self._supervisor.drop(child, timeout=grace + _DRAIN_MARGIN))
        done, _ = await asyncio.wait([going], timeout=_TELL)
        if not done:
            self._supervisor.notify(f"{child.spec.name} is finishing its calls in flight, for at most {grace:.0f} s")
            await going
            self._supervisor.notify(f"{child.spec.name} has finished its calls")

    async def close(self) -> None:
        """Wait for the workers that drain: the supervisor has asked them to stop in its own time."""
        await asyncio.gather(*self._draining.values(), return_exceptions=True)
