"""What an auditor is given besides the database: histories, whether they replay, model calls; and how it is called."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.worker import Replayer

from holdfast.convert import data_converter
from holdfast.runtime import MEMORY_WORKFLOWS, WORKFLOWS, workflow_runner
from tests.conformance.processes import ROOT

__all__ = ["TABLES", "export", "model_call", "rounds", "run_auditor"]

TABLES = Path(__file__).with_name("evidence.sql")


async def export(temporal: Client, queues: tuple[str, ...], folder: Path) -> AsyncIterator[tuple[str, str, str | None]]:
    """Write the history of every workflow on these queues to *folder*; yield its ids, and why it does not replay."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    replayer = Replayer(
        workflows=[*WORKFLOWS, *MEMORY_WORKFLOWS], data_converter=data_converter, workflow_runner=workflow_runner()
    )
    async for found in temporal.list_workflows(" or ".join(f"TaskQueue = '{queue}'" for queue in queues)):
        history = await temporal.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
        whole = {"workflow_id": found.id, "run_id": found.run_id, "type": found.workflow_type}
        path = folder / f"{found.id.replace(':', '_')}-{found.run_id}.json"
        path.write_text(json.dumps({**whole, **history.to_json_dict()}), encoding="utf-8")
        result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
        yield found.id, found.run_id, None if result.replay_failure is None else repr(result.replay_failure)[:2000]


def model_call(entry: dict[str, Any]) -> tuple[datetime, str, int, bool]:
    """Return (when, run, round, whether the server made it fail) of a request, read from its body alone."""
    messages = entry["body"]["messages"]
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    text = messages[last]["content"] if last >= 0 else ""
    if isinstance(text, list):
        text = "".join(str(part.get("text", "")) for part in text)
    failed = set(entry["answer"].get("fault", {})) - {"latency"}  # a late answer is one
    return datetime.fromtimestamp(entry["at"], UTC), text, rounds(messages[last + 1 :]) + 1, bool(failed)


def rounds(messages: list[dict[str, Any]]) -> int:
    """Return how many rounds a model has had after the last user message.

    Calls tell their round: of a long conversation the model is sent the end alone.
    """
    spoken = [message for message in messages if message["role"] == "assistant"]
    calls = [call["function"]["arguments"] for message in spoken for call in message.get("tool_calls") or []]
    return max([len(spoken), *(int(json.loads(arguments).get("n", 0)) for arguments in calls)])


async def run_auditor(
    recorder: Path, database: str, histories: Path, figures: Path, keep: Path | None = None
) -> tuple[int, str]:
    """Run the auditor, a program of its own, and return its exit code and table; *figures* gets its JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.conformance.audit"),
        *("--recorder", str(recorder), "--database", database, "--histories", str(histories), "--json", str(figures)),
        *(() if keep is None else ("--keep", str(keep))),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()
