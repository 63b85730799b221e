"""Which roles `sql_query` asks a real PostgreSQL with: those that can do nothing but read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from holdfast.errors import ToolError
from holdfast.tools import sql_query
from tests.integration._shop import Shop, a_shop, call

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(servers: dict[str, str]) -> AsyncIterator[Shop]:
    """Make the database."""
    async with a_shop(servers["database_url"]) as made:
        yield made


async def test_a_superuser_is_refused(shop: Shop) -> None:
    """And a role that may run programs on the server: unless the user says so, nothing is asked."""
    query, schema = sql_query(shop.admin)
    for asked in (call(query, sql="select 1"), call(schema)):
        with pytest.raises(ToolError, match="allow_superuser"):
            await asked
    assert (await call(sql_query(shop.admin, allow_superuser=True)[0], sql="select 1"))["rows"] == [[1]]


async def test_the_role_that_opened_the_session_counts(shop: Shop) -> None:
    """A superuser who has taken on a reader's role can take it off again."""
    reader = urlsplit(shop.reader).username
    dsn = f"{shop.admin}{'&' if '?' in shop.admin else '?'}options=-c%20role%3D{reader}"
    conn = await asyncpg.connect(dsn)
    try:
        assert await conn.fetchval("select current_user") == reader
    finally:
        await conn.close()
    with pytest.raises(ToolError, match="with the rights of"):
        await call(sql_query(dsn)[0], sql="select 1")


async def test_an_owner_is_refused(shop: Shop) -> None:
    """By name of what it owns; a member of the owning role too, who may become it."""
    with pytest.raises(ToolError, match=r"as the owner of (table orders|sequence numbers)"):
        await call(sql_query(shop.owner)[0], sql="select 1")
    reader, owner = urlsplit(shop.reader).username, urlsplit(shop.owner).username
    await shop.fetch(f"grant {owner} to {reader}")
    try:
        with pytest.raises(ToolError, match="as the owner of"):
            await call(sql_query(shop.reader)[0], sql="select 1")
    finally:
        await shop.fetch(f"revoke {owner} from {reader}")


@pytest.mark.parametrize(
    ("give", "take", "named"),
    [
        ("grant pg_read_server_files to {}", "revoke pg_read_server_files from {}", "pg_read_server_files"),
        ("grant pg_signal_backend to {}", "revoke pg_signal_backend from {}", "pg_signal_backend"),
        ("alter role {} replication", "alter role {} noreplication", "_reader"),
        (
            "grant execute on function pg_switch_wal() to {}",
            "revoke execute on function pg_switch_wal() from {}",
            "pg_switch_wal",
        ),
        (
            "grant execute on function pg_terminate_backend(int, bigint) to {}",
            "revoke execute on function pg_terminate_backend(int, bigint) from {}",
            "pg_terminate_backend",
        ),
        ("create extension dblink", "drop extension dblink", "dblink"),
    ],
)
async def test_a_role_that_may_act_is_refused(shop: Shop, give: str, take: str, named: str) -> None:
    """A read-only transaction does not stop what it may call; once the right is gone, it is asked again."""
    reader = urlsplit(shop.reader).username
    await shop.fetch(give.format(reader))
    try:
        with pytest.raises(ToolError, match=named):
            await call(sql_query(shop.reader)[0], sql="select 1")
    finally:
        await shop.fetch(take.format(reader))
    assert (await call(sql_query(shop.reader)[0], sql="select 1"))["rows"] == [[1]]


async def test_what_everybody_may_call_is_revoked_first(shop: Shop) -> None:
    """Or the user says that it cannot be: then the list of functions alone keeps a model from it."""
    await shop.fetch("grant execute on function pg_cancel_backend(int) to public")
    try:
        with pytest.raises(ToolError, match=r"every role may call pg_cancel_backend\(integer\).*docs/howto/tools.md"):
            await call(sql_query(shop.reader)[0], sql="select 1")
        query, _ = sql_query(shop.reader, allow_public_functions=True)
        assert (await call(query, sql="select 1"))["rows"] == [[1]]
        with pytest.raises(ToolError, match="may be called"):
            await call(query, sql="select pg_cancel_backend(1)")
    finally:
        await shop.fetch("revoke execute on function pg_cancel_backend(int) from public")
