"""The effect ledger: who may do a step, whether it was sent, what became of it. See docs/howto/effects.md.

Every function takes a connection and leaves the transaction to the caller, so that a completion commits together with
the thread slot it fills. The clock is PostgreSQL's `clock_timestamp()`; seconds are plain floats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from holdfast.contracts import EffectClass
from holdfast.ids import storable
from holdfast.memory.database import Connection
from holdfast.memory.queries import queries

__all__ = [
    "Claim",
    "Settled",
    "Step",
    "claim",
    "complete",
    "doubt",
    "fail",
    "fail_for_good",
    "fail_pure",
    "fail_try",
    "fail_unsent",
    "find",
    "guard",
    "last_step",
    "late",
    "left_behind",
    "look_failed",
    "of_run",
    "ours",
    "overrun",
    "record_pure",
    "recorded_by",
    "release",
    "renew",
    "resolve",
    "stored",
    "unsend",
]

_Q = queries("ledger")

_LOST = "its worker was lost after the request was sent"
_KEY_TOO_OLD = "it was sent so long ago that the remote may have forgotten its idempotency key (key_lifetime)"
_OTHER_ARGUMENTS = (
    "the ledger has this call with different arguments, which took effect or may have taken effect: nothing was sent"
)


@dataclass(frozen=True, slots=True)
class Step:
    """What the ledger knows a call by."""

    key: str
    run_id: str
    scope: str
    step_no: int
    tool: str
    effect: EffectClass
    args_hash: str
    settle: float = 0.0
    resend: float = 86_400.0  # seconds after the first send within which a `keyed` request may be sent again


@dataclass(frozen=True, slots=True)
class Claim:
    """What the caller may do now.

    `go`: send, after the guard. `look`: ask the remote first. `wait`: claim again in so many *seconds*.
    `done`: here is the *result*. `in_doubt`, `abandoned`: not for this caller to decide. `over`: its run has ended, and
    nothing more is done for it.
    """

    kind: Literal["go", "look", "wait", "done", "in_doubt", "abandoned", "over"]
    fence: int = 0
    seconds: float = 0.0
    result: dict[str, Any] | None = None
    newly: str | None = None  # why it is in doubt, where this very claim found that it is
    sends: int = 0
    unproven: bool = False  # an earlier owner's request may have landed: this one's failure proves nothing


async def claim(conn: Connection, step: Step, owner: str, lease: float) -> Claim:
    """Take the step, or learn why not. Run it in a short transaction of its own; *owner* names one attempt."""
    status = await conn.execute(
        _Q["insert"],
        step.key,
        step.run_id,
        step.scope,
        step.step_no,
        step.tool,
        step.effect,
        step.args_hash,
        owner,
        lease,
        step.settle,
    )
    if status.endswith(" 1"):
        return Claim("go", fence=1)
    row = await conn.fetchrow(_Q["lock"], step.key)
    if row is None:  # no row is inserted for a run that has ended, and none is deleted while its run is open
        return Claim("over")
    state = row["state"]
    if row["args_hash"] != step.args_hash:
        if row["over"]:
            return Claim("over")
        return await _claim_other_arguments(conn, step, owner, lease, row)
    if state == "done" or (state == "failed" and row["result"] is not None):
        return Claim("done", fence=row["fence"], result=json.loads(row["result"]))
    if row["over"] and state != "abandoned":  # what is in flight or in doubt, a sweep or a person settles
        return Claim("over")
    if state in ("abandoned", "in_doubt"):
        return Claim(state, fence=row["fence"])
    if state == "in_flight":
        return await _claim_in_flight(conn, step, owner, lease, row)
    return await _take_over(conn, step, owner, lease, row, keep_sent=False)


async def _claim_other_arguments(conn: Connection, step: Step, owner: str, lease: float, row: asyncpg.Record) -> Claim:
    """Claim a step that the ledger has with other arguments: where those may have taken effect, a person decides.

    Nothing in the product brings them: a reply is recorded together with its calls, a decision with its arguments. A
    database restored to an earlier state may, or a mistake of ours. What was recorded moves to `late_outcomes`.
    """
    if row["state"] == "in_flight" and row["sent_at"] is None:
        return await _claim_in_flight(conn, step, owner, lease, row)
    if row["state"] in ("failed", "retry_ok"):  # proved, or said by a person: nothing took effect
        return await _take_over(conn, step, owner, lease, row, keep_sent=False)
    if row["result"] is not None:
        outcome = {"result": json.loads(row["result"]), "args_hash": row["args_hash"]}
        await late(conn, step.key, row["fence"], owner, outcome)
    await conn.execute(_Q["doubt_arguments"], step.key, step.args_hash, _OTHER_ARGUMENTS)
    return Claim("in_doubt", fence=row["fence"], newly=_OTHER_ARGUMENTS)


async def _claim_in_flight(conn: Connection, step: Step, owner: str, lease: float, row: asyncpg.Record) -> Claim:
    if step.effect == "keyed" and row["sent_at"] is not None and (row["since_sent"] or 0.0) > step.resend:
        await doubt(conn, step.key, row["fence"], _KEY_TOO_OLD)
        return Claim("in_doubt", fence=row["fence"], newly=_KEY_TOO_OLD)
    if step.effect in ("keyed", "local_tx"):
        return await _take_over(conn, step, owner, lease, row, keep_sent=row["sent_at"] is not None)
    if row["lease_left"] > 0:
        return Claim("wait", seconds=row["lease_left"])
    if row["sent_at"] is None:
        return await _take_over(conn, step, owner, lease, row, keep_sent=False)
    if step.effect == "verifiable":
        if row["settle_left"] > 0:
            return Claim("wait", seconds=row["settle_left"])
        return await _take_over(conn, step, owner, lease, row, keep_sent=True)
    await doubt(conn, step.key, row["fence"], _LOST)
    return Claim("in_doubt", fence=row["fence"], newly=_LOST)


async def _take_over(
    conn: Connection, step: Step, owner: str, lease: float, row: asyncpg.Record, *, keep_sent: bool
) -> Claim:
    fence = await conn.fetchval(_Q["take_over"], step.key, owner, step.args_hash, lease, keep_sent)
    kind: Literal["look", "go"] = "look" if keep_sent and step.effect == "verifiable" else "go"
    return Claim(kind, fence=fence, sends=row["sends"], unproven=keep_sent)


async def renew(conn: Connection, claims: Iterable[tuple[str, int]], lease: float) -> set[str]:
    """Prolong the leases of these claims, given as key and fence; return the keys of those that are prolonged.

    Left out are claims that a newer owner has or that have ended, and for this once those that another transaction has
    locked.
    """
    held = set(claims)
    rows = await conn.fetch(_Q["renew"], [key for key, _ in held], [fence for _, fence in held], lease)
    return {row["key"] for row in rows}


async def ours(conn: Connection, key: str, fence: int) -> bool:
    """Whether this claim can still complete its step, and the run it is for has not ended."""
    found: bool | None = await conn.fetchval(_Q["ours"], key, fence)
    return bool(found)


async def release(conn: Connection, key: str, fence: int, why: str | None = None) -> None:
    """Give the lease up, because the tool's body has ended without proof. *why* replaces what the row says."""
    await conn.execute(_Q["release"], key, fence, None if why is None else storable(why[:2000]))


