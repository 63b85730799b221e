"""`sql_query` against a real PostgreSQL: it reads, within limits, and whatever it is given it does not write."""

from __future__ import annotations

import contextlib
import re
import time
import tracemalloc
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from holdfast.errors import ConfigurationError, ToolError
from holdfast.tools import sql_query
from holdfast.tools.builtin.confined_sql import read_statement
from tests.integration._shop import Shop, a_shop, call
from tests.unit.test_tools_sql_words import READS


def _of_places(sql: str) -> str:
    """Return a statement of the list for a table that has all of its columns."""
    return re.sub("(?i)orders", "places", sql).replace("t.state", "state")


# Those whose values change from one moment to the next, or that are chosen by chance, are not compared.
_CHANGING = re.compile("current_|now|random|xpath|tablesample|localtimestamp|information_schema|n_live_tup")
SAME = [_of_places(sql) for sql in READS if not _CHANGING.search(sql)]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(servers: dict[str, str]) -> AsyncIterator[Shop]:
    """Make the database."""
    async with a_shop(servers["database_url"]) as made:
        yield made


async def test_it_reads(shop: Shop) -> None:
    """Rows in order with every type as JSON, two columns of one name too."""
    query, _ = sql_query(shop.reader)
    answer = await call(
        query,
        sql="select id, total, extra, extra, at, null, array[1,2], 'x'::bytea from orders order by id limit 2 -- x",
    )
    assert answer["columns"] == ["id", "total", "extra", "extra", "at", "?column?", "array", "bytea"]
    assert [row[:4] for row in answer["rows"]] == [[1, 1.5, {"n": 1}, {"n": 1}], [2, 3.0, {"n": 2}, {"n": 2}]]
    assert answer["rows"][0][4].startswith("2026-01-01T")
    assert answer["rows"][0][5:] == [None, [1, 2], "\\x78"]
    assert (await call(query, sql="with a as (select 1 as x) select x from a"))["rows"] == [[1]]
    assert (await call(query, sql="select id from orders order by id desc"))["rows"][0] == [500]
    exact = await call(query, sql="select 12345678901234567890.123456789::numeric")
    assert exact["rows"] == [["12345678901234567890.123456789"]]
    answer = await call(query, sql="select 9223372036854775807, repeat('9', 6000)::numeric")
    assert answer["rows"] == [[9223372036854775807, "9" * 6000]], "as text, not as an error of Python's"


async def test_it_lists_what_may_be_read(shop: Shop) -> None:
    """Tables with columns, types and comments; none that the role may not read."""
    _, schema = sql_query(shop.reader)
    [table] = await call(schema, pattern="orders")
    assert (table["table"], table["kind"], table["comment"]) == ("orders", "table", "What was ordered")
    assert table["columns"][:3] == ["id integer not null", "city text not null", "total numeric(10,2)"]
    assert await call(schema, pattern="nothing%") == []


WRITES = """
delete from orders
update orders set total = 0 returning id
insert into orders values (999, 'x', 1, now(), null) returning id
truncate orders
drop table orders
create table stolen as select * from orders
select * into stolen from orders
with gone as (delete from orders returning id) select * from gone
select * from orders for update
select 1; delete from orders
commit; delete from orders
select 1) q; delete from orders; select * from (select 1
select 1) q; commit; delete from orders; --
rollback
begin
set transaction read write
set default_transaction_read_only = off
set session characteristics as transaction read write
reset all
select set_config('transaction_read_only', 'off', false), wiped()
select wiped()
call wipe()
do $$ begin delete from orders; end $$
do $$ begin commit; delete from orders; end $$
select nextval('numbers')
select setval('numbers', 100)
select lo_create(4711)
select lo_from_bytea(0, 'x')
copy orders to '/tmp/holdfast-stolen.csv'
copy orders to program 'cat > /tmp/holdfast-stolen.csv'
copy (select 1) to stdout
copy orders from '/etc/passwd'
select pg_read_file('/etc/passwd')
select pg_ls_dir('/')
select lo_import('/etc/passwd')
lock table orders
listen x
notify x
prepare x as delete from orders
execute x
declare c cursor for select 1
explain analyze delete from orders
vacuum orders
refresh materialized view x
alter system set work_mem = '1GB'
create extension dblink
create role evil superuser
grant all on orders to public
select pg_logical_emit_message(false, 'a', 'b')
select pg_switch_wal()
select pg_create_restore_point('x')
select pg_notify('orders', 'ship it')
select query_to_xml('delete from orders', true, false, '')
select * from ts_stat('select to_tsvector(pg_notify(''orders'', ''x'')::text)')
select pg_advisory_lock(1)
""".strip().splitlines()


TRIES = [(role, sql) for role in ("reader", "owner", "superuser") for sql in WRITES]


@pytest.mark.parametrize(("role", "sql"), TRIES)
async def test_it_never_writes(shop: Shop, role: str, sql: str) -> None:
    """Neither as the tables' owner nor as a superuser, where that is allowed on purpose."""
    dsn = {"reader": shop.reader, "owner": shop.owner, "superuser": shop.admin}[role]
    query, _ = sql_query(dsn, allow_superuser=role != "reader")
    before = await shop.fetch(STATE)
    with pytest.raises(ToolError):
        await call(query, sql=sql)
    assert await shop.fetch(STATE) == before


