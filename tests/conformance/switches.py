"""Guards of the product switched off, one function each; only the nursery installs these, and traps beside them."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import asyncpg

from holdfast.activities import admit, model
from holdfast.activities.effects import EffectCall
from holdfast.activities.model import ModelActivities
from holdfast.contracts import Budget, Call, Run
from holdfast.memory import decisions, ledger, longterm, runs
from holdfast.memory.queries import queries
from tests.conformance.traps import TRAPS, View, replace

__all__ = ["SWITCHES", "install"]


def install(names: Iterable[str]) -> None:
    """Switch these guards off, and set these traps."""
    for name in names:
        ({**SWITCHES, **TRAPS})[name]()


def _edit(room: str, name: str, *changes: tuple[str, str]) -> None:
    """Change the text of a query."""
    found = queries(room)
    for old, new in changes:
        assert old in found[name], f"{room}.{name} reads otherwise now: mend this switch"
        found[name] = found[name].replace(old, new)


def _ledger() -> None:
    """Every claim goes ahead and nothing is remembered of guarded calls; model calls and `pure` steps stay recorded."""

    async def claim(*_: Any) -> ledger.Claim:
        return ledger.Claim("go", fence=1)

    async def yes(*_: Any) -> bool:
        return True

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    async def complete(*_: Any) -> str:
        return "in_flight"

    stand_ins = {"claim": claim, "guard": yes, "renew": yes, "fail": yes, "doubt": yes, "release": nothing}
    for name, stand_in in {**stand_ins, "complete": complete}.items():
        replace(ledger, name, stand_in)


def _fence() -> None:
    """Whoever once claimed a call may send it, although another has claimed it since."""
    _edit("ledger", "guard", ("fence = $2 and", "$2::int > 0 and"))


def _lease() -> None:
    """Nobody waits until the lease of another owner has run out; so there is nothing its settle time counts from."""
    lease = "extract(epoch from lease_until - clock_timestamp())::float8"
    settle = "extract(epoch from lease_until + settle - clock_timestamp())::float8"
    _edit("ledger", "lock", (lease, "0::float8"), (settle, "0::float8"))


def _settle() -> None:
    """Nobody waits until a lost owner's request must have landed, before looking it up."""
    _edit("ledger", "lock", ("lease_until + settle - clock_timestamp()", "lease_until - clock_timestamp()"))


def _look_up() -> None:
    """Nobody looks a request up that a lost owner sent."""

    async def nothing(_: EffectCall) -> None:
        return None

    replace(EffectCall, "_look", nothing)


def _deadline() -> None:
    """A person's "not done" is accepted at once."""
    _edit("ledger", "lock", ("greatest(lease_until, deadline) - clock_timestamp()", "interval '0'"))


def _transaction() -> None:
    """The ledger row is completed in a transaction of its own, before the slot and the effect."""
    together = ledger.complete

    async def apart(_: Any, key: str, fence: int, args_hash: str, result: dict[str, Any]) -> Any:
        url = os.environ["HOLDFAST_DATABASE_URL"]
        own = await asyncpg.connect(url, server_settings={"search_path": "holdfast"})
        done = await together(own, key, fence, args_hash, result)
        await own.close()
        return done

    replace(ledger, "complete", apart)


def _message_id() -> None:
    """Every message that reaches a workflow is a new one."""
    replace(admit, "run_id_for", lambda *_: str(uuid.uuid4()))


def _writer() -> None:
    """Whoever once wrote a thread may go on writing it, even when another has taken it over."""
    for name in ("hold_for_writer", "lock_for_writer"):
        _edit("threads", name, ("writer = $3", "$3::text <> ''"))


def _first_reply() -> None:
    """A second attempt at a model call commits its reply, too."""
    kept = "where effects.class = 'pure' and effects.state = 'failed' and effects.result is null"
    _edit("ledger", "insert_done", (kept, ""))


def _recorded_reply() -> None:
    """A model step does not look whether its reply is recorded; whoever lost a race still does."""
    asked: set[Any] = set()

    async def stored(conn: Any, key: str) -> Any:
        task = asyncio.current_task()
        if task in asked:
            return await ledger.stored(conn, key)
        asked.add(task)
        return None

    replace(model, "ledger", View(ledger, stored=stored))


def _approval() -> None:
    """No call waits for its approval."""
    read = ModelActivities._read_call

    def hasty(self: ModelActivities, *args: Any, **more: Any) -> tuple[Call, str | None]:
        call, why = read(self, *args, **more)
        if call.state == "approval":
            call.state = "ready"
        return call, why

    replace(ModelActivities, "_read_call", hasty)


def _audit_row() -> None:
    """A decision counts, and nobody writes down who made it."""

    async def forgetful(*_: Any, **__: Any) -> bool:
        return True

    replace(decisions, "audit", forgetful)


def _budget() -> None:
    """A run is not told its budget."""
    read = runs._run

    def generous(row: Any, body: Any) -> Run:
        return read(row, body).model_copy(update={"budget": Budget()})

    replace(runs, "_run", generous)


def _event_number() -> None:
    """Events are numbered by a sequence: it does not go back with a transaction. Needs `create sequence numbers`."""
    assert "heads.seq + 1" in queries("events")["emit"], "events.emit reads otherwise now: mend this switch"
    queries("events")["emit"] = "insert into events select $1, nextval('numbers'), $2, $3 returning seq"


def _one_memory() -> None:
    """What is remembered again is remembered twice."""
    replace(longterm, "point_id", lambda _: str(uuid.uuid4()))


SWITCHES: dict[str, Callable[[], None]] = {
    "off:ledger": _ledger,
    "off:fence": _fence,
    "off:lease": _lease,
    "off:settle": _settle,
    "off:look_up": _look_up,
    "off:deadline": _deadline,
    "off:transaction": _transaction,
    "off:message_id": _message_id,
    "off:writer": _writer,
    "off:first_reply": _first_reply,
    "off:recorded_reply": _recorded_reply,
    "off:approval": _approval,
    "off:audit_row": _audit_row,
    "off:budget": _budget,
    "off:event_number": _event_number,
    "off:one_memory": _one_memory,
}
