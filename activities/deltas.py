"""Writes the tokens of a model call where watchers see them, a few times a second, beside the call itself."""

from __future__ import annotations

import asyncio

import structlog

from holdfast.activities.deps import Deps
from holdfast.ids import storable
from holdfast.memory import events

__all__ = ["DeltaWriter"]

_EVERY = 0.1  # seconds

log = structlog.get_logger(__name__)


class DeltaWriter:
    """One attempt's tokens, under a generation of its own. They are a courtesy: a failure to write is let go."""

    def __init__(self, deps: Deps, run_id: str, step_no: int) -> None:
        self._deps = deps
        self._run_id = run_id
        self._step_no = step_no
        self._parts: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, text: str) -> None:
        """Take a piece of the answer."""
        self._parts.append(text)
        if self._task is None:
            self._task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        """Stop writing; the reply itself is about to be committed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _serve(self) -> None:
        try:
            await self._write()
        except Exception as exc:  # noqa: BLE001  # nothing here may cost the reply, which would be bought again
            log.info("the tokens of a model call are not shown", error=repr(exc))

    async def _write(self) -> None:
        generation = None
        n = 0
        while True:
            await asyncio.sleep(_EVERY)
            if not self._parts:
                continue
            text, self._parts = storable("".join(self._parts)), []
            async with self._deps.pool.acquire() as conn:
                if generation is None:
                    generation = await events.new_generation(conn)
                await events.write_delta(conn, self._run_id, self._step_no, generation, n, text)
            n += 1
            self._deps.notifier.poke(self._run_id, 0)
