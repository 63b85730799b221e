"""The tools `sql_query` and `sql_schema`, which `sql_query` makes for one database. They read, and do nothing else.

What keeps them from writing, from the inside out: the statement is parsed and written anew, and may call only functions
that compute; it runs inside a SELECT of ours, sent as one statement; in a read-only transaction that is rolled back;
under a time-out; on a connection whose role owns nothing and may call nothing that writes or signals. What the role may
read is for the database's owner to say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from holdfast.errors import ConfigurationError, ToolError
from holdfast.secrets import reveal, secret_names
from holdfast.tools.builtin.confined import confined
from holdfast.tools.builtin.sql_roles import Limits
from holdfast.tools.tool import AnyTool, Tool
from holdfast.tools.toolset import makes_tools

__all__ = ["sql_query"]

_POSTGRES = ("postgresql://", "postgres://")
_TABLES = 200
_FUNCTION = re.compile(r"([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}")

Sql = Annotated[str, Field(min_length=6, max_length=20_000, description="one SELECT, or WITH … SELECT, or VALUES")]
Like = Annotated[str, Field(min_length=1, max_length=200, description="table names to list, as for SQL's LIKE")]


@makes_tools
def sql_query(
    dsn: str | None = None,
    *,
    env: str | None = None,
    timeout: float = 15.0,
    max_rows: int = 200,
    max_bytes: int = 256 * 1024,
    functions: Iterable[str] = (),
    allow_public_functions: bool = False,
    allow_superuser: bool = False,
    prefix: str = "",
) -> list[AnyTool]:
    """Return the pure tools `sql_query` and `sql_schema` for a PostgreSQL or SQLite database.

    Args:
        dsn: `postgresql://user:password@host:5432/name`, `sqlite:///relative.db` or `sqlite:////absolute.db`; or
            `secret("NAME")`, for all of it or for the password.
        env: instead, the variable that holds it, read at each call: so no secret stands in the agents file.
        timeout: seconds of a statement.
        max_rows: of one answer; the rest is cut off, and the model told so.
        max_bytes: of one answer, and of a single row.
        functions: further functions of the database that a statement may call, besides PostgreSQL's own that compute:
            `["similarity"]`, `["app.total"]`. A model that may call one can run everything in its body.
        allow_public_functions: let it connect with a role that may call functions which PostgreSQL lets every role call
            and which write or send signals, such as pg_terminate_backend. Use it if you cannot revoke them. Statements
            cannot name them.
        allow_superuser: let it connect as a superuser, or with a role that owns something, may read or write the
            server's files, run its programs or end its sessions. A read-only transaction does not stop those.
        prefix: goes before the tools' names, for a second database.

    Raises:
        ConfigurationError: neither or both of *dsn* and *env* are given, or the dsn is of no known kind.

    """
    if (dsn is None) == (env is None):
        raise ConfigurationError('sql_query: give either a dsn, or env="NAME" of the variable that holds it.')
    if not (timeout > 0 and max_rows > 0 and max_bytes > 0):
        raise ConfigurationError("sql_query: timeout, max_rows and max_bytes must be above 0.")
    more = [functions] if isinstance(functions, str) else list(functions)
    if not all(isinstance(name, str) and _FUNCTION.fullmatch(name) for name in more):
        raise ConfigurationError(
            f"sql_query(functions={more}): write names in lower case: ['similarity', 'app.total']."
        )
    limits = Limits(timeout, max_rows, max_bytes, superuser=allow_superuser, public=allow_public_functions)
    if dsn is not None and not dsn.startswith("${secret:"):
        _kind(dsn)

    async def where() -> str:
        found = await reveal(dsn) if dsn is not None else os.environ.get(env or "")
        if not found:
            raise ToolError(f"the variable {env}, which holds the address of the database, is not set")
        return found

    async def run(sql: Sql) -> dict[str, Any]:
        """Read from the database by one SQL SELECT. Nothing can be changed."""
        address, plain = await where(), sql.strip().rstrip(";").strip()
        if _kind(address) == "sqlite":
            answer: dict[str, Any] = await confined(
                "sqlite", path=_file(address), sql=plain, timeout=timeout + 5.0, rows=max_rows, size=max_bytes
            )
            return answer
        from holdfast.tools.builtin.sql_postgres import select

        anew = await confined("postgres", sql=plain, functions=more, timeout=timeout + 5.0)
        return await select(address, plain, anew["sql"], limits, fields=anew["fields"], functions=more)

    async def schema(pattern: Like = "%") -> list[dict[str, Any]]:
        """List the tables and views that can be read, with their columns and types."""
        address = await where()
        if _kind(address) == "sqlite":
            found: list[dict[str, Any]] = await confined(
                "sqlite_schema", path=_file(address), pattern=pattern, tables=_TABLES
            )
            return found
        from holdfast.tools.builtin.sql_postgres import list_tables

        return await list_tables(address, pattern, _TABLES, limits)

    given = timeout + 20.0  # to parse, to connect, and to end a statement that took too long
    made: list[AnyTool] = [
        Tool(run, name=f"{prefix}sql_query", effect="pure", timeout=given),
        Tool(schema, name=f"{prefix}sql_schema", effect="pure", timeout=given + 10.0),
    ]
    for tool in made:
        tool.secrets = frozenset(secret_names(dsn))
    return made


def _kind(dsn: str) -> str:
    if dsn.startswith(_POSTGRES):
        return "postgres"
    if dsn.startswith("sqlite:///") and len(dsn) > len("sqlite:///"):
        return "sqlite"
    raise ConfigurationError(
        f"sql_query: {dsn.partition('://')[0][:40]!r} is no database it knows. Write "
        "postgresql://user:password@host/name or sqlite:///file.db."
    )


def _file(dsn: str) -> str:
    path = Path(dsn.removeprefix("sqlite:///")).resolve()
    if not path.is_file():
        raise ToolError(f"there is no database file {path.name}")
    return str(path)
