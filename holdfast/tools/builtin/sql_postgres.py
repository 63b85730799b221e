"""One read of a user's PostgreSQL, on a connection made for it. The tool `sql_query` calls it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from holdfast.errors import ToolError
from holdfast.secrets import is_plain
from holdfast.tools.builtin.sql_fields import Field, check_fields
from holdfast.tools.builtin.sql_roles import Limits, check_role

if TYPE_CHECKING:
    import asyncpg

    Session = asyncpg.Connection[asyncpg.Record]

__all__ = ["list_tables", "select"]

_CONNECT = 10.0  # seconds
_UNREAD = "its address may be wrong; special characters in user and password must be percent-encoded"
_FETCHED = 10  # rows at a time: each may be as long as a whole answer

_TABLES = """
select n.nspname as schema, c.relname as name,
       case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                      else 'table' end as kind,
       obj_description(c.oid, 'pg_class') as comment,
       array(select a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
                    || case when a.attnotnull then ' not null' else '' end
             from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               and has_column_privilege(c.oid, a.attnum, 'select')
             order by a.attnum limit 300) as columns
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
  and n.nspname <> 'information_schema' and n.nspname not like 'pg\\_%'
  and has_schema_privilege(n.oid, 'usage') and has_any_column_privilege(c.oid, 'select')
  and c.relname ilike $1
order by 1, 2 limit $2
"""


@asynccontextmanager
async def _session(dsn: str, limits: Limits) -> AsyncIterator[Session]:
    """Open a read-only transaction, closed with its connection: no lock, setting or temporary table outlives a call."""
    import asyncpg

    timeout = limits.timeout
    try:
        conn = await asyncpg.connect(
            dsn,
            timeout=_CONNECT,
            command_timeout=timeout + 2.0,  # should the server not keep to its own
            statement_cache_size=0,  # also right behind a pooler
            server_settings={"application_name": "holdfast-sql-query"},  # poolers take no others
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as exc:
        # The tool's own time-out included. No address in the message: it holds the password.
        raise ToolError(f"the database cannot be reached: {_said(exc, dsn)}") from None
    try:
        transaction = conn.transaction(readonly=True)
        await transaction.start()
        try:
            await conn.execute(
                "select set_config('statement_timeout', $1, true), set_config('lock_timeout', $1, true), "
                "set_config('idle_in_transaction_session_timeout', $2, true), "
                "set_config('standard_conforming_strings', 'on', true)",
                f"{int(timeout * 1000)}ms",
                f"{int(timeout * 1000) + 5000}ms",
            )
            await check_role(conn, limits)
            yield conn
        finally:
            if not conn.is_closed():
                await transaction.rollback()  # a commit would send what pg_notify was told in a SELECT
    except asyncpg.QueryCanceledError as exc:
        raise ToolError(f"stopped after {timeout:g} s: {exc}. Ask for less, or narrow it down.") from None
    except asyncpg.PostgresError as exc:
        raise ToolError(_explained(exc)) from None
    except TimeoutError:
        raise ToolError(f"the database did not answer within {timeout:g} s") from None
    except (asyncpg.InterfaceError, OSError) as exc:
        raise ToolError(f"the connection to the database failed: {_said(exc, dsn)}") from None
    finally:
        try:
            await asyncio.shield(conn.close(timeout=2.0))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # TimeoutError is an OSError
            conn.terminate()


def _said(exc: BaseException, dsn: str) -> str:
    """Return an error's words without the address, which holds the password.

    The driver quotes a part of an address that it cannot read, and takes a part of a password with a sign in it for
    port or database: of those, nothing is said.
    """
    import asyncpg

    if isinstance(exc, (ValueError, asyncpg.ClientConfigurationError)) or not is_plain(dsn):
        return _UNREAD
    text = str(exc) or type(exc).__name__
    for secret in (dsn, dsn.partition("://")[2].rpartition("@")[0]):
        if secret:
            text = text.replace(secret, "…")
    return text


def _explained(exc: Any) -> str:
    """Return what PostgreSQL says of a statement, with its hint."""
    parts = [str(exc)]
    for name in ("detail", "hint"):
        more = getattr(exc, name, None)
        if more and more not in parts[0]:
            parts.append(f"{name}: {more}")
    return "; ".join(parts)


async def select(
    dsn: str,
    sql: str,
    anew: str,
    limits: Limits,
    *,
    fields: Sequence[Field] = (),
    functions: Sequence[str] = (),
) -> dict[str, Any]:
    """Run one query and return columns and rows.

    The model's own text, *sql*, is only prepared, which parses and runs nothing: so errors point into it, and columns
    have its names. What runs is *anew*, written from its tree, as a subquery of ours: there only what reads can stand,
    PostgreSQL cuts rows and lengths, and writes each row as JSON. None of *fields* may call a function, but for those
    of *functions* and PostgreSQL's own that compute.

    Raises:
        ToolError: it is refused, wrong, or took too long.

    """
    rows, size = limits.rows, limits.size
    async with _session(dsn, limits) as conn:
        await check_fields(conn, fields, functions)
        columns = [each.name for each in (await conn.prepare(sql)).get_attributes()]
        if not columns:
            raise ToolError("only a query that returns rows is allowed here: one SELECT")
        names = ", ".join(f"c{at}" for at in range(len(columns)))  # two columns may share a name
        found = conn.cursor(
            f"select left(row_to_json(q)::text, {int(size) + 1}) as row from (\n{anew}\n) q({names}) "  # noqa: S608
            f"limit {int(rows) + 1}",
            prefetch=_FETCHED,
        )
        out: list[list[Any]] = []
        used, cut = 0, None
        async for record in found:
            text: str = record["row"]
            used += len(text)
            if len(out) >= rows or used > size:
                cut = f"only the first {len(out)} rows are here: choose fewer columns, aggregate, or LIMIT and OFFSET"
                if not out:
                    raise ToolError(
                        f"one row alone is longer than {size:,} characters: choose fewer columns, or left(…)"
                    )
                break
            out.append(list(json.loads(text, parse_float=_number, parse_int=_whole).values()))
    answer: dict[str, Any] = {"columns": columns, "rows": out}
    return answer if cut is None else {**answer, "cut": cut}


def _whole(text: str) -> int | str:
    """Return a whole number, or its text if it has more digits than any integer type of a database."""
    return int(text) if len(text) <= 20 else text


def _number(text: str) -> float | str:
    """Return a number that a float holds exactly as it is written; else its text."""
    return float(text) if len(text) <= 16 else text


async def list_tables(dsn: str, pattern: str, tables: int, limits: Limits) -> list[dict[str, Any]]:
    """Return the tables that this role may read, with their columns.

    Raises:
        ToolError: the database cannot be reached, or is not to be asked.

    """
    async with _session(dsn, limits) as conn:
        found = await conn.fetch(_TABLES, pattern, tables)
    listing = []
    for row in found:
        name = row["name"] if row["schema"] == "public" else f"{row['schema']}.{row['name']}"
        told: dict[str, Any] = {"table": name, "kind": row["kind"], "columns": list(row["columns"])}
        if row["comment"]:
            told["comment"] = row["comment"][:500]
        listing.append(told)
    return listing
