"""Records histories from a live world into `histories/`, one file per execution; `scripts/record-histories` runs it.

Committed histories are never recorded again: they stand for what runs in the field. A new version of Holdfast adds
files under its own number. Machine names, paths and process ids are taken out; nothing else is changed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHistory

import holdfast
from holdfast.testing.recording import clean_history
from tests import histories
from tests.kit import World
from tests.replay.everyday import EVERYDAY, EVERYDAY_AGENTS
from tests.replay.family import FAMILY, FAMILY_AGENTS
from tests.replay.scenarios import AGENTS, SCENARIOS, Model, Stage
from tests.standalone import servers, world

FOLDER = Path(__file__).with_name("histories")
ALL = {**SCENARIOS, **FAMILY, **EVERYDAY}


def write(name: str, chain: list[WorkflowHistory]) -> None:
    """Write a chain, each execution as a file that the Temporal Web UI and CLI could have written."""
    for number, history in enumerate(chain, 1):
        part = f"-part{number}" if len(chain) > 1 else ""
        path = FOLDER / f"{name}-{holdfast.__version__}{part}.json"
        lines = [json.dumps(event, separators=(",", ":")) for event in clean_history(history.to_json_dict())["events"]]
        path.write_text('{"events":[\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")
        sys.stdout.write(f"{path.name}: {len(history.events)} events, {path.stat().st_size:,} bytes\n")


async def chain_of(temporal: Client, made: World, workflow_id: str) -> list[WorkflowHistory]:
    """Return the whole chain of a workflow."""
    tenant = made.settings.tenant
    if workflow_id.startswith(f"{tenant}:"):
        thread = workflow_id.partition(":")[2]
        rows = await made.rows("select writer from threads where thread = $1", thread)
        return await histories.chain(temporal, workflow_id, rows[0]["writer"])
    return [await temporal.get_workflow_handle(workflow_id).fetch_history()]


async def record(names: list[str]) -> None:
    """Record the scenarios of these names."""
    FOLDER.mkdir(exist_ok=True)
    model = Model()
    async with model.serve() as models, servers() as given:
        for rolling in (False, True):
            chosen = [name for name in names if ALL[name].rolling == rolling]
            if not chosen:
                continue
            settings: dict[str, Any] = {"roll_after_events": 50} if rolling else {}
            source = AGENTS + FAMILY_AGENTS + EVERYDAY_AGENTS
            async with world(given, source, api_base=models.base_url, memory_wait=0.5, **settings) as made:
                await made.worker()
                stage = Stage(made, await made.client(), await histories.connect(made.settings), model)
                for name in chosen:
                    workflow_id = await ALL[name].play(stage)
                    write(name, await chain_of(stage.temporal, made, workflow_id))


def main(argv: list[str]) -> int:
    """Record what is named, or all that this version has not recorded yet."""
    unknown = set(argv) - set(ALL)
    if unknown:
        sys.stderr.write(f"no scenario {', '.join(sorted(unknown))}; there are: {', '.join(ALL)}\n")
        return 2
    names = [name for name in argv or ALL if argv or not list(FOLDER.glob(f"{name}-{holdfast.__version__}*.json"))]
    if not names:
        sys.stdout.write(f"every scenario is recorded for version {holdfast.__version__}\n")
        return 0
    asyncio.run(record(names))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
