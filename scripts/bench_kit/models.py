"""The model of the benchmarks: a scripted server without delay, in a process of its own. The benchmarks start it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["model_server"]


@asynccontextmanager
async def model_server(folder: Path, script: str, journal: Path | None = None) -> AsyncIterator[str]:
    """Serve *script* (YAML) and give the address for api_base. *journal* gets a line of JSON for each request."""
    file = folder / "script.yaml"
    file.write_text(script, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdfast.testing.model_server", "--script", str(file), "--no-bodies"),
        *(() if journal is None else ("--journal", str(journal))),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()
