"""The negative control's worker: the ledger of guarded calls forgets everything. Only the nursery loads this."""

from __future__ import annotations

from typing import Any

from holdfast.memory import ledger
from holdfast.memory.ledger import Claim

__all__ = ["install"]


def install() -> None:
    """Let every claim go ahead and remember nothing. Model calls and `pure` steps stay recorded, so that runs end."""

    async def claim(*_: Any) -> Claim:
        return Claim("go", fence=1)

    async def yes(*_: Any) -> bool:
        return True

    async def nothing(*_: Any) -> None:
        return None

    async def complete(*_: Any) -> str:
        return "in_flight"

    for name, stand_in in {
        "claim": claim,
        "guard": yes,
        "renew": yes,
        "complete": complete,
        "fail": yes,
        "doubt": yes,
        "release": nothing,
    }.items():
        setattr(ledger, name, stand_in)
