"""CSV and JSON queries, SQLite, and what confines them: real processes that are killed when they take too much."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigurationError, ToolArgumentsInvalid, ToolError
from holdfast.tools import ToolContext, csv_query, json_query, queries, sql_query
from holdfast.tools.builtin.confined import confined
from holdfast.tools.tool import AnyTool
from holdfast.tools.toolset import Toolset

CSV = """city,id,total,note
Bonn,007,10,
Köln,008,20.5,"a, b"
Bonn,009,5,x
"""
ORDERS = {"orders": [{"id": 1, "city": "Bonn", "total": 10}, {"id": 2, "city": "Köln", "total": 25}]}


async def _call(tool: AnyTool, **args: Any) -> Any:
    ctx = ToolContext(
        idempotency_key="k", tenant="t", thread="c", run_id="r", step_no=1, deadline=time.monotonic() + 60
    )
    return await tool(**tool.bind(tool.validate(args), ctx))


async def test_csv_by_sql() -> None:
    """Columns by name, numbers as numbers, ids as they are written, empty cells as null."""
    answer = await _call(csv_query, text=CSV, sql="select city, sum(total) s from data group by city order by s desc")
    assert answer == {"columns": ["city", "s"], "rows": [["Köln", 20.5], ["Bonn", 15.0]]}
    answer = await _call(csv_query, text=CSV, sql="select id, note from data where note is not null")
    assert answer["rows"] == [["008", "a, b"], ["009", "x"]]
    answer = await _call(csv_query, text=CSV.replace(",", ";"), sql="select count(*) from data where total >= 10")
    assert answer["rows"] == [[2]]
    answer = await _call(csv_query, text="a,a,,\n1,2,3,4,5\n6\n", sql="select * from data")
    assert answer == {"columns": ["a", "a_2", "column_3", "column_4"], "rows": [[1, 2, 3, 4], [6, None, None, None]]}
    many = "n\n" + "\n".join(map(str, range(1000)))
    answer = await _call(csv_query, text=many, sql="select n from data")
    assert len(answer["rows"]) == 200
    assert "first 200 rows" in answer["cut"]


async def test_json_by_jmespath() -> None:
    """Choose, filter, count."""
    text = json.dumps(ORDERS)
    assert await _call(json_query, text=text, expression="orders[?total > `9`].city") == ["Bonn", "Köln"]
    assert await _call(json_query, text=text, expression="sum(orders[].total)") == 35
    assert await _call(json_query, text=text, expression="missing") is None


@pytest.mark.parametrize(
    ("tool", "args", "why"),
    [
        (json_query, {"text": "{", "expression": "a"}, "not JSON"),
        (json_query, {"text": "{}", "expression": "a["}, "does not fit"),
        (json_query, {"text": "{}", "expression": "sum(@)"}, "does not fit"),
        (json_query, {"text": "[" * 100_000, "expression": "@"}, "not JSON|nested"),
        (json_query, {"expression": "a"}, "name one thing"),
        (json_query, {"text": "{}", "handle": "result-x", "expression": "a"}, "name one thing"),
        (csv_query, {"text": "", "sql": "select 1"}, "empty"),
        (csv_query, {"text": CSV, "sql": "select nowhere from data"}, "no such column"),
        (csv_query, {"text": CSV, "sql": "delete from data"}, "only reading"),
        (csv_query, {"text": CSV, "sql": "select 1; select 2"}, "one statement"),
        (csv_query, {"text": CSV, "sql": "attach '/tmp/x.db' as x"}, "only reading|too many"),
        (csv_query, {"text": CSV, "sql": "select load_extension('x')"}, "only reading|no such function"),
        (csv_query, {"text": CSV, "sql": "pragma writable_schema = 1"}, "only reading"),
        (csv_query, {"text": CSV, "sql": "select zeroblob(1000000000)"}, "too big"),
    ],
)
async def test_what_does_not_fit_is_told(tool: AnyTool, args: dict[str, Any], why: str) -> None:
    """With a message for the model."""
    with pytest.raises(ToolError, match=why):
        await _call(tool, **args)


ENDLESS_SQL = "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n"


@pytest.mark.parametrize(
    ("job", "data", "args"),
    [
        ("search", b"a" * 40 + b"!", {"pattern": "(a+)+$", "regex": True}),
        ("json", b"{}", {"expression": "[@,@][]|" * 60 + "@"}),
        ("csv", CSV.encode(), {"sql": ENDLESS_SQL, "rows": 1, "size": 100}),
    ],
)
async def test_what_never_ends_is_killed_and_delays_nobody(job: str, data: bytes, args: dict[str, Any]) -> None:
    """Regular expression, JMESPath or SQL: the loop beats on, and the call ends in time."""
    if job == "search":
        args = {**args, "ignore_case": False, "context": 10, "limit": 10}
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.02)
            beats += 1

    beating = asyncio.create_task(beat())
    began = time.monotonic()
    with pytest.raises(ToolError, match=r"longer than 1 s|more memory"):
        await confined(job, data, timeout=1.0, **args)
    beating.cancel()
    assert time.monotonic() - began < 15
    assert beats > 10


async def test_what_is_huge_is_refused() -> None:
    """A short expression that stands for a value no one could read."""
    with pytest.raises(ToolError, match=r"ask for less|more memory|longer than"):
        await confined("json", b"{}", timeout=4.0, expression="[@,@]|" * 60 + "@")


async def test_search_tells_offsets_in_bytes() -> None:
    """So that the page tool can go there."""
    text = "ä\nöne two\nthree TWO\n"
    found = await confined("search", text.encode(), pattern="two", regex=False, ignore_case=True, context=3, limit=1)
    assert (found["found"], found["shown"]) == (2, 1)
    [hit] = found["hits"]
    assert text.encode()[hit["offset"] :].startswith(b"two")
    assert hit["line"] == 2
    with pytest.raises(ToolError, match="no regular expression"):
        await confined("search", b"", pattern="(", regex=True, ignore_case=True, context=3, limit=1)


async def test_files_under_a_root(tmp_path: Path) -> None:
    """The factory's tools take a path too, as the file tools do."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.csv").write_text(CSV)
    (root / "a.json").write_text(json.dumps(ORDERS))
    (tmp_path / "out.csv").write_text(CSV)
    tools = Toolset(queries(root, prefix="my_"))
    assert list(tools) == ["my_csv_query", "my_json_query"]
    count = await _call(tools["my_csv_query"], path="a.csv", sql="select count(*) from data")
    assert count["rows"] == [[3]]
    assert await _call(tools["my_json_query"], path="a.json", expression="length(orders)") == 2
    for path in ("../out.csv", "/etc/passwd", "none.csv"):
        with pytest.raises(ToolError):
            await _call(tools["my_csv_query"], path=path, sql="select count(*) from data")
    with pytest.raises(ToolArgumentsInvalid):
        csv_query.validate({"path": "a.csv", "sql": "select 1"})


