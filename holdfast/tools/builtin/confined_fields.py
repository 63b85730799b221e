"""Which `source.name` a statement reads. Runs in the confined process, with sqlglot and the standard library alone.

PostgreSQL takes `o.name` for the call `name(o)` where the source `o` has no such column: for a row of a table, and for
the value of a function in FROM. So the columns are looked up in the catalog before the statement runs.
"""

from __future__ import annotations

import re
from typing import Any

_CALLED = re.compile(r"\b([A-Za-z_][A-Za-z0-9_]*)\(")  # names of functions have no quotes


def fields(text: str) -> list[tuple[str, str, list[str] | None]]:
    """Return source, name and tables of each `source.name` in a statement that `read_statement` has written.

    Each of the tables must have a column of that name; with None, nothing shows that it is a column. What the statement
    itself names as a column is left out.
    """
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(text, read="postgres")
    parts = {cte.alias: _columns(cte) for cte in tree.find_all(exp.CTE)}
    sources: dict[str, list[Any]] = {}
    for node in tree.walk():
        if isinstance(node, exp.Table):
            sources.setdefault(node.alias_or_name, []).append(node)
        elif isinstance(node, exp.TableAlias) and not isinstance(node.parent, exp.CTE | exp.Table):
            sources.setdefault(node.name, []).append(node.parent)
    called = {name.lower() for name in _CALLED.findall(text)}  # in FROM, each is a source of its own name
    found = []
    for source, name in sorted({(node.table, node.name) for node in tree.find_all(exp.Column) if node.table}):
        tables: list[str] | None = []
        known = sources.get(source, [])
        for each in known:
            more = _tables(each, name, parts)
            tables = None if tables is None or more is None else tables + more
        if not known or source.lower() in called:
            tables = None
        if tables is None or tables:
            found.append((source, name, tables))
    return found


def _tables(source: Any, name: str, parts: dict[str, set[str]]) -> list[str] | None:
    """Return the tables that must have a column *name* for *source* to have it; None: nothing shows that it has."""
    from sqlglot import exp

    alias = source.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        return [] if name in {column.name for column in alias.args["columns"]} else None
    if isinstance(source, exp.Subquery):
        return [] if name in _columns(source) else None
    if not isinstance(source, exp.Table) or not isinstance(source.this, exp.Identifier):
        return None
    if not source.db and source.name in parts:
        return [] if name in parts[source.name] else None
    names = [part for part in (source.catalog, source.db, source.name) if part]
    return [".".join('"' + part.replace('"', '""') + '"' for part in names)]


def _columns(query: Any) -> set[str]:
    """Return the columns that a part of WITH, or a query in FROM, names itself."""
    from sqlglot import exp

    alias = query.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        return {column.name for column in alias.args["columns"]}
    inner = query.this
    while isinstance(inner, exp.SetOperation | exp.Subquery):
        inner = inner.this  # the first one names them
    if not isinstance(inner, exp.Select):
        return set()
    return {each.alias_or_name for each in inner.expressions if isinstance(each, exp.Alias | exp.Column)}
