"""Writes down when the machine had no time; drives run it beside them, and the auditor reads what it wrote."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from tests.conformance.stage import now

__all__ = ["pulse"]

_PULSE, _SPAN = 0.5, 5.0  # seconds between two looks at the machine, and after which what was seen is written down
_LOAD = 3.0  # processes that want to run, for each core, above which the machine has no time


async def pulse(note: Callable[[str, tuple[Any, ...]], Awaitable[object]]) -> None:
    """Look until cancelled: on such a machine workers miss their heartbeats with nobody's doing."""
    began: datetime | None = None
    while True:
        at = now()
        await asyncio.sleep(_PULSE)
        late = (now() - at).total_seconds() > 2 * _PULSE
        starved = late or os.getloadavg()[0] > _LOAD * (os.cpu_count() or 1)
        if starved:
            began = began or at
        if began is not None and (not starved or (now() - began).total_seconds() > _SPAN):
            await note("insert into evidence.starved values ($1, $2)", (began, now()))
            began = now() if starved else None
