"""The events of a run and of all it asked, as one stream: a child's come inline. `RunReader.events` is made of this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from holdfast.contracts import Event

__all__ = ["with_children"]

_AHEAD = 1000  # events read that nobody has taken yet

Stream = Callable[[str, str], AsyncIterator[Event]]


class _Tree:
    def __init__(self, of: Stream) -> None:
        self._of = of
        self.told: asyncio.Queue[Event | None] = asyncio.Queue(_AHEAD)
        self.tasks: set[asyncio.Task[None]] = set()

    def grow(self, stream: AsyncIterator[Event]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._read(stream), name="events of a run")
        self.tasks.add(task)
        return task

    async def _read(self, stream: AsyncIterator[Event]) -> None:
        below: dict[str, asyncio.Task[None]] = {}
        async for event in stream:
            child = str(event.data.get("run_id"))
            if event.kind == "child_ended" and child in below:
                await below.pop(child)  # all that it did comes before the word that it ended
            await self.told.put(event)
            if event.kind == "child_started" and child not in below:
                below[child] = self.grow(self._of(child, str(event.data.get("thread"))))
        for task in below.values():  # of a run that was stopped: they are being stopped as well
            await task


async def with_children(own: AsyncIterator[Event], of: Stream) -> AsyncGenerator[Event, None]:
    """Yield the events of *own*, and between `child_started` and `child_ended` those of the child, to any depth.

    *of* gives the events of a run by its id and thread.
    """
    tree = _Tree(of)
    root = tree.grow(own)
    root.add_done_callback(lambda _: tree.tasks.add(asyncio.create_task(tree.told.put(None))))
    try:
        while (event := await tree.told.get()) is not None:
            yield event
        await root
    finally:
        for task in tree.tasks:
            task.cancel()
        await asyncio.gather(*tree.tasks, return_exceptions=True)
