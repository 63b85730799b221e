"""Places where a process of the product stops, dies, hangs or falls silent; only the nursery installs these.

They make the schedule certain that needs a guard. `stop`, `die` and `hang` strike once in a world, whoever gets there
first.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

from temporalio.worker._activity import _RunningActivity

from holdfast.activities import interceptor
from holdfast.activities.effects import EffectCall
from holdfast.activities.model import ModelActivities
from holdfast.memory import events, ledger, outbox

__all__ = ["TRAPS", "View", "replace"]


def replace(where: Any, name: str, new: Any) -> None:  # Any: a module or a class, and a function of it
    """Put *new* in the place of a function of the product."""
    assert hasattr(where, name), f"{where} has no {name} now: mend this switch"
    setattr(where, name, new)


class View:
    """A module as one other module sees it: with some functions of its own."""

    def __init__(self, real: Any, **own: Any) -> None:
        self.__dict__.update(own)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _first() -> bool:
    """Whether nobody in this world was here before."""
    try:
        os.close(os.open(os.environ["CONFORMANCE_MARK"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _strike(number: int) -> None:
    if _first():
        os.kill(os.getpid(), number)


def _stop_at_guard() -> None:
    """Freeze between claim and guard."""
    guard = ledger.guard

    async def stopping(conn: Any, key: str, fence: int, deadline: float) -> bool:
        _strike(signal.SIGSTOP)
        return await guard(conn, key, fence, deadline)

    replace(ledger, "guard", stopping)


def _stop_at_reply() -> None:
    """Freeze between a model's reply and its commit."""
    commit = ModelActivities._commit

    async def stopping(self: ModelActivities, *args: Any) -> Any:
        _strike(signal.SIGSTOP)
        return await commit(self, *args)

    replace(ModelActivities, "_commit", stopping)


def _stop_at_record() -> None:
    """Freeze in the transaction of a model's reply: it is in the thread, and in the ledger it is not."""
    record_pure = ledger.record_pure

    async def stopping(*args: Any, **more: Any) -> Any:
        _strike(signal.SIGSTOP)
        return await record_pure(*args, **more)

    replace(ledger, "record_pure", stopping)


def _die_at_complete() -> None:
    """Die between the completion of a ledger row and the commit of its transaction."""
    complete = ledger.complete

    async def dying(conn: Any, key: str, fence: int, args_hash: str, result: dict[str, Any]) -> Any:
        done = await complete(conn, key, fence, args_hash, result)
        _strike(signal.SIGKILL)
        return done

    replace(ledger, "complete", dying)


def _die_at_event() -> None:
    """Die between the event of a finished call and the commit of its transaction."""
    emit = events.emit

    async def dying(conn: Any, run_id: str, kind: str, /, **data: Any) -> int:
        seq = await emit(conn, run_id, kind, **data)
        if kind == "tool_done":
            _strike(signal.SIGKILL)
        return seq

    replace(events, "emit", dying)


def _die_at_drop() -> None:
    """Die when long-term memory has what the outbox says, and the outbox still says it."""
    drop = outbox.drop

    async def dying(conn: Any, ids: list[int]) -> None:
        _strike(signal.SIGKILL)
        await drop(conn, ids)

    replace(outbox, "drop", dying)


def _hang_after_local() -> None:
    """Never tell Temporal of a `local_tx` call that is committed."""
    local = EffectCall._local

    async def hanging(self: EffectCall) -> Any:
        outcome = await local(self)
        if _first():
            await asyncio.Event().wait()
        return outcome

    replace(EffectCall, "_local", hanging)


def _mute() -> None:
    """Never beat: Temporal takes every slow activity of this process for lost, and has it tried again."""

    async def silent(_: float) -> None:
        await asyncio.Event().wait()

    replace(interceptor, "_beat", silent)


def _deaf() -> None:
    """Never hear that an activity is cancelled: that is a courtesy of Temporal's, and no guard."""
    replace(_RunningActivity, "cancel", lambda *_, **__: None)


TRAPS: dict[str, Callable[[], None]] = {
    "stop:guard": _stop_at_guard,
    "stop:reply": _stop_at_reply,
    "stop:record": _stop_at_record,
    "die:complete": _die_at_complete,
    "die:event": _die_at_event,
    "die:drop": _die_at_drop,
    "hang:local": _hang_after_local,
    "mute": _mute,
    "deaf": _deaf,
}
