"""Carries out what a command wants of a client: connects, works, disconnects, and says so where that takes time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.client import Client

__all__ = ["with_client"]

_TELL = 1.0  # seconds


def with_client(work: Callable[[Client], Awaitable[Any]], *, asks: bool = False, temporal: bool = False) -> Any:
    """Return what the work gives. What takes over a second says so, unless it *asks* a person itself."""

    async def body() -> Any:
        from holdfast.client import Client
        from holdfast.settings import load_settings

        async with await Client.connect(load_settings(), temporal=temporal) as client:
            return await work(client)

    async def told() -> Any:
        working = asyncio.ensure_future(body())
        done, _ = await asyncio.wait([working], timeout=None if asks else _TELL)
        if not done:
            from holdfast.cli.stack import progress
            from holdfast.cli.waiting import Waiting

            with Waiting(progress(), "waiting"):
                await asyncio.wait([working])
        return await working

    return asyncio.run(told())