async def overrun(conn: Connection, key: str, fence: int, why: str) -> None:
    """Write down that the body of a call that was given up still runs; its lease is renewed until it ends."""
    await conn.execute(_Q["overrun"], key, fence, storable(why[:2000]))


async def guard(conn: Connection, key: str, fence: int, deadline: float) -> bool:
    """Write down that the request is sent now, to end within *deadline* seconds. False: do not send.

    The lease has run out, another owner has the call, or its run has ended.
    """
    status: str = await conn.execute(_Q["guard"], key, fence, deadline)
    return status.endswith(" 1")


async def unsend(conn: Connection, key: str, fence: int, sends: int) -> None:
    """Take back the guard of this claim, if there was one: the tool never began, so it was no try.

    *sends* is the number that the claim had. Because it is set, not subtracted, this can be done twice.
    """
    await conn.execute(_Q["unsend"], key, fence, sends)


async def complete(
    conn: Connection, key: str, fence: int, args_hash: str, result: dict[str, Any]
) -> Literal["in_flight", "in_doubt"] | None:
    """Mark the step done; the state it had, or None when fenced out (then nothing may be written with it)."""
    before: Literal["in_flight", "in_doubt"] | None = await conn.fetchval(
        _Q["complete"], key, fence, args_hash, json.dumps(result)
    )
    return before


async def fail(conn: Connection, key: str, fence: int, error: str, result: dict[str, Any] | None = None) -> bool:
    """Mark the step failed: proved that nothing took effect. With a *result* the failure is final."""
    text = None if result is None else json.dumps(result)
    status: str = await conn.execute(_Q["fail"], key, fence, storable(error[:2000]), text)
    return status.endswith(" 1")


async def fail_for_good(
    conn: Connection, key: str, fence: int, args_hash: str, error: str, result: dict[str, Any]
) -> Literal["in_flight", "in_doubt"] | None:
    """Mark the step failed for good, proved that nothing took effect; the state it had, or None when fenced out."""
    before: Literal["in_flight", "in_doubt"] | None = await conn.fetchval(
        _Q["fail_for_good"], key, fence, args_hash, storable(error[:2000]), json.dumps(result)
    )
    return before


async def fail_try(conn: Connection, key: str, fence: int, error: str) -> bool:
    """Mark one try of a `local_tx` step as rolled back, and count it; it may be tried again."""
    status: str = await conn.execute(_Q["fail_try"], key, fence, storable(error[:2000]))
    return status.endswith(" 1")


