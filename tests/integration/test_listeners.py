"""What a plugin has heard of each run's record, in PostgreSQL: nothing is forgotten, and a look costs little."""

from __future__ import annotations

import uuid
from datetime import timedelta

from holdfast.memory import listeners
from holdfast.memory.database import Connection, Pool
from holdfast.memory.queries import queries

LEASE = 10.0
MOST = 20_000


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
    await listeners.behind(conn, "audit", MOST)
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
        assert await listeners.behind(conn, "audit", MOST) == [run], "what was before it listened is not told"
        await hears(conn, run, 2)
        assert await listeners.behind(conn, "audit", MOST) == []
        await happens(conn, run, 3, 0)
        assert await listeners.behind(conn, "audit", MOST) == [run]


async def test_what_was_heard_is_not_looked_at_again(pool: Pool) -> None:
    """The mark moves up to what is minutes old; not past what nobody has taken, and not while it is being told."""
    run = str(uuid.uuid4())
    async with pool.acquire() as conn:
        await since(conn, 3)
        await happens(conn, run, 1, 1)
        assert await listeners.take(conn, "audit", run, LEASE) == 0
        assert await listeners.behind(conn, "audit", MOST) == [], "another worker tells it"
        assert await conn.fetchval("select now() - since from listeners") > timedelta(days=2)
        await listeners.told(conn, "audit", run, 1, 0.0)
        assert await listeners.behind(conn, "audit", MOST) == []
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
        assert run in await listeners.behind(conn, "audit", MOST)


async def test_a_refused_event_holds_up_no_mark(pool: Pool) -> None:
    """Its run is found by a row of its own, after pauses that grow, until it was told to its end."""
    refused, run = str(uuid.uuid4()), str(uuid.uuid4())
    async with pool.acquire() as conn:
        await since(conn, 3)
        await happens(conn, refused, 1, 2)
        await happens(conn, refused, 2, 1)
        await happens(conn, run, 1, 1)
        for number in (1, 2):
            assert await listeners.take(conn, "audit", refused, LEASE) == 0
            assert await listeners.refused(conn, "audit", refused, 600.0, 900.0) == (number, number == 2)
            left = await conn.fetchval("select extract(epoch from lease_until - now()) from heard where pending")
            assert (500 < left < 601) if number == 1 else (800 < left < 901)
            assert refused not in await listeners.behind(conn, "audit", MOST), "not before the pause is over"
            await conn.execute("update heard set lease_until = now() where pending")
            if number == 1:
                await hears(conn, run, 1)
        assert await listeners.behind(conn, "audit", MOST) == [refused]
        assert await conn.fetchval("select now() - since from listeners") < timedelta(minutes=9), "the mark has moved"
        assert await listeners.take(conn, "audit", refused, LEASE) == 0
        await listeners.set_aside(conn, "audit", refused, 1, "no")
        await listeners.told(conn, "audit", refused, 1, 0.0)
        assert await listeners.behind(conn, "audit", MOST) == [refused], "killed here, the rest is told by another"
        assert await listeners.take(conn, "audit", refused, LEASE) == 1
        await listeners.told(conn, "audit", refused, 2, 0.0, whole=True)
        assert await listeners.behind(conn, "audit", MOST) == []
        assert [dict(row) for row in await conn.fetch("select seq, error from unheard")] == [{"seq": 1, "error": "no"}]


async def test_a_look_reads_so_many_events_at_most(pool: Pool) -> None:
    """What is left is found by the next looks: the mark moves past what was heard, some at a time."""
    runs = [str(uuid.uuid4()) for _ in range(5)]
    async with pool.acquire() as conn:
        await since(conn, 30)
        for number, each in enumerate(runs):
            await happens(conn, each, 1, 20 - number)
        seen: list[str] = []
        for _ in range(20):
            found = await listeners.behind(conn, "audit", 2)
            assert len(found) <= 2
            for each in found:
                await hears(conn, each, 1)
            seen += found
        assert sorted(seen) == sorted(runs), "each once"
        assert await conn.fetchval("select now() - since from listeners") < timedelta(minutes=9)


async def test_a_look_costs_what_happened_lately(pool: Pool) -> None:
    """Among two hundred thousand old events the young ones are found by an index."""
    async with pool.acquire() as conn:
        await listeners.behind(conn, "audit", MOST)
        await conn.execute(
            "insert into events (run_id, seq, kind, data, at) select gen_random_uuid(), 1, 'x', '{}', "
            "now() - make_interval(secs => 1000 + n) from generate_series(1, 200000) n"
        )
        await conn.execute("analyze events")
        mark = await conn.fetchval("select since from listeners")
        for name in ("behind", "caught_up"):
            plan = await conn.fetch(f"explain {queries('listeners')[name]}", "audit", mark, MOST)
            told = "\n".join(row[0] for row in plan)
            assert "events_at" in told, told
            assert "Seq Scan on events" not in told
