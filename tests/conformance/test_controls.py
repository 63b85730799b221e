"""Each guard taken out of the product in turn: the auditor must notice, or it would prove nothing of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from tests.conformance.controls import CONTROLS, Control, Verdict, play
from tests.conformance.servers import Ground
from tests.conformance.switches import SWITCHES

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT_ONCE = 4  # plays: they wait for leases and heartbeats most of their time

Plays = dict[tuple[Control, bool], asyncio.Task[Verdict]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plays(ground: Ground, request: pytest.FixtureRequest) -> AsyncIterator[Plays]:
    """Return a task for each play that this test run asks for, some at a time; each test waits for its own."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(control: Control, guarded: bool) -> Verdict:
        async with room:
            return await play(ground, control, guarded=guarded)

    begun: Plays = {}
    for item in request.session.items:
        asked: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        if item.path == request.path and "guarded" in asked:
            control, guarded = cast("Control", asked["control"]), bool(asked["guarded"])
            begun[control, guarded] = asyncio.create_task(one(control, guarded))
    yield begun
    for task in begun.values():
        task.cancel()
    await asyncio.gather(*begun.values(), return_exceptions=True)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
@pytest.mark.parametrize("guarded", [False, True], ids=["off", "on"])
async def test_a_guard_that_is_off_is_noticed(plays: Plays, control: Control, guarded: bool) -> None:
    """Off, the schedule breaks what the guard holds, and the auditor says so; on, the same schedule harms nothing."""
    verdict = await plays[control, guarded]
    assert verdict.fits(control, guarded=guarded), verdict.table


async def test_every_switch_has_a_control() -> None:
    """A guard that can be switched off, and that no schedule needs, is not tested."""
    assert set(SWITCHES) == {f"off:{control.guard}" for control in CONTROLS}
