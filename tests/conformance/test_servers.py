"""The suite's own servers: whatever breaks them, they come back as they were; evidence is said once; clocks do jump."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
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


async def test_what_is_committed_outlives_a_failover(ground: Ground) -> None:
    """Everybody reaches the standby at the same address, and what the crashed primary said was committed is there."""
    cluster = await ground.cluster()
    witness = await Witness((await ground.make("", cluster)).settings.database_url or "").open()
    for turn in range(2):
        standby = await cluster.follow()
        query = "insert into evidence.asked values ($1, 'a', '1')"
        saying = [asyncio.create_task(witness.note(query, (f"{turn}-{number}",))) for number in range(100)]
        await until(lambda saying=saying: any(task.done() for task in saying), "the first row is written")
        await cluster.fail_over(standby, read_only=0.5)
        await asyncio.gather(*saying)
    found = await witness.rows("select count(*) as rows, count(distinct run) as different from evidence.asked")
    assert found == [{"rows": 200, "different": 200}]
    await witness.close()


async def test_a_rotated_password_keeps_the_workers_out_until_it_is_right_again(ground: Ground) -> None:
    """Their sessions end, they cannot log in meanwhile, and nobody else is touched."""
    cluster = await ground.cluster()
    mine, theirs = cluster.url, cluster.for_workers(cluster.url)
    worker, other = await asyncpg.connect(theirs), await asyncpg.connect(mine)
    rotating = asyncio.create_task(cluster.rotate(1.0))
    await until(worker.is_closed, "their session ends")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(theirs)
    await rotating
    await (await asyncpg.connect(theirs)).close()
    assert await other.fetchval("select 1") == 1
    await other.close()


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
