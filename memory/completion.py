"""Reads what the shell offers at Tab, by one short connection. Only the command line's completion calls it."""

from __future__ import annotations

import asyncio
from typing import Literal

from holdfast.memory.database import connect
from holdfast.memory.queries import queries

__all__ = ["offered"]

_Q = queries("completion")


async def offered(
    url: str, what: Literal["agents", "runs", "threads"], tenant: str, *, timeout: float
) -> list[tuple[str, str]]:
    """Return up to 50 names, newest first (agents: all, by name), each with a word about it.

    Raises:
        StorageError, TimeoutError: PostgreSQL does not answer within *timeout* seconds.

    """
    async with asyncio.timeout(timeout):
        conn = await connect(url, name="holdfast-completion", timeout=timeout)
        try:
            return [(row["value"], row["about"]) for row in await conn.fetch(_Q[what], tenant)]
        finally:
            conn.terminate()
