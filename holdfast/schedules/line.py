"""A question or word to Temporal about a schedule, said again while Temporal is away. Only the desk calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio.service import RPCError, RPCStatusCode

from holdfast.errors import HoldfastError, InvalidInput, StackError, UnknownSchedule
from holdfast.link import Link
from holdfast.wire import TRANSIENT

__all__ = ["insist"]

T = TypeVar("T")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


async def insist(link: Link, name: str, work: Callable[[], Awaitable[T]], *, again: bool = True) -> T:
    """Do *work*, with *again* once more whenever Temporal was away: it must be safe to repeat.

    Raises:
        UnknownSchedule: there is no schedule *name*.
        InvalidInput: Temporal refuses it; the message says why.
        StackError: Temporal was away for longer than `client_patience`.

    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + link.patience, _FIRST_PAUSE
    while True:
        try:
            return await work()
        except RPCError as exc:
            if exc.status not in TRANSIENT or not again or loop.time() + pause > deadline:
                raise _told(link, name, exc) from exc
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _told(link: Link, name: str, exc: RPCError) -> HoldfastError:
    why = exc.message.rstrip(".")
    if exc.status == RPCStatusCode.NOT_FOUND:
        return UnknownSchedule(f"There is no schedule {name!r}. `holdfast schedule list` shows those there are.")
    if exc.status == RPCStatusCode.INVALID_ARGUMENT:
        return InvalidInput(f"Temporal does not take the schedule: {why}.")
    return StackError(
        f"Temporal at {link.settings.temporal_address} did not carry this out: {why}. It may have taken effect: see "
        "`holdfast schedule list`; `holdfast doctor` tells what is missing."
    )
