"""Which statements may be sent to PostgreSQL: what reads passes, written anew; what is disguised does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import ToolError
from holdfast.tools.builtin.confined import confined
from holdfast.tools.builtin.confined_sql import Unsafe, read_statement

HERE = Path(__file__).parent
READS = HERE.joinpath("sql_reads.sql").read_text(encoding="utf-8").rstrip("\n").split("\n;;\n")
ATTACKS = HERE.joinpath("sql_attacks.sql").read_text(encoding="utf-8").rstrip("\n").split("\n;;\n")


@pytest.mark.parametrize("sql", READS)
def test_what_reads_passes(sql: str) -> None:
    """And stays the same when it is read a second time."""
    once = read_statement(sql)
    assert read_statement(once) == once


@pytest.mark.parametrize("sql", ATTACKS)
def test_what_does_more_is_refused(sql: str) -> None:
    """Whatever it is disguised as: comments, quotes, escapes, dollars, schemas, unfinished literals."""
    with pytest.raises(Unsafe):
        read_statement(sql)


def test_the_tables_are_long() -> None:
    """Each line stands for a way in which models ask, or for one in which a filter was passed by."""
    assert (len(set(READS)) >= 60, len(set(ATTACKS)) >= 130) == (True, True)


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("select 1 /* /* */ , pg_notify('a','b') /* */ */", "SELECT 1"),
        ("select 'a\\', '--', '/*'", "SELECT 'a\\', '--', '/*'"),
        ('select Total, "Odd" from Orders o', 'SELECT "total", "Odd" FROM "orders" AS "o"'),
    ],
)
def test_it_is_written_anew(sql: str, text: str) -> None:
    """Without comments, with each name quoted: what two parsers may read in two ways does not reach the second."""
    assert read_statement(sql) == text


def test_functions_of_the_database_are_named_by_the_user() -> None:
    """By name, with the schema where it has one; no other passes along with them."""
    assert read_statement("select similarity(a, 'b'), app.total(1)", ["similarity", "app.total"])
    for sql in ("select app.similarity('a')", "select evil.total(1)", "select other(1)", "select pg_catalog.total(1)"):
        with pytest.raises(Unsafe):
            read_statement(sql, ["similarity", "app.total"])


@pytest.mark.parametrize(
    "sql", ["select " + "(" * 4000 + "1" + ")" * 4000, "select " + "case when 1=1 then " * 800, "((" * 3000]
)
async def test_what_takes_for_ever_is_stopped(sql: str) -> None:
    """A parser is code that strangers feed: it runs where it can be killed."""
    with pytest.raises(ToolError):
        await confined("postgres", sql=sql, functions=[], timeout=10.0)
