"""What a tool may read of the database, bound to its call's thread. `tool_step` puts it into the tool's context."""

from __future__ import annotations

from typing import Any

from holdfast.memory import stored
from holdfast.memory.database import Pool
from holdfast.tools.context import StoredResult

__all__ = ["Stored"]


class Stored:
    """Reads on the tool loop's own pool, each in a read-only transaction, for one tenant and thread."""

    def __init__(self, pool: Pool, tenant: str, thread: str) -> None:
        self._pool = pool
        self._tenant = tenant
        self._thread = thread

    async def result(self, handle: str, start: int = 0, length: int | None = None) -> StoredResult | None:
        """Return bytes of a large result of this thread, or None."""
        async with self._pool.acquire() as conn, conn.transaction(readonly=True):
            found = await stored.result(conn, self._tenant, self._thread, handle, start, length)
        return None if found is None else StoredResult(found[0], start, found[1])

    async def runs(self, prefix: str) -> list[dict[str, Any]]:
        """Return how those of the tenant's runs stand whose id begins with *prefix*, two at most."""
        async with self._pool.acquire() as conn, conn.transaction(readonly=True):
            return await stored.runs_by_prefix(conn, self._tenant, prefix)
