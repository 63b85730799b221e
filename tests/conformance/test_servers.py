"""The suite's own servers: whatever breaks them, they come back as they were; evidence is said once; clocks do jump."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from holdfast.testing import ModelServer
from tests.conformance import clock, subject
from tests.conformance.servers import Ground
from tests.conformance.stage import Stage, now
from tests.conformance.witness import Witness
from tests.kit import PATIENCE, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("broken", ["crash_postgres", "kill_temporal", "kill_supervisor", "restart"])
async def test_servers_come_back(ground: Ground, broken: str) -> None:
    """They answer again on the same addresses, and what was committed is there; evidence has no row twice."""
    world = await ground.make("")
    witness = await Witness(world.settings.database_url or "").open()
    saying = [
        asyncio.create_task(witness.note("insert into evidence.asked values ($1, 'a', '1')", (str(number),)))
        for number in range(200)
    ]
    await until(lambda: any(task.done() for task in saying), "the first row is written")
    await getattr(ground.servers, broken)()
    await asyncio.gather(*saying)
    found = await witness.rows("select count(*) as rows, count(distinct run) as different from evidence.asked")
    await witness.close()
    assert found == [{"rows": 200, "different": 200}]


async def test_a_wrong_clock_ends_no_run(ground: Ground) -> None:
    """A worker whose clock runs days ahead tries a model that is away again, as often as any other would."""
    if not clock.environment():
        pytest.skip(clock.MISSING)
    script = {"conversations": [{"replies": [{"fault": [{"status": 503, "times": 3}], "say": "here I am"}]}]}
    async with ModelServer(script) as models:
        world = await ground.make(subject.AGENTS.read_text(encoding="utf-8"), api_base=models.base_url)
        async with Stage(ground, world, models) as stage:
            worker = await stage.bear(wait=True)
            clock.jump(worker.clock, 3 * 86400.0)
            later = (now() + timedelta(days=3)).strftime("%Y-%m-%dT")
            run = await stage.client.start("steady", "are you there?")
            assert (await run.result(timeout=PATIENCE)).output == "here I am"
            assert later in worker.log.read_text(), "its clock did not jump"
