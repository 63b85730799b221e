"""Replaces the agent workers of a stack while runs are under way. Only the supervisor uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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

    async def roll(self, may_go_on: Callable[[], bool], first: Callable[[], None] | None) -> Rolled:
        """Replace the workers by as many as the settings say, which start together, as at the start of the stack.

        An old worker drains for each new one that is ready. With *first*, all of them drain as soon as one new worker
        is ready, and *first* is called: from then on no work meets old code. A worker that refuses its configuration
        takes nothing away: the roll ends, and old workers that have not been replaced go on as they were. It ends also
        when *may_go_on* says no.
        """
        supervisor = self._supervisor
        while len(self._draining) >= _MOST_DRAINING:
            supervisor.notify(f"{len(self._draining)} old workers still finish their calls: the restart waits for one")
            await asyncio.wait(self._draining.values(), return_when=asyncio.FIRST_COMPLETED)
        old = [child for child in supervisor.workers if child not in self._draining]
        wanted = max(len(old), supervisor.settings.workers)
        supervisor.notify(f"rolling restart: {wanted} new workers start; the old ones take work until then")
        fresh = [supervisor.add_worker(old[0].spec) for _ in range(wanted)]
        timeout = supervisor.settings.scaled(supervisor.settings.start_timeout)
        waits = [asyncio.create_task(child.wait_ready(timeout=timeout)) for child in fresh]
        replaced = 0
        try:
            for coming in asyncio.as_completed(waits):
                try:
                    await coming
                except HoldfastError as exc:
                    stay = f"{' and '.join(child.spec.name for child in old)} keep running" if old else "fewer run"
                    supervisor.notify(f"rolling restart ended, {stay}: {str(exc).splitlines()[0]}")
                    return "refused" if isinstance(exc, ConfigurationError) else "late"
                if not may_go_on():
                    supervisor.notify("rolling restart ended: the agents file has changed since")
                    return "changed"
                replaced += 1
                for child in [old.pop(0) for _ in range(len(old) if first is not None else min(1, len(old)))]:
                    self._leave(child)
                if first is not None and replaced == 1:
                    first()
                    supervisor.notify("the first new worker takes runs; the old ones finish their calls and end")
        finally:
            await self._clear(fresh, waits, replaced)
        supervisor.notify("rolling restart done")
        return "done"

    async def _clear(self, fresh: list[ChildProcess], waits: list[asyncio.Task[None]], replaced: int) -> None:
        """Take away new workers that replace nobody, where a roll ends early."""
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        ready = [child for child in fresh if child.state == "ready"]
        for child in ready[replaced:]:
            self._leave(child)  # it may have a call in flight already
        late = [child for child in fresh if child.state != "ready" and child not in self._draining]
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
            self._supervisor.notify(f"{child.spec.name} finishes its calls in flight, for {grace:.0f} s at most")
            await going
            self._supervisor.notify(f"{child.spec.name} has finished its calls")

    async def close(self) -> None:
        """Wait for the workers that drain: the supervisor has asked them to stop in its own time."""
        await asyncio.gather(*self._draining.values(), return_exceptions=True)
