"""What the ledger machine holds against every step: which changes of a row are lawful, and what must be true of a row.

Written from docs/howto/effects.md, without the ledger's own code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.conformance.ledger.remote import Remote, Violation

__all__ = ["Row", "demand", "standing", "transition"]

LAWFUL = {
    None: {"in_flight", "done"},  # at once done: `pure`
    "in_flight": {"in_flight", "done", "failed", "in_doubt"},
    "in_doubt": {"in_doubt", "done", "failed", "retry_ok", "abandoned"},  # failed: late proof by its owner
    "failed": {"failed", "in_flight"},
    "retry_ok": {"retry_ok", "in_flight"},
    "done": {"done", "in_doubt"},
    "abandoned": {"abandoned", "in_doubt"},
}
BY_A_PERSON = {("in_doubt", "retry_ok"), ("in_doubt", "abandoned")}


@dataclass(frozen=True, slots=True)
class Row:
    """A ledger row as it stands. *lease_left* is in seconds and no part of what it is."""

    state: str
    fence: int
    owner: str | None
    args: str
    lease_until: datetime | None
    sent_at: datetime | None
    deadline: datetime | None
    sends: int
    result: str | None
    error: str | None

    @property
    def outcome(self) -> dict[str, Any] | None:
        """The stored result."""
        return None if self.result is None else json.loads(self.result)

    @property
    def final(self) -> bool:
        """Whether nothing may ever change any more."""
        return self.state in ("done", "abandoned") or (self.state == "failed" and self.result is not None)


def demand(condition: object, what: str, *about: object) -> None:
    """Raise a violation unless *condition* holds."""
    if not condition:
        raise Violation(" | ".join([what, *map(str, about)]))


def transition(before: Row | None, after: Row | None, *, fence: int | None, claims: bool, person: bool) -> None:
    """Check one change. *fence* is that of the owner who acted; None when two acted, or nobody with a fence."""
    if before is None and after is None:
        return
    demand(after is not None, "a row vanished", before)
    assert after is not None
    old = None if before is None else before.state
    demand(after.state in LAWFUL[old], f"{old} became {after.state}", before, after)
    if before is None:
        demand(after.fence == 1 or (fence is None and after.fence == 2), "a fence began elsewhere than at 1", after)
        return
    demand(after.fence >= before.fence, "a fence fell", before, after)
    other = claims and (after.args != before.args or "other arguments" in (after.error or ""))
    if before.final and not other:
        demand(after == before, f"a row that was {before.state} for good changed", before, after)
    if before.state in ("done", "abandoned", "in_doubt") and after.args != before.args:
        demand(after.state == "in_doubt", "what took effect is a call of other arguments now", before, after)
    if after.fence > before.fence:
        demand(claims, "somebody raised the fence who did not claim", before, after)
        demand(after.state == "in_flight" or fence is None, "a take-over that is not in flight", before, after)
    if fence is not None and fence != before.fence and not claims:
        demand(after == before, f"an owner with fence {fence} changed a row at fence {before.fence}", before, after)
    if after.state == "in_flight" and before.state in ("failed", "retry_ok"):
        demand(after.fence > before.fence, "tried again under the old fence", before, after)
    if (old, after.state) == ("in_doubt", "failed"):
        demand(after.final and after.fence == before.fence, "a doubt became a try that may be repeated", before, after)
    if (old, after.state) in BY_A_PERSON:
        demand(person, f"{old} became {after.state} without a person", before, after)


def standing(row: Row | None, remote: Remote, *, given_up: bool) -> None:
    """Check what must be true at all times. *given_up*: a person said `abandon`."""
    if remote.kind != "pure":
        demand(len(remote.unexcused) <= 1, "an effect took place twice", remote.effects, row)
    if row is None:
        demand(not remote.effects, "an effect without a row", remote.effects)
        return
    if row.state == "in_doubt":
        demand(row.sent_at is not None or remote.effects, "in doubt without having been sent", row)
    if row.state in ("failed", "retry_ok"):
        demand(not remote.unexcused, f"{row.state}, and it took effect", row, remote.effects)
    if row.state == "abandoned":
        demand(given_up, "abandoned by nobody", row)
    if row.state == "done":
        outcome = row.outcome
        demand(outcome is not None, "done without a result", row)
        assert outcome is not None
        if remote.kind != "pure":
            effect = remote.of(outcome["receipt"])
            demand(effect is not None, "done, and it did not take effect", row, remote.effects)
            assert effect is not None
            demand(effect.args == row.args, "the result is of other arguments", row, effect)
