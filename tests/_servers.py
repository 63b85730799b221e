"""The servers of a test session without any worker: the embedded stack's own Temporal and PostgreSQL."""

from __future__ import annotations

import asyncio
import sys

from holdfast.server import run_stack
from holdfast.settings import load_settings

if __name__ == "__main__":
    asyncio.run(
        run_stack(
            load_settings(),
            on_ready=lambda _: (sys.stdout.write("READY\n"), sys.stdout.flush(), None)[-1],
            workers=lambda _info, _settings: [],
        )
    )
