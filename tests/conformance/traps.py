"""Places where a process of the product stops, dies, hangs or falls silent; only the nursery installs these.

They make the schedule certain that needs a guard. `stop`, `die` and `hang` strike once in a world, whoever gets there
first.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

from temporalio.worker._activity import _RunningActivity

from holdfast.activities import interceptor, model
from holdfast.activities.effects import EffectCall
from holdfast.activities.model import ModelActivities
from holdfast.ids import args_hash, canonical_json
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


def _other_arguments() -> None:
    """A model step that finds its reply recorded reads other arguments there, of calls of `once_now`.

    The product records a reply with its calls, so a Reset alone brings the same again; a restored database may not.
    """

    async def stored(conn: Any, key: str) -> tuple[dict[str, Any], str] | None:
        done = await ledger.stored(conn, key)
        for call in done[0].get("calls", []) if done is not None else []:
            if call["tool"] == "once_now":
                args = {**json.loads(call["args"]), "note": "other"}
                call.update(args=canonical_json(args), args_hash=args_hash(args))
        return done

    replace(model, "ledger", View(ledger, stored=stored))


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
    "die:complete": _die_at_complete,
    "die:event": _die_at_event,
    "die:drop": _die_at_drop,
    "hang:local": _hang_after_local,
    "other:arguments": _other_arguments,
    "mute": _mute,
    "deaf": _deaf,
}