STATE = """
select (select count(*) from orders), (select sum(total) from orders), (select last_value from numbers),
       (select is_called from numbers), (select count(*) from pg_largeobject_metadata), to_regclass('stolen')::text,
       (select count(*) from pg_roles), (select relacl::text from pg_class where relname = 'orders')
"""


async def test_it_ends_nobodys_session(shop: Shop) -> None:
    """Signals are no writes to PostgreSQL, and no roll-back takes them back."""
    conn = await asyncpg.connect(shop.reader)
    try:
        pid = await conn.fetchval("select pg_backend_pid()")
        for dsn in (shop.reader, shop.admin):
            query, _ = sql_query(dsn, allow_superuser=True, allow_public_functions=True)
            for function in ("pg_terminate_backend", "pg_cancel_backend", "pg_catalog.pg_terminate_backend"):
                with pytest.raises(ToolError, match=r"allowed|may be called"):
                    await call(query, sql=f"select {function}({pid})")
        assert await conn.fetchval("select 1") == 1
    finally:
        await conn.close()


@pytest.mark.parametrize("sql", SAME)
async def test_what_is_written_anew_reads_the_same(shop: Shop, sql: str) -> None:
    """Each row and value of a statement is that of the model's own text, and its columns have the model's names."""
    conn = await asyncpg.connect(shop.admin)
    try:
        async with conn.transaction(readonly=True):
            plain = sql.strip().rstrip(";")
            statement = await conn.prepare(plain)
            names = ", ".join(f"c{at}" for at in range(len(statement.get_attributes())))
            wrapped = "select row_to_json(q)::text from (\n{}\n) q({})"
            first = await conn.fetch(wrapped.format(plain, names))
            second = await conn.fetch(wrapped.format(read_statement(plain), names))
            assert [row[0] for row in second] == [row[0] for row in first]
    finally:
        await conn.close()


@pytest.mark.parametrize("sql", READS)
async def test_what_runs_calls_only_what_computes(shop: Shop, sql: str) -> None:
    """PostgreSQL's own reading of the statement has no function in it that could act: its tree names each one."""
    conn = await asyncpg.connect(shop.admin)
    transaction = conn.transaction()
    await transaction.start()
    try:
        text = read_statement(_of_places(sql))
        await conn.execute(f"create temp view seen as select left(row_to_json(q)::text, 9) as row from ({text}) q")
        tree = await conn.fetchval("select ev_action::text from pg_rewrite where ev_class = 'seen'::regclass")
        called = {int(number) for number in re.findall(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)", tree)}
        acting = await conn.fetch(
            "select proname from pg_proc "
            "where oid = any($1::oid[]) and provolatile = 'v' and proname <> all($2::text[])",
            list(called),
            ["random", "clock_timestamp", "gen_random_uuid", "pg_relation_size", "pg_total_relation_size"],
        )
        assert [row[0] for row in acting] == []
    finally:
        await transaction.rollback()
        await conn.close()


async def test_functions_of_the_database_are_called_only_if_named(shop: Shop) -> None:
    """A user's function may do anything, so a user says which."""
    with pytest.raises(ToolError, match="another schema"):
        await call(sql_query(shop.reader)[0], sql="select app.total(4)")
    query, _ = sql_query(shop.reader, functions=["app.total"])
    assert (await call(query, sql="select app.total(4)"))["rows"] == [[8]]
    for wrong in (["app.Total"], ["a.b.c"], ["f(int)"], "App"):
        with pytest.raises(ConfigurationError, match="functions"):
            sql_query(shop.reader, functions=wrong)


CALLS = """
select ('1'::float8).pg_sleep
select ('work_mem'::text).current_setting
select ('1'::bigint).pg_advisory_lock
select (1).counted
select o.counted from orders o
select o.counted from orders as o(id)
select public.orders.counted from public.orders
select s.counted from (select * from orders) s
select s.counted from (select 1) s(a)
with s as (select id as a from orders) select s.counted from s
with counted as (select id from orders) select orders.counted from orders, counted
select f.pg_sleep from generate_series(1.0::float8, 2) f
select f.current_setting from unnest(array['work_mem']) f
select generate_series.pg_sleep from generate_series(1.0::float8, 2)
select unnest.current_setting from unnest(array['work_mem'])
select f.current_setting from cast('work_mem' as text) f
select f.current_setting from upper('work_mem') f where exists (select 1 from settings f)
select (select f.current_setting) from lower('work_mem') f
select 1 from lower('work_mem') f order by f.current_setting
select upper.current_setting from upper('work_mem') where exists (select 1 from settings upper)
""".strip().splitlines()


@pytest.mark.parametrize("sql", CALLS)
async def test_no_name_behind_a_dot_calls_a_function(shop: Shop, sql: str) -> None:
    """PostgreSQL reads `x.f` as `f(x)` where x has no such column, be it a value, a row or what a function gives."""
    query, _ = sql_query(shop.reader)
    with pytest.raises(ToolError, match=r"would call the function|a name may follow"):
        await call(query, sql=sql)


async def test_a_column_may_have_the_name_of_a_function(shop: Shop) -> None:
    """Where the catalog or the statement shows that it is a column; a function that the user named may be called."""
    query, _ = sql_query(shop.reader)
    for sql in (
        "select s.current_setting from settings s",
        "select public.settings.current_setting from public.settings",
        "select s.current_setting from settings s where exists (select 1 from settings t where t.n = s.n)",
        "select s.current_setting from (select n as current_setting from settings) s",
        "with s as (select 1 as current_setting) select s.current_setting from s",
        "select f.current_setting from unnest(array[1]) f(current_setting)",
    ):
        assert (await call(query, sql=sql))["rows"] == [[1]]
    query, _ = sql_query(shop.reader, functions=["counted"])
    assert (await call(query, sql="select o.counted from orders o where o.id = 2"))["rows"] == [[2]]


async def test_large_rows_are_not_fetched_by_the_hundred(shop: Shop) -> None:
    """What is over the limit stays in the database: the worker holds a few rows, not as many as could be answered."""
    query, _ = sql_query(shop.reader, max_rows=200, max_bytes=2_000_000)
    tracemalloc.start()
    try:
        answer = await call(query, sql="select repeat('x', 1900000) from generate_series(1, 200)")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(answer["rows"]) == 1
    assert peak < 120_000_000


async def test_rows_and_bytes_are_capped(shop: Shop) -> None:
    """The model is told what is missing; a single huge row is cut on the server."""
    query, _ = sql_query(shop.reader, max_rows=10, max_bytes=2000)
    answer = await call(query, sql="select id from orders order by id")
    assert [row[0] for row in answer["rows"]] == list(range(1, 11))
    assert "first 10 rows" in answer["cut"]
    answer = await call(query, sql="select repeat('x', 900) from generate_series(1, 9)")
    assert (len(answer["rows"]), "cut" in answer) == (2, True)
    with pytest.raises(ToolError, match="one row alone"):
        await call(query, sql="select repeat('x', 100000000)")


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from generate_series(1, 100000000000)",
        "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b where a % 7 = b % 11",
        "with recursive t(n) as (values (1) union all select n + 1 from t) select count(*) from t",
    ],
)
async def test_time_is_capped_on_the_server(shop: Shop, sql: str) -> None:
    """It is stopped there too, not left running."""
    query, _ = sql_query(shop.reader, timeout=0.5)
    began = time.monotonic()
    with pytest.raises(ToolError, match="stopped after"):
        await call(query, sql=sql)
    assert time.monotonic() - began < 20
    busy = "select 1 from pg_stat_activity where application_name = 'holdfast-sql-query' and state = 'active'"
    assert await shop.fetch(busy) == []