async def fail_pure(conn: Connection, step: Step, owner: str, error: str) -> int | None:
    """Count one failed try of a pure step and return how many there were; None: it is done."""
    tries: int | None = await conn.fetchval(
        _Q["fail_pure"],
        *(step.key, step.run_id, step.scope, step.step_no, step.tool, step.args_hash),
        owner,
        storable(error[:2000]),
    )
    return tries


async def look_failed(conn: Connection, key: str, fence: int) -> int | None:
    """Count one failed look-up since the last send, give the lease up, and return how many there were.

    None: the claim is another's.
    """
    looks: int | None = await conn.fetchval(_Q["look_failed"], key, fence)
    return looks


async def fail_unsent(conn: Connection, key: str, fence: int, error: str) -> bool:
    """Mark as failed what a lost owner never sent; False when it woke and sent it, or goes on with it."""
    status: str = await conn.execute(_Q["fail_unsent"], key, fence, storable(error[:2000]))
    return status.endswith(" 1")


async def doubt(conn: Connection, key: str, fence: int, why: str) -> bool:
    """Mark a sent step in doubt; False when it was not in flight under this fence, or never sent."""
    status: str = await conn.execute(_Q["doubt"], key, fence, storable(why[:2000]))
    return status.endswith(" 1")


async def record_pure(conn: Connection, step: Step, owner: str, result: dict[str, Any]) -> bool:
    """Insert a pure step as done, in the transaction that commits its outcome. False: it was done before; roll back."""
    status: str = await conn.execute(
        _Q["insert_done"],
        step.key,
        step.run_id,
        step.scope,
        step.step_no,
        step.tool,
        step.args_hash,
        owner,
        json.dumps(result),
    )
    return status.endswith(" 1")


async def stored(conn: Connection, key: str) -> tuple[dict[str, Any], str] | None:
    """Return (result, args_hash) of a step whose outcome is recorded."""
    row = await conn.fetchrow(_Q["result"], key)
    if row is None or row["result"] is None or row["state"] not in ("done", "failed"):
        return None
    return json.loads(row["result"]), row["args_hash"]


async def recorded_by(conn: Connection, key: str, owner: str) -> bool:
    """Whether it was this attempt that recorded the step."""
    found: bool | None = await conn.fetchval(_Q["recorded_by"], key, owner)
    return bool(found)


async def late(
    conn: Connection,
    key: str,
    fence: int,
    owner: str,
    outcome: dict[str, Any],
    *,
    tokens: int = 0,
    cost_usd: float = 0.0,
) -> bool:
    """Keep the outcome of a call that was fenced out or bought twice. False: it was kept before."""
    status: str = await conn.execute(_Q["late"], key, fence, owner, json.dumps(outcome, default=str), tokens, cost_usd)
    return status.endswith(" 1")


@dataclass(frozen=True, slots=True)
class Settled:
    """Whether a person's word on a call was carried out, and if not, why."""

    accepted: bool
    why: str | None = None
    state: str | None = None


async def resolve(
    conn: Connection, key: str, outcome: Literal["done", "not_done", "abandon"], result: dict[str, Any] | None = None
) -> Settled:
    """Carry out a person's word on a step in doubt, inside the transaction that writes its audit row."""
    row = await conn.fetchrow(_Q["lock"], key)
    if row is None:
        return Settled(False, "there is no such call in the ledger")
    if row["state"] != "in_doubt":
        return Settled(False, f"the call is {row['state']}, not in doubt: nothing to resolve", row["state"])
    if outcome == "not_done" and row["lease_left"] is not None and row["lease_left"] > 0 and row["overran"]:
        return Settled(
            False,
            f"its worker still renews the lease of this call: {row['error']}. `not done` is accepted once the body "
            "has ended",
            row["state"],
        )
    if outcome == "not_done" and row["deadline_left"] is not None and row["deadline_left"] > 0:
        return Settled(
            False,
            f"the request may still be under way: say `not done` again in {row['deadline_left']:.0f} s",
            row["state"],
        )
    state = {"done": "done", "not_done": "retry_ok", "abandon": "abandoned"}[outcome]
    text = json.dumps(result) if outcome == "done" else None
    await conn.execute(_Q["settle"], key, state, text, row["error"])
    return Settled(True, state=state)


async def of_run(conn: Connection, run_id: str) -> list[asyncpg.Record]:
    """Return the ledger rows of a run, in order of its steps."""
    return await conn.fetch(_Q["of_run"], run_id)


async def find(conn: Connection, run_id: str, step_no: int) -> asyncpg.Record | None:
    """Return key, scope, tool, state, class and args_hash of a step of a run."""
    return await conn.fetchrow(_Q["find"], run_id, step_no)


async def last_step(conn: Connection, scope: str) -> int:
    """Return the highest step number that the ledger has under this scope, which is one thread's; 0 if none."""
    found: int = await conn.fetchval(_Q["last_step"], scope)
    return found


async def left_behind(conn: Connection, grace: float) -> list[asyncpg.Record]:
    """Return calls still in flight whose run has ended, or goes on under another workflow, *grace* s past lease."""
    return await conn.fetch(_Q["left_behind"], grace)
