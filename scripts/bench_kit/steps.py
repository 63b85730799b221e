"""The price of a step: runs of ten model calls and nine tool calls, here and on plain Temporal loops, in turn."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast.memory.database import connect as connect_postgres
from scripts.bench_kit import report
from scripts.bench_kit.models import model_server
from scripts.bench_kit.plain import MessagesInInputs, MessagesInPostgres
from tests import histories, standalone
from tests.kit import World, until

__all__ = ["measure"]

ROUNDS = 10  # model calls of a run; one less tool call
WARM = 2  # runs of each that are not counted

AGENTS = '''
from holdfast import Agent, tool

@tool(effect="pure")
async def page(number: str) -> str:
    """Read one page."""
    return f"page {number}"

@tool(effect="once", name="page")
async def page_once(number: str) -> str:
    """Read one page."""
    return f"page {number}"

pure = Agent(name="pure", model="openai/test", tools=[page])
once = Agent(name="once", model="openai/test", tools=[page_once])
'''

SCRIPT = f"""
conversations:
  - replies:
      - call: {{page: {{number: "{{{{n}}}}"}}}}
        repeat: {ROUNDS - 1}
      - say: read
"""


@asynccontextmanager
async def plain_worker(world: World, api_base: str) -> AsyncIterator[str]:
    """Run the plain loops' worker, and give its task queue."""
    queue, ready = f"{world.settings.task_queue}-plain", world.folder / "plain.ready"
    environment = {
        "BENCH_TEMPORAL": world.settings.temporal_address or "",
        "BENCH_DATABASE": world.settings.database_url or "",
        "BENCH_API_BASE": api_base,
        "BENCH_QUEUE": queue,
        "BENCH_READY": str(ready),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.bench_kit.plain_worker"),
        env={**os.environ, "OPENAI_API_KEY": "none", **environment},
        start_new_session=True,
    )
    try:
        await until(ready.exists, "the plain worker polls")
        yield queue
    finally:
        process.kill()
        await process.wait()


async def measure(rounds: int, out: Path) -> None:
    """Run each loop in turn, *rounds* times, and report seconds from start to answer as its client sees it."""
    async with (
        standalone.servers() as given,
        model_server(Path(given["folder"]), SCRIPT) as api_base,
        standalone.world(given, AGENTS, api_base=api_base) as world,
        plain_worker(world, api_base) as queue,
    ):
        await world.worker()
        took = await _take(world, queue, rounds)
    rows = {name: report.spread(values) for name, values in took.items()}
    base = {name: rows[name]["median"] for name in rows}
    pairs = {
        f"{ours} / {theirs}": [mine / other for mine, other in zip(took[ours], took[theirs], strict=True)]
        for ours in list(rows)[2:]
        for theirs in list(rows)[:2]
    }
    ratios = [
        f"{name}: {statistics.median(values):.2f} (median of {len(values)} pairs, "
        f"{report.quantile(values, 0.25):.2f} to {report.quantile(values, 0.75):.2f})"
        for name, values in pairs.items()
    ]
    steps = 2 * ROUNDS - 1
    each = ", ".join(f"{name} {1000 * seconds / steps:.0f}" for name, seconds in base.items())
    notes = [*ratios, f"milliseconds per step: {each}"]
    title = f"seconds per run of {ROUNDS} model calls and {ROUNDS - 1} tool calls, one run at a time"
    report.show(title, rows, notes, out, took)


async def _take(world: World, queue: str, rounds: int) -> dict[str, list[float]]:
    client = await world.client()
    temporal = await histories.connect(world.settings)
    number = 0

    def plain(loop: type) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            answer: str = await temporal.execute_workflow(
                loop.__name__, "read", id=f"{queue}-{number}", task_queue=queue, result_type=str
            )
            return answer

        return run

    def holdfast(agent: str) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            return (await (await client.start(agent, "read", thread=f"bench-{number}")).result(timeout=120)).text

        return run

    loops = {
        "A plain, messages in inputs": plain(MessagesInInputs),
        "B plain, messages in Postgres": plain(MessagesInPostgres),
        "C holdfast, pure tools": holdfast("pure"),
        "D holdfast, once tools": holdfast("once"),
    }
    took: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(WARM + rounds):
        for name, run in loops.items():
            number += 1
            began = time.monotonic()
            answer = await run()
            seconds = time.monotonic() - began
            if answer != "read":
                raise RuntimeError(f"{name} answered {answer!r}")
            if turn >= WARM:
                took[name].append(seconds)
    await _check(world, (WARM + rounds) * ROUNDS)
    return took


async def _check(world: World, replies: int) -> None:
    """Make sure that what was measured took place: every round stored, every call in the ledger."""
    conn = await connect_postgres(world.settings.database_url or "")
    try:
        for loop in ("pure", "once"):
            query = "select count(*) from effects e join runs r using (run_id) where r.agent = $1 and e.state = 'done'"
            found = await conn.fetchval(query, loop)
            if found != replies + replies * (ROUNDS - 1) // ROUNDS:
                raise RuntimeError(f"{loop}: {found} rows in the ledger")
    finally:
        await conn.close()
