"""Crash smoke: workers are killed at random moments under load; an outside recorder and the database tell the truth."""

from __future__ import annotations

import os
import random
import sys
import time

import pytest

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.crash.audit import GUARDED, Audit, audit
from tests.crash.driver import AGENTS, SCRIPT, CrashDrive, Plan, asked_calls


def _seed() -> int:
    given = os.environ.get("HOLDFAST_SEED")
    return int(given) if given else random.SystemRandom().randrange(1_000_000)


async def _drive(make_world: MakeWorld, capsys: pytest.CaptureFixture[str], plan: Plan, title: str) -> Audit:
    """Drive through *plan*, audit what is left, show the table."""
    seed = _seed()
    with capsys.disabled():
        sys.stdout.write(f"\n{title}: HOLDFAST_SEED={seed}\n")
    began = time.monotonic()
    async with ModelServer(SCRIPT, bodies=False) as models:
        world = await make_world(AGENTS.read_text(encoding="utf-8"), api_base=models.base_url)
        async with CrashDrive(world, plan, seed) as drive:
            await drive.run()
            found = await audit(world.rows, drive.log, drive.kills, asked_calls(drive.runs), len(models.journal))
    with capsys.disabled():
        head = f"{title}, seed {seed}: {len(drive.runs)} runs in {time.monotonic() - began:.0f} s"
        sys.stdout.write(found.table(f"{head}, {drive.refusals} words said again"))
    return found


async def test_kills_neither_double_nor_lose_a_call(make_world: MakeWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """At least 25 kills, half of them with a call in flight: 180 calls of four classes take effect once each."""
    found = await _drive(make_world, capsys, Plan(kills=25, runs=15), "crash smoke")
    assert found.kills >= 25
    assert found.kills_in_flight * 2 >= found.kills
    assert sum(found.calls[name] for name in GUARDED) >= 180
    assert not found.twice
    assert not found.lost
    assert not found.verdict()


async def test_without_the_ledger_the_audit_fails(make_world: MakeWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """The negative control: the same drive, with a ledger that remembers nothing, doubles effects."""
    found = await _drive(make_world, capsys, Plan(kills=8, runs=6, ledger=False), "crash smoke, ledger off")
    assert found.twice, "kills doubled nothing without a ledger: this test could not tell a good one from none"
    assert found.verdict()


async def test_a_database_that_goes_away_leaves_nothing_in_doubt(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outages longer than the lease cost time only: a worker that lives knows what became of its calls."""
    found = await _drive(make_world, capsys, Plan(kills=2, runs=7, outage=3.0), "PostgreSQL away for 3 s")
    assert not found.verdict()
    assert found.doubts_seen + found.doubts_never_seen == 0
