"""The person of a drive: decides approvals, says of each call in doubt what the recorder says. Words are said again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp

from holdfast.errors import HoldfastError
from tests.conformance.stage import Stage

__all__ = ["Person"]

_SURE = 2.0  # seconds after the ledger's own deadline until this person believes that nothing will arrive any more


class Person:
    """Run `serve` beside the drive; cancel it at the end."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._busy: dict[str, asyncio.Task[None]] = {}
        self.refusals: Counter[str] = Counter()  # words that had to be said again, by the error

    async def serve(self) -> None:
        """Look for what waits, over and over."""
        async with aiohttp.ClientSession() as http:
            try:
                while True:
                    for row in await self._stage.rows(
                        "select run_id::text, step_no from holdfast.approvals where state = 'pending'"
                    ):
                        self._begin(f"{row['run_id']}:{row['step_no']}", self._decide(row))
                    for row in await self._stage.rows(
                        "select key, run_id::text, step_no, tool, coalesce(clock_timestamp() > greatest(lease_until, "
                        "deadline) + make_interval(secs => $1), true) as sure from holdfast.effects "
                        "where state = 'in_doubt'",
                        _SURE,
                    ):
                        self._begin(row["key"], self._resolve(http, row))
                    await asyncio.sleep(0.25)
            finally:
                for task in self._busy.values():
                    task.cancel()
                await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def _begin(self, about: str, word: Any) -> None:  # Any: a coroutine
        task = self._busy.get(about)
        if task is not None and not task.done():
            word.close()
            return
        if task is not None:
            task.result()
        self._busy[about] = asyncio.create_task(self._say(word))

    async def _say(self, word: Any) -> None:
        try:
            await word
        except HoldfastError as exc:
            self.refusals[type(exc).__name__] += 1
            await asyncio.sleep(0.5)

    async def _decide(self, row: dict[str, Any]) -> None:
        run = await self._stage.client.get(row["run_id"])
        if int(row["run_id"][:4], 16) % 4 == 0:
            await run.reject(str(row["step_no"]), reason="not today", actor="person")
        else:
            await run.approve(str(row["step_no"]), actor="person")

    async def _resolve(self, http: aiohttp.ClientSession, row: dict[str, Any]) -> None:
        async with http.get(f"{self._stage.url}/lookup/{row['tool']}/{row['key']}") as answer:
            arrived = str((await answer.json())["result"]) if answer.status == 200 else None
        if arrived is None and not row["sure"]:
            return
        run = await self._stage.client.get(row["run_id"])
        if arrived is not None:
            await run.resolve(row["step_no"], done=arrived, actor="person")
        else:
            await run.resolve(row["step_no"], not_done=True, actor="person")
