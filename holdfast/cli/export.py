"""What `holdfast export` does: a run, written down for tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.decide import Done
from holdfast.cli.text import short
from holdfast.testing.recording import record

if TYPE_CHECKING:
    from holdfast.client import Client

__all__ = ["export"]


async def export(client: Client, run: str, out: Path | None) -> Done | None:
    """Write the recording of a run to *out* and say so; without one, to standard output."""
    handle = await client.get(run)
    recording = await record(handle)
    if out is None:
        sys.stdout.write(recording.text())
        return None
    recording.save(out)
    histories = sum(len(each.histories) for each in recording.runs)
    size = len(recording.text().encode())
    data = {
        "run_id": handle.run_id,
        "file": str(out),
        "bytes": size,
        "histories": histories,
    }
    line = f"wrote run {short(handle.run_id)} to {out}: {size:,} bytes, workflow histories: {histories}"
    if not histories:
        line += " (Temporal has forgotten them: only the agents can be checked against it)"
    line += "\nIt has the message, what the model said and the arguments of its calls. Read it before you commit it."
    return Done(line, data)
