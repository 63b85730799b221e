"""What nothing needs any more is removed in small portions, one worker at a time; what is still named stays."""

from __future__ import annotations

from typing import Any, cast

import pytest
from temporalio.client import Client as Temporal

from holdfast.memory import chores, threads
from holdfast.memory.database import Connection, Pool
from holdfast.settings import DAY, HOUR, Settings
from holdfast.sweeper import Sweeper

NOBODY = cast("Temporal", None)  # a collection asks Temporal nothing


async def _left(conn: Connection, table: str, column: str) -> list[Any]:
    return [row[0] for row in await conn.fetch(f"select {column} from {table} order by 1")]


@pytest.fixture
async def conn(pool: Pool) -> Any:
    """Return a connection to a database in which old and new rows of each kind lie."""
    async with pool.acquire() as conn:
        await conn.execute("insert into threads (tenant, thread) values ('t', 'a')")
        for name in ("orphan-old", "orphan-new", "result-old", "sent-1-old"):
            await threads.put_blob(conn, "t", b"text", blob_id=name)
        await conn.execute("update blobs set created_at = now() - interval '8 days' where id like '%old'")
        await conn.execute(
            "insert into messages (thread_id, seq, run_id, role, body, blob) "
            "values (1, 1, gen_random_uuid(), 'tool', '{}', 'result-old')"
        )
        for age in ("31 days", "29 days"):
            await conn.execute(
                "insert into late_outcomes (key, fence, outcome, at) "
                f"values ('{age}', 1, '{{}}', now() - interval '{age}')"
            )
        for n, age in enumerate(("61 minutes", "59 minutes")):
            await conn.execute(
                "insert into deltas (run_id, step_no, generation, n, text, at) "
                f"values (gen_random_uuid(), 1, 1, {n}, 'x', now() - interval '{age}')"
            )
        yield conn


async def test_only_what_is_old_and_named_by_nothing_goes(pool: Pool, conn: Connection) -> None:
    """Blobs that a message or a recorded request names stay, and whatever is younger than the settings say."""
    await Sweeper(Settings(), pool, NOBODY).collect()
    assert await _left(conn, "blobs", "id") == ["orphan-new", "result-old", "sent-1-old"]
    assert await _left(conn, "late_outcomes", "key") == ["29 days"]
    assert await _left(conn, "deltas", "n") == [1]


async def test_a_table_that_cannot_be_cleaned_up_leaves_the_others(pool: Pool, conn: Connection) -> None:
    """What fails is logged; the rest is removed in the same pass."""
    await conn.execute("alter table blobs rename to blobs_away")
    await conn.execute("alter table late_outcomes rename to late_outcomes_away")
    await Sweeper(Settings(), pool, NOBODY).collect()
    assert await _left(conn, "deltas", "n") == [1]


async def test_a_collection_comes_round_in_portions(pool: Pool, conn: Connection) -> None:
    """It looks at so many rows and goes on from there the next time, and begins anew at the end."""
    settings = Settings(collect_batch=1, collect_every=0.001)
    seen = []
    for _ in range(5):
        await Sweeper(settings, pool, NOBODY).collect()
        seen.append(await conn.fetchval("select cursor from chores where name = 'collect'"))
    assert seen == ["orphan-new", "orphan-old", "result-old", "sent-1-old", ""]


async def test_one_worker_at_a_time(conn: Connection) -> None:
    """Who comes within the interval has nothing to do; who comes later goes on, also where the other was killed."""
    assert await chores.take(conn, "any", HOUR) == ""
    assert await chores.take(conn, "any", HOUR) is None
    await chores.move(conn, "any", "17")
    await conn.execute("update chores set at = at - interval '2 hours'")
    assert await chores.take(conn, "any", HOUR) == "17"


async def test_a_blob_that_is_wanted_again_is_young_again(conn: Connection) -> None:
    """A text that is stored once more under its name is not collected before its message comes."""
    await threads.put_blob(conn, "t", b"text", blob_id="orphan-old")
    await threads.put_blob(conn, "other", b"text", blob_id="result-old")
    at, removed = await chores.collect_blobs(conn, "", 7 * DAY, 10)
    assert (at, removed) == ("", 0)
    assert await conn.fetchval("select created_at < now() - interval '7 days' from blobs where id = 'result-old'")
