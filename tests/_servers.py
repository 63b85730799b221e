"""The servers of a test session without any worker: the embedded stack's own Temporal and PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

from holdfast.server import StackInfo, run_stack
from holdfast.server.postgres import EmbeddedPostgres
from holdfast.settings import load_settings

__all__ = ["addresses"]


def addresses(info: StackInfo) -> dict[str, str]:
    """Return where the servers are: `database_url` as the superuser, who makes databases; workers use `owner_url`."""
    postgres = EmbeddedPostgres(info.home, urlsplit(info.database_url).port or 0)
    return {
        "temporal_address": info.temporal_address,
        "temporal_ui": info.temporal_ui or "",
        "database_url": postgres.admin_url,
        "owner_url": info.database_url,
    }


if __name__ == "__main__":
    asyncio.run(
        run_stack(
            load_settings(),
            on_ready=lambda _: (sys.stdout.write("READY\n"), sys.stdout.flush(), None)[-1],
            workers=lambda _info, _settings: [],
        )
    )
