"""A database of orders with roles for `sql_query`: one that may only read, one that owns it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from holdfast.memory.database import connect
from holdfast.tools import ToolContext
from holdfast.tools.tool import AnyTool

__all__ = ["Shop", "a_shop", "call"]


class Shop:
    """A database with a table, and two roles: one that may only read, one that owns it."""

    def __init__(self, admin: str, name: str) -> None:
        self.admin = admin
        parts = urlsplit(admin)
        place = f"{parts.hostname}:{parts.port}" if parts.hostname else ""
        self.reader = f"postgresql://{name}_reader:pass-word@{place}/{name}?{parts.query}"
        self.owner = f"postgresql://{name}_owner:pass-word@{place}/{name}?{parts.query}"

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Ask as the administrator."""
        conn = await asyncpg.connect(self.admin)
        try:
            return await conn.fetch(query, *args)
        finally:
            await conn.close()


# As docs/howto/tools.md has it.
REVOKES = """
do $$ declare f regprocedure; begin
  for f in select oid from pg_proc where pronamespace = 'pg_catalog'::regnamespace
           and proname in ('pg_logical_emit_message', 'pg_terminate_backend', 'pg_cancel_backend')
  loop execute format('revoke execute on function %s from public', f); end loop;
end $$
"""


@asynccontextmanager
async def a_shop(database_url: str) -> AsyncIterator[Shop]:
    """Make the database."""
    name = f"s{uuid.uuid4().hex[:12]}"
    admin = await connect(database_url)
    await admin.execute(f"create database {name}")
    for role in ("reader", "owner", "other"):
        await admin.execute(f"create role {name}_{role} login password 'pass-word'")
    await admin.close()
    base, _, rest = database_url.partition("?")
    url = base.rpartition("/")[0] + f"/{name}" + (f"?{rest}" if rest else "")
    conn = await asyncpg.connect(url)
    await conn.execute(
        f"""
        grant create, usage on schema public to {name}_owner;
        create table orders (id int primary key, city text not null, total numeric(10, 2), at timestamptz, extra jsonb);
        insert into orders select n, 'city ' || n, n * 1.5, '2026-01-01Z', jsonb_build_object('n', n)
        from generate_series(1, 500) n;
        comment on table orders is 'What was ordered';
        create table hidden (secret text); insert into hidden values ('launch code');
        create sequence numbers;
        alter table orders owner to {name}_owner; alter sequence numbers owner to {name}_owner;
        grant select on orders to {name}_reader; grant usage on sequence numbers to {name}_reader;
        create procedure wipe() language sql as 'delete from orders';
        create function wiped() returns int language sql as 'delete from orders; select 1';
        create type state as enum('open', 'shut');
        create table items (order_id int, sku text, n int);
        create table places (id int primary key, city text not null, total numeric(10, 2), at timestamptz, extra jsonb,
                             tags text[], st state, x xml, "Odd Name" int, "user" text);
        insert into places values (1, 'abc xyz', 12.34, '2026-01-02 03:04:05Z', '{{"n": 1, "a": [1, {{"b": 2}}]}}',
                                   '{{a,b}}', 'open', null, 3, 'u');
        insert into places values (-2, 'b%', null, null, null, null, null, null, 4, 'v');
        insert into items values (1, 'sku', 2), (1, 'other', 5);
        create table settings (n int, current_setting int); insert into settings values (1, 1);
        grant select on settings to {name}_reader;
        create function counted(orders) returns int language sql stable as 'select $1.id';
        create function counted(int) returns int language sql stable as 'select $1';
        create schema app; grant usage on schema app to public;
        create function app.total(int) returns int language sql immutable as 'select $1 * 2';
        """
    )
    await conn.execute(REVOKES)
    await conn.close()
    yield Shop(url, name)


async def call(tool: AnyTool, **args: Any) -> Any:
    """Call a tool as a worker would, with arguments as a model sends them."""
    ctx = ToolContext(
        idempotency_key="k", tenant="t", thread="c", run_id="r", step_no=1, deadline=time.monotonic() + 60
    )
    return await tool(**tool.bind(tool.validate(args), ctx))