async def test_errors_help_and_hide_the_password(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's own words and hint; never the address."""
    query, _ = sql_query(shop.reader)
    with pytest.raises(ToolError, match="Perhaps you meant to reference the column"):
        await call(query, sql="select totl from orders")
    with pytest.raises(ToolError, match="permission denied"):
        await call(query, sql="select * from hidden")
    monkeypatch.delenv("SHOP_URL", raising=False)
    query, _ = sql_query(env="SHOP_URL")
    with pytest.raises(ToolError, match="SHOP_URL"):
        await call(query, sql="select 1")
    monkeypatch.setenv("SHOP_URL", shop.reader)
    assert (await call(query, sql="select 1"))["rows"] == [[1]]
    for wrong in (shop.reader.replace("pass-word", "wrong-word"), "postgresql://u:pass-word@127.0.0.1:1/x"):
        monkeypatch.setenv("SHOP_URL", wrong)
        with contextlib.suppress(ToolError):  # the test's own server lets anyone in
            await call(query, sql="select 1")
    with pytest.raises(ToolError, match="cannot be reached") as caught:
        await call(query, sql="select 1")
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hunter2#launch-code@127.0.0.1:1/x",
        "postgresql://ann:hunter2/launch-code@127.0.0.1:1/x",
        "postgresql://ann:hunter2?launch-code@127.0.0.1:1/x",
        "postgresql://ann:1#launch-code@127.0.0.1:1/x",
        "postgresql://ann:1/launch-code@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?password=hunter2&port=launch-code",
        "postgresql://ann:launch-code@[127.0.0.1:1/x",
        "postgresql://ann:launch-code[hunter2@127.0.0.1:1/x",
        "postgresql://ann:launch-code@127.0.0.1:hunter2/x",
    ],
)
async def test_no_part_of_a_password_is_quoted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Of an address that cannot be read, nobody knows which part is the password: nothing of it goes to the model."""
    monkeypatch.setenv("SHOP_URL", url)
    for tool in sql_query(env="SHOP_URL"):
        with pytest.raises(ToolError, match="cannot be reached") as caught:
            await call(tool, **({"sql": "select 1"} if tool.name == "sql_query" else {}))
        assert not re.search("hunter|launch-code", str(caught.value))
