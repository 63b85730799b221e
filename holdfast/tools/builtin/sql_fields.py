"""Whether each `source.name` of a statement reads a column, and calls no function of that name.

PostgreSQL takes `o.name` for `name(o)` where `o` has no column `name`. The tool `sql_query` looks that up in the
catalog, in the transaction that the statement then runs in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.errors import ToolError
from holdfast.tools.builtin.confined_sql import FUNCTIONS, TYPES

if TYPE_CHECKING:
    import asyncpg

    Session = asyncpg.Connection[asyncpg.Record]

__all__ = ["Field", "check_fields"]

Field = tuple[str, str, Sequence[str] | None]  # source, name, tables that must have it; None: it may be no column

# Functions that a name behind a dot may call: found without their schema, and content with one argument.
_CALLABLE = """
select distinct p.proname
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.proname = any($1::text[]) and n.nspname = any(current_schemas(true))
  and p.pronargs >= 1 and p.pronargs - p.pronargdefaults - (p.provariadic <> 0)::int <= 1
  and not (n.nspname = 'pg_catalog' and p.proname = any($2::text[]))
  and p.proname <> all($3::text[]) and n.nspname || '.' || p.proname <> all($3::text[])
"""
_MISSING = """
select t.name from unnest($1::text[]) t(name)
where not exists (select from pg_attribute a
                  where a.attrelid = to_regclass(t.name) and a.attname = $2 and not a.attisdropped)
limit 1
"""


async def check_fields(conn: Session, fields: Sequence[Field], functions: Sequence[str]) -> None:
    """Make sure that names behind a dot call no function but *functions* and PostgreSQL's own that compute.

    Raises:
        ToolError: one may; the message is for the model.

    """
    names = sorted({name for _, name, _ in fields})
    if not names:
        return
    harmless = sorted(FUNCTIONS | TYPES)
    found = {row["proname"] for row in await conn.fetch(_CALLABLE, names, harmless, list(functions))}
    for source, name, tables in fields:
        if name not in found:
            continue
        if tables is None or await conn.fetchval(_MISSING, list(tables), name) is not None:
            raise ToolError(
                f"{source}.{name} would call the function {name}(), which is not in the list of allowed functions: "
                f"{source} is not known to have a column of that name. If it has one, select it by name in a "
                "subquery in FROM."
            )
