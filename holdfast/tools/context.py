"""What a tool learns about the call it carries out. Built by the activities, handed to tools by the runner."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.errors import ConfigurationError
from holdfast.secrets import reveal, secret

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy
    from structlog.typing import FilteringBoundLogger

    ToolConnection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

__all__ = ["StoredReads", "StoredResult", "ToolContext"]


def _logger() -> FilteringBoundLogger:
    """Return an unbound logger. Imported late: a client that only declares tools needs no logging."""
    import structlog

    logger: FilteringBoundLogger = structlog.get_logger("holdfast.tool")
    return logger


@dataclass(frozen=True, slots=True)
class StoredResult:
    """Bytes of a large result: those from `start` on, out of `size`."""

    data: bytes
    start: int
    size: int


class StoredReads(Protocol):
    """What a tool may read of the Holdfast database: its own thread's results, and how its tenant's runs stand.

    Only for async tools. It takes names and returns values, never a connection: so no tool sees another tenant's rows.
    """

    async def result(self, handle: str, start: int = 0, length: int | None = None) -> StoredResult | None:
        """Return bytes of a large result of this thread; None: it has none of that handle."""
        ...

    async def runs(self, prefix: str) -> list[dict[str, Any]]:
        """Return how those of the tenant's runs stand whose id begins with *prefix*: two at most, no texts."""
        ...


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """A tool call as its tool sees it. A tool that declares a parameter of this type gets it; the model never sees it.

    Attributes:
        idempotency_key: the same for every try of one call, different for any other call (64 hex digits). Send it to
            a remote that honours such keys.
        tenant: whose thread it is.
        thread: the conversation.
        run_id: the run that made the call.
        step_no: number of the call's step in the thread.
        attempt: 1 for the first try.
        deadline: when the call is given up, on the clock of `time.monotonic()`.
        log: logger with thread, run and step already bound.

    """

    idempotency_key: str
    tenant: str
    thread: str
    run_id: str
    step_no: int
    deadline: float
    attempt: int = 1
    log: FilteringBoundLogger = field(default_factory=_logger, repr=False, compare=False)
    _connection: Any = field(default=None, repr=False, compare=False)
    _stored: StoredReads | None = field(default=None, repr=False, compare=False)

    @property
    def remaining(self) -> float:
        """Seconds left before the deadline, never below 0."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def connection(self) -> ToolConnection:
        """The connection whose open transaction also holds the ledger row: what is written on it happens once.

        Raises:
            ConfigurationError: the tool is not declared as `local_tx`.

        """
        if self._connection is None:
            raise ConfigurationError(
                "ctx.connection is there only for tools declared with effect='local_tx', which write the Holdfast "
                "database. Declare the tool so, or open a connection of your own."
            )
        connection: ToolConnection = self._connection
        return connection

    @property
    def stored(self) -> StoredReads:
        """Reads of what this thread has stored, for async tools that change nothing.

        Raises:
            ConfigurationError: this context was made without a database, as in a test.

        """
        if self._stored is None:
            raise ConfigurationError(
                "ctx.stored is there only where a worker runs the tool: there is no database behind this context."
            )
        return self._stored

    async def secret(self, name: str) -> str:
        """Return the value of a secret, for async tools: from the stores of plugins, the environment, or `.env`.

        It is masked wherever it leaks into a result or an error.

        Raises:
            MissingSecret: it is not set. Let it pass: the model reads that nothing was sent.

        """
        return await reveal(secret(name))

    def with_connection(self, connection: ToolConnection) -> ToolContext:
        """Return a copy whose `connection` is *connection*, for a `local_tx` tool inside its transaction."""
        return dataclasses.replace(self, _connection=connection)
