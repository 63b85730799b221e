"""The conformance suite's everyday part: one seed of mixed faults, and each guard off in turn."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.controls import CONTROLS, Control, play
from tests.conformance.drive import SMOKE, conduct
from tests.conformance.stage import Nursery
from tests.conftest import MakeWorld

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nursery() -> AsyncIterator[Nursery]:
    """Return the one program that bears the processes of this file."""
    born = Nursery()
    yield born
    await born.close()


async def test_faults_of_every_kind_neither_double_nor_lose_anything(
    make_shared_world: MakeWorld, nursery: Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    """At least 25 faults of mixed kinds over at least 180 guarded calls: every assertion of the auditor holds."""
    given = os.environ.get("HOLDFAST_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(1_000_000)
    with capsys.disabled():
        sys.stdout.write(f"\nconformance smoke: HOLDFAST_SEED={seed}\n")
    report = await conduct(make_shared_world, nursery, SMOKE, seed)
    with capsys.disabled():
        sys.stdout.write(report.text("conformance smoke"))
    assert report.code == 0, report.table
    assert report.faults.total() >= 25
    assert report.calls >= 180


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.guard)
@pytest.mark.parametrize("guarded", [False, True], ids=["off", "on"])
async def test_a_guard_that_is_off_is_noticed(
    make_shared_world: MakeWorld, nursery: Nursery, control: Control, guarded: bool
) -> None:
    """Off, the schedule breaks what the guard holds, and the auditor says so; on, the same schedule harms nothing."""
    verdict = await play(make_shared_world, nursery, control, guarded=guarded)
    if guarded:
        assert not verdict.wrong, verdict.table
    else:
        assert control.caught_by <= verdict.wrong, verdict.table
