"""Brings given servers up to date: migrations and search attributes. Run once before workers start (docker compose)."""

from __future__ import annotations

import asyncio
import os
import sys

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.search_attributes import ensure_search_attributes
from holdfast.settings import Settings, load_settings

__all__ = ["main", "prepare"]


async def prepare(settings: Settings) -> None:
    """Apply missing migrations and register missing search attributes. Several may do so at once.

    Raises:
        ConfigurationError: the settings name no Temporal server or no database.
        StackError, StorageError: a server does not answer or refuses; the message says what to do.

    """
    if settings.temporal_address is None or settings.database_url is None:
        raise ConfigurationError("Set TEMPORAL_ADDRESS and HOLDFAST_DATABASE_URL: this prepares servers of your own.")
    from holdfast.memory.database import migrate

    await migrate(settings.database_url)
    await ensure_search_attributes(settings.temporal_address, settings.temporal_namespace)


def main() -> int:
    """Prepare the servers that the environment names; return the exit code."""
    try:
        asyncio.run(prepare(load_settings()))
    except HoldfastError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # the SDK's threads, met by the interpreter on its way out, abort one end in a few (exit code 134)
