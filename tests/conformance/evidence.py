"""What an auditor is given besides the database: histories, whether they replay, model calls; and how it is called."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from holdfast.convert import data_converter
from holdfast.runtime import MEMORY_WORKFLOWS, WORKFLOWS, workflow_runner
from tests.conformance.processes import ROOT
from tests.kit import PATIENCE

__all__ = ["TABLES", "export", "model_call", "replayed", "rounds", "run_auditor"]

TABLES = Path(__file__).with_name("evidence.sql")


async def export(
    temporal: Client, queues: tuple[str, ...], folder: Path
) -> AsyncIterator[tuple[str, str, str | None, int]]:
    """Write the history of every workflow on these queues to *folder*; yield its ids, and why it does not replay."""
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    replayer = Replayer(
        workflows=[*WORKFLOWS, *MEMORY_WORKFLOWS], data_converter=data_converter, workflow_runner=workflow_runner()
    )
    histories: list[WorkflowHistory] = []
    runs: list[str] = []  # after a Reset a history names an older one
    async for found in temporal.list_workflows(" or ".join(f"TaskQueue = '{queue}'" for queue in queues)):
        history = await temporal.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
        whole = {"workflow_id": found.id, "run_id": found.run_id, "type": found.workflow_type}
        path = folder / f"{found.id.replace(':', '_')}-{found.run_id}.json"
        path.write_text(json.dumps({**whole, **history.to_json_dict()}), encoding="utf-8")
        histories.append(history)
        runs.append(found.run_id)
    number = 0
    async for history, error, hangs in replayed(replayer, histories):
        yield history.workflow_id, runs[number], error, hangs
        number += 1


async def replayed(
    replayer: Replayer, histories: Sequence[WorkflowHistory], patience: float = PATIENCE
) -> AsyncIterator[tuple[WorkflowHistory, str | None, int]]:
    """Yield each history, why it does not replay, and how many times its replay did not end in time.

    On a starved machine the SDK's replayer may wait for ever for a result: that one begins anew, from this history on.
    A history at which it waits twice for longer than *patience* seconds is said not to replay.
    """
    done, stuck = 0, -1
    while done < len(histories):
        replaying = replayer.workflow_replay_iterator(_each(histories[done:]))
        results = await replaying.__aenter__()
        try:
            while done < len(histories):
                failure = (await asyncio.wait_for(anext(results), patience)).replay_failure
                yield histories[done], None if failure is None else repr(failure)[:2000], int(stuck == done)
                done += 1
        except TimeoutError:
            if stuck == done:
                yield histories[done], f"its replay did not end within {patience:.0f} s, twice", 2
                done += 1
            else:
                stuck = done
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(replaying.__aexit__(None, None, None), patience)


async def _each(histories: Sequence[WorkflowHistory]) -> AsyncIterator[WorkflowHistory]:
    for history in histories:
        yield history


def model_call(entry: dict[str, Any]) -> tuple[datetime, str, int, bool, str | None]:
    """Return (when, run, round, whether the server made it fail, who speaks) of a request, read from its body alone."""
    messages = entry["body"]["messages"]
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    text = messages[last]["content"] if last >= 0 else ""
    if isinstance(text, list):
        text = "".join(str(part.get("text", "")) for part in text)
    failed = set(entry["answer"].get("fault", {})) - {"latency"}  # a late answer is one
    speaks = re.search(r"You are (\w+)\.", str(messages[0]["content"])) if messages[0]["role"] == "system" else None
    at, number = datetime.fromtimestamp(entry["at"], UTC), rounds(messages[last + 1 :]) + 1
    return at, text, number, bool(failed), speaks and speaks[1]


def rounds(messages: list[dict[str, Any]]) -> int:
    """Return how many rounds a model has had after the last user message.

    Calls tell their round: of a long conversation the model is sent the end alone.
    """
    spoken = [message for message in messages if message["role"] == "assistant"]
    calls = [call["function"]["arguments"] for message in spoken for call in message.get("tool_calls") or []]
    return max([len(spoken), *(_round(json.loads(arguments)) for arguments in calls)])


def _round(arguments: dict[str, Any]) -> int:
    """Return the round that a call tells: what other agents are asked, or told, has it behind its name."""
    said = arguments.get("message") or arguments.get("note") or ""
    return int(arguments.get("n") or said.partition(" ")[2] or 0)


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
