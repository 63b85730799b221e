"""The nursery of `resume`, whose workers can die in a commit: `python -m scripts.bench_kit.deaths`, told by `crew`.

A death waits until as many calls as shall die together (BENCH_DIE_WITH) have come to the same point, once they are let
go on (the file `go` in BENCH_MARKS); then the process kills itself, and leaves the time in the file `died`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.activities.effects import EffectCall
from holdfast.activities.model import MODEL, ModelActivities
from holdfast.memory import ledger
from tests.conformance import nursery, switches

__all__ = ["DEATHS"]

_here = 0


async def _die_together() -> None:
    global _here
    _here += 1
    if _here == int(os.environ["BENCH_DIE_WITH"]):
        (Path(os.environ["BENCH_MARKS"]) / "died").write_text(repr(time.time()))  # its last words
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.Event().wait()


def _tool_before_commit() -> None:
    """Die when the ledger row of a tool call is done and its transaction is not committed."""
    complete = ledger.complete

    async def dying(*args: Any) -> Any:
        await complete(*args)
        await _die_together()

    ledger.complete = dying  # type: ignore[assignment]


def _tool_after_commit() -> None:
    """Die when a tool call is committed and Temporal has not heard of it."""
    run = EffectCall.run

    async def dying(self: EffectCall) -> Any:
        await run(self)
        await _die_together()

    EffectCall.run = dying  # type: ignore[method-assign]


def _wait_with_the_reply() -> None:
    """Keep a model's reply until told to go on: its transaction shall not be open meanwhile."""
    commit = ModelActivities._commit
    marks = Path(os.environ["BENCH_MARKS"])

    async def waiting(self: ModelActivities, at: Any, inp: Any, *args: Any) -> Any:
        await asyncio.to_thread((marks / inp.run_id).touch)
        while not await asyncio.to_thread((marks / "go").exists):  # noqa: ASYNC110  # another process tells it
            await asyncio.sleep(0.02)
        return await commit(self, at, inp, *args)

    ModelActivities._commit = waiting  # type: ignore[method-assign, assignment]


def _model_before_commit() -> None:
    """Die when a reply is in the ledger and its transaction is not committed."""
    _wait_with_the_reply()
    record = ledger.record_pure

    async def dying(conn: Any, step: Any, *args: Any) -> bool:
        done = await record(conn, step, *args)
        if step.tool == MODEL:
            await _die_together()
        return done

    ledger.record_pure = dying  # type: ignore[assignment]


def _model_after_commit() -> None:
    """Die when a reply is committed and Temporal has not heard of it."""
    _wait_with_the_reply()
    commit = ModelActivities._commit

    async def dying(self: ModelActivities, *args: Any) -> Any:
        await commit(self, *args)
        await _die_together()

    ModelActivities._commit = dying  # type: ignore[method-assign, assignment]


def _hold_at_guard() -> None:
    """Leave a mark and stay, with the call claimed and nothing sent: whoever waits for it kills this process."""
    marks = Path(os.environ["BENCH_MARKS"])

    async def holding(conn: Any, key: str, *_: Any) -> bool:
        run = await conn.fetchval("select run_id::text from effects where key = $1", key)
        await asyncio.to_thread((marks / run).touch)
        await asyncio.Event().wait()
        return False

    ledger.guard = holding  # type: ignore[assignment]


DEATHS: dict[str, Callable[[], None]] = {
    "tool before commit": _tool_before_commit,
    "tool after commit": _tool_after_commit,
    "model before commit": _model_before_commit,
    "model after commit": _model_after_commit,
    "hold at guard": _hold_at_guard,
}

if __name__ == "__main__":
    switches.SWITCHES.update(DEATHS)
    nursery.serve()