# ------------------------------------------------------------------------------------------------------------- SQLite


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database file with a table and a view."""
    path = tmp_path / "it's 100%?.db"
    conn = sqlite3.connect(path)
    conn.executescript(
        "create table orders (id integer primary key, city text, raw blob);"
        "create view cities as select distinct city from orders;"
        "insert into orders values (1, 'Bonn', x'00ff'), (2, 'Köln', null);"
    )
    conn.close()
    return path


async def test_sqlite_is_read(database: Path) -> None:
    """By one SELECT, and its tables listed."""
    query, schema = sql_query(f"sqlite:///{database}")
    assert {query.definition.effect, schema.definition.effect} == {"pure"}
    answer = await _call(query, sql="select * from orders order by id;")
    assert answer == {"columns": ["id", "city", "raw"], "rows": [[1, "Bonn", "x'00ff'"], [2, "Köln", None]]}
    assert await _call(schema) == [
        {"table": "cities", "kind": "view", "columns": ["city TEXT"]},
        {"table": "orders", "kind": "table", "columns": ["id INTEGER primary key", "city TEXT", "raw BLOB"]},
    ]
    assert [each["table"] for each in await _call(schema, pattern="ord%")] == ["orders"]


@pytest.mark.parametrize(
    "sql",
    [
        "delete from orders",
        "drop table orders",
        "insert into orders values (3, 'x', null)",
        "update orders set city = 'x' returning *",
        "with x as (select 1) insert into orders select 3, 'x', null returning id",
        "pragma query_only = off",
        "pragma journal_mode = delete",
        "attach ':memory:' as other",
        "vacuum into '/tmp/holdfast-stolen.db'",
        "begin; delete from orders; commit",
        "select 1; delete from orders",
        "select load_extension('libc.so')",
        "select sqlite_log(1, 'forged')",
        "select fts3_tokenizer('simple')",
        "select optimize(1)",
        "select rtreecheck('orders')",
        "select * from dbstat",
        "select * from sqlite_stmt",
        "select * from pragma_query_only",
        "create temp table t as select 1",
        "reindex",
        "-- only a comment",
    ],
)
async def test_sqlite_is_never_written(database: Path, sql: str) -> None:
    """Whatever the statement; the file stays as it was, byte for byte."""
    before = await asyncio.to_thread(database.read_bytes)
    query, _ = sql_query(f"sqlite:///{database}")
    with pytest.raises(ToolError):
        await _call(query, sql=sql)
    assert await asyncio.to_thread(database.read_bytes) == before


async def test_sqlite_has_limits(database: Path) -> None:
    """Rows, bytes and time; and no file is made where there is none."""
    query, _ = sql_query(f"sqlite:///{database}", max_rows=1)
    assert len((await _call(query, sql="select * from orders"))["rows"]) == 1
    missing = database.with_name("none.db")
    query, _ = sql_query(f"sqlite:///{missing}")
    with pytest.raises(ToolError, match="no database file"):
        await _call(query, sql="select 1")
    assert not missing.exists()


def test_an_address_is_checked_at_once() -> None:
    """When the agents file is read; the message does not repeat a password."""
    wrong = [(None, None), ("sqlite:///a.db", "X"), ("mysql://u:secret@h/d", None), ("sqlite:///", None)]
    for dsn, env in wrong:
        with pytest.raises(ConfigurationError) as caught:
            sql_query(dsn, env=env)
        assert "secret" not in str(caught.value)
