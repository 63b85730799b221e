"""A world outside pytest: servers, database and folder of its own. The history recorder and the benchmarks use it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from holdfast.server import read_stack
from tests._servers import addresses
from tests.kit import World

__all__ = ["servers", "world"]


@asynccontextmanager
async def servers() -> AsyncIterator[dict[str, str]]:
    """Start Temporal and PostgreSQL as the embedded stack does, and give their addresses and a folder."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        home = Path(folder) / "home"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "TEMPORAL_"))}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("_servers.py")),
            env={**clean, "HOLDFAST_HOME": str(home), "HOLDFAST_AGENTS": str(home / "none.py")},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = await process.stdout.readline()
            info = read_stack(home)
            if info is None:
                raise RuntimeError(f"the servers did not start: {line!r}")
            yield {**addresses(info), "folder": folder}
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


@asynccontextmanager
async def world(given: dict[str, str], source: str, **settings: Any) -> AsyncIterator[World]:
    """Give a world on these servers, and end its processes afterwards."""
    made = await World.create(given, Path(tempfile.mkdtemp(prefix="world-", dir=given["folder"])), source, **settings)
    try:
        yield made
    finally:
        await made.close()
