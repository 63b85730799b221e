"""What a plugin has heard of each run's record, in PostgreSQL: nothing is forgotten, and a look costs little."""

from __future__ import annotations

import uuid
from datetime import timedelta

from holdfast.memory import listeners
from holdfast.memory.database import Connection, Pool
from holdfast.memory.queries import queries

LEASE = 10.0


async def happens(conn: Connection, run: str, seq: int, days: float) -> None:
    """Write an event of so many days ago."""
    await conn.execute(
        "insert into events (run_id, seq, kind, data, at) values ($1, $2, 'x', '{}', now() - $3::interval)",
        run,
        seq,
        timedelta(days=days),
    )


async def since(conn: Connection, days: float) -> None:
    """Have the plugin listen since so many days ago."""
    await listeners.behind(conn, "audit")
    await conn.execute("update listeners set since = now() - $1::interval", timedelta(days=days))


async def hears(conn: Connection, run: str, seq: int) -> None:
    """Tell the plugin."""
    assert await listeners.take(conn, "audit", run, LEASE) is not None
    await listeners.told(conn, "audit", run, seq, 0.0)


async def test_what_happened_long_ago_is_told_though_nobody_was_there(pool: Pool) -> None:
    """Workers that were away for a month, or a run that waited so long: each event is told once they are back."""
    run, other = str(uuid.uuid4()), str(uuid.uuid4())
    async with pool.acquire() as conn:
        await since(conn, 40)
        await happens(conn, run, 1, 41)
        await happens(conn, run, 2, 30)
        await happens(conn, other, 1, 41)
        assert await listeners.behind(conn, "audit") == [run], "what was before it listened is not told"
        await hears(conn, run, 2)
        assert await listeners.behind(conn, "audit") == []
        await happens(conn, run, 3, 0)
        assert await listeners.behind(conn, "audit") == [run]


async def test_what_was_heard_is_not_looked_at_again(pool: Pool) -> None:
    """The mark moves up to what is minutes old; not past what nobody has taken, and not while it is being told."""
    run = str(uuid.uuid4())
    async with pool.acquire() as conn:
        await since(conn, 3)
        await happens(conn, run, 1, 1)
        assert await listeners.take(conn, "audit", run, LEASE) == 0
        assert await listeners.behind(conn, "audit") == [], "another worker tells it"
        assert await conn.fetchval("select now() - since from listeners") > timedelta(days=2)
        await listeners.told(conn, "audit", run, 1, 0.0)
        assert await listeners.behind(conn, "audit") == []
        assert timedelta(minutes=4) < await conn.fetchval("select now() - since from listeners") < timedelta(minutes=9)


async def test_runs_that_a_plugin_does_not_take_keep_no_other_waiting(pool: Pool) -> None:
    """Whoever was tried last comes last: a hundred that fail each time do not hide the next."""
    refused, run = [str(uuid.uuid4()) for _ in range(100)], str(uuid.uuid4())
    async with pool.acquire() as conn:
        await since(conn, 1)
        for each in refused:
            await happens(conn, each, 1, 0.1)
            await hears(conn, each, 0)
        await happens(conn, run, 1, 0)
        assert run in await listeners.behind(conn, "audit")


async def test_a_look_costs_what_happened_lately(pool: Pool) -> None:
    """Among two hundred thousand old events the young ones are found by an index."""
    async with pool.acquire() as conn:
        await listeners.behind(conn, "audit")
        await conn.execute(
            "insert into events (run_id, seq, kind, data, at) select gen_random_uuid(), 1, 'x', '{}', "
            "now() - make_interval(secs => 1000 + n) from generate_series(1, 200000) n"
        )
        await conn.execute("analyze events")
        mark = await conn.fetchval("select since from listeners")
        for name in ("behind", "caught_up"):
            plan = await conn.fetch(f"explain {queries('listeners')[name]}", "audit", mark)
            told = "\n".join(row[0] for row in plan)
            assert "events_at" in told, told
            assert "Seq Scan on events" not in told
