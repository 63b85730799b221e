"""Guards of the ledger switched off, and places where a process stops or dies; only the nursery installs these.

`off:…` removes a guard from the product. `stop:…` and `die:…` make the schedule certain that needs the guard: they
strike once in a world, whichever process gets there first.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import asyncpg
from temporalio.worker._activity import _RunningActivity

from holdfast.activities import admit, interceptor
from holdfast.activities.model import ModelActivities
from holdfast.memory import ledger
from holdfast.memory.queries import queries

__all__ = ["SWITCHES", "install"]


def install(names: Iterable[str]) -> None:
    """Switch these off, or on."""
    for name in names:
        SWITCHES[name]()


def _patch(where: Any, name: str, new: Any) -> None:  # Any: a module or a class, and a function of it
    assert hasattr(where, name), f"{where} has no {name} now: mend this switch"
    setattr(where, name, new)


def _first() -> bool:
    """Whether nobody in this world was here before."""
    try:
        os.close(os.open(os.environ["CONFORMANCE_MARK"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _edit(room: str, name: str, *changes: tuple[str, str]) -> None:
    """Change the text of a query."""
    found = queries(room)
    for old, new in changes:
        assert old in found[name], f"{room}.{name} reads otherwise now: mend this switch"
        found[name] = found[name].replace(old, new)


def _ledger_off() -> None:
    """Every claim goes ahead and nothing is remembered of guarded calls; model calls and `pure` steps stay recorded."""

    async def claim(*_: Any) -> ledger.Claim:
        return ledger.Claim("go", fence=1)

    async def yes(*_: Any) -> bool:
        return True

    async def nothing(*_: Any) -> None:
        return None

    async def complete(*_: Any) -> str:
        return "in_flight"

    stand_ins = {"claim": claim, "guard": yes, "renew": yes, "fail": yes, "doubt": yes, "release": nothing}
    for name, stand_in in {**stand_ins, "complete": complete}.items():
        _patch(ledger, name, stand_in)


def _fence_off() -> None:
    """Whoever once claimed a call may send it, whatever happened since."""
    _edit(
        "ledger",
        "guard",
        ("fence = $2 and state = 'in_flight'", "$2::int > 0"),
        ("held.lease_until > clock_timestamp()", "true"),
    )


def _lease_off() -> None:
    """Nobody waits until the lease of another owner has run out, or its request has settled."""
    lease = "extract(epoch from lease_until - clock_timestamp())::float8"
    settle = "extract(epoch from lease_until + settle - clock_timestamp())::float8"
    _edit("ledger", "lock", (lease, "0::float8"), (settle, "0::float8"))


def _transaction_off() -> None:
    """The ledger row is completed in a transaction of its own, before the slot and the effect."""
    together = ledger.complete

    async def apart(_: Any, key: str, fence: int, args_hash: str, result: dict[str, Any]) -> Any:
        url = os.environ["HOLDFAST_DATABASE_URL"]
        own = await asyncpg.connect(url, server_settings={"search_path": "holdfast"})
        done = await together(own, key, fence, args_hash, result)
        await own.close()
        return done

    _patch(ledger, "complete", apart)


def _message_id_off() -> None:
    """Every message that reaches a workflow is a new one."""
    _patch(admit, "run_id_for", lambda *_: str(uuid.uuid4()))


def _writer_off() -> None:
    """Whoever once wrote a thread may go on writing it, even when another has taken it over."""
    for name in ("hold_for_writer", "lock_for_writer"):
        _edit("threads", name, ("writer = $3", "$3::text <> ''"))


def _stop_at_guard() -> None:
    """Freeze between claim and guard."""
    guard = ledger.guard

    async def stopping(conn: Any, key: str, fence: int, deadline: float) -> bool:
        if _first():
            os.kill(os.getpid(), signal.SIGSTOP)
        return await guard(conn, key, fence, deadline)

    _patch(ledger, "guard", stopping)


def _stop_at_reply() -> None:
    """Freeze between a model's reply and its commit."""
    commit = ModelActivities._commit

    async def stopping(self: ModelActivities, *args: Any) -> Any:
        if _first():
            os.kill(os.getpid(), signal.SIGSTOP)
        return await commit(self, *args)

    _patch(ModelActivities, "_commit", stopping)


def _die_at_complete() -> None:
    """Die between the completion of a ledger row and the commit of its transaction."""
    complete = ledger.complete

    async def dying(conn: Any, key: str, fence: int, args_hash: str, result: dict[str, Any]) -> Any:
        done = await complete(conn, key, fence, args_hash, result)
        if _first():
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    _patch(ledger, "complete", dying)


def _mute() -> None:
    """Never beat: Temporal takes every slow activity of this process for lost, and has it tried again."""

    async def silent(_: float) -> None:
        await asyncio.Event().wait()

    _patch(interceptor, "_beat", silent)


def _deaf() -> None:
    """Never hear that an activity is cancelled: that is a courtesy of Temporal's, and no guard."""
    _patch(_RunningActivity, "cancel", lambda *_, **__: None)


SWITCHES: dict[str, Callable[[], None]] = {
    "off:ledger": _ledger_off,
    "off:fence": _fence_off,
    "off:lease": _lease_off,
    "off:transaction": _transaction_off,
    "off:message_id": _message_id_off,
    "off:writer": _writer_off,
    "stop:guard": _stop_at_guard,
    "stop:reply": _stop_at_reply,
    "die:complete": _die_at_complete,
    "mute": _mute,
    "deaf": _deaf,
}
