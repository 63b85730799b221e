"""The program that `confined` starts: one job on what it reads, one line of JSON on what it writes.

It runs by its path with `python -I`, so it imports nothing of Holdfast. Only `confined` starts it.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote


class Refused(Exception):
    """The input does not fit; the message is for the model."""


# -------------------------------------------------------------------------------------------------------------- text


def search(data: bytes, *, pattern: str, regex: bool, ignore_case: bool, context: int, limit: int) -> dict[str, Any]:
    """Find a text or regular expression; each hit with its offset in bytes and what stands around it."""
    text = data.decode("utf-8", "replace")
    try:
        expression = re.compile(pattern if regex else re.escape(pattern), re.IGNORECASE * ignore_case | re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as exc:
        raise Refused(f"{pattern!r} is no regular expression: {exc}") from None
    hits: list[dict[str, Any]] = []
    count = offset = at = line = 0
    for match in expression.finditer(text):
        count += 1
        if count > limit:
            continue
        line += text.count("\n", at, match.start())
        offset += len(text[at : match.start()].encode())
        at = match.start()
        around = text[max(0, at - context) : min(len(text), max(match.end(), at) + context)]
        hits.append({"offset": offset, "line": line + 1, "text": around[: 4 * context + 400]})
    return {"found": count, "shown": len(hits), "hits": hits}


# -------------------------------------------------------------------------------------------------------------- JSON


def query_json(data: bytes, *, expression: str) -> Any:
    """Evaluate a JMESPath expression."""
    import jmespath  # type: ignore[import-untyped]
    from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped]

    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise Refused(f"this is not JSON: {exc}") from None
    try:
        return jmespath.search(expression, value)
    except (JMESPathError, TypeError, ValueError) as exc:
        raise Refused(f"the JMESPath expression does not fit: {' '.join(str(exc).split())[:400]}") from None


# --------------------------------------------------------------------------------------------------------------- CSV

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


def _rows(data: bytes, delimiter: str | None) -> tuple[list[str], Iterator[list[str]]]:
    """Return the names of the columns and the rows."""
    text = data.decode("utf-8-sig", "replace")
    first = next((line for line in text.splitlines() if line.strip()), "")
    if delimiter is None:
        delimiter = max(",;\t|", key=first.count)
    csv.field_size_limit(16 * 1024 * 1024)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    head = next((row for row in reader if row), None)
    if head is None:
        raise Refused("this is empty: a table's first line names its columns")
    if len(head) > 500:
        raise Refused(f"the table has {len(head)} columns, more than 500")
    names: list[str] = []
    for number, cell in enumerate(head, start=1):
        name = " ".join(cell.split())[:100] or f"column_{number}"
        taken = {each.casefold() for each in names}
        names.append(name if name.casefold() not in taken else f"{name}_{number}")
    return names, (row for row in reader if row)


def _load(data: bytes, delimiter: str | None) -> sqlite3.Connection:
    """Return a database in memory whose one table `data` is the CSV, numbers as numbers, empty cells as null."""
    names, rows = _rows(data, delimiter)
    width = len(names)
    table = [[cell.strip() or None for cell in (row + [""] * width)[:width]] for row in rows]
    kinds = []
    for at in range(width):
        cells = [cell for row in table if (cell := row[at]) is not None]
        if cells and all(_WHOLE.fullmatch(cell) for cell in cells):
            kinds.append("integer")
        elif cells and all(_DECIMAL.fullmatch(cell) for cell in cells):
            kinds.append("real")
        else:
            kinds.append("text")
    conn = sqlite3.connect(":memory:", isolation_level=None)
    columns = ", ".join(
        '"{}" {}'.format(name.replace('"', '""'), kind) for name, kind in zip(names, kinds, strict=True)
    )
    conn.execute(f"create table data ({columns})")
    conn.execute("begin")
    conn.executemany(f"insert into data values ({', '.join('?' * width)})", table)  # noqa: S608 - question marks
    conn.execute("commit")
    return conn


def query_csv(data: bytes, *, sql: str, rows: int, size: int, delimiter: str | None = None) -> dict[str, Any]:
    """Run one SELECT over the table `data`."""
    try:
        conn = _load(data, delimiter)
    except csv.Error as exc:
        raise Refused(f"this is not CSV: {exc}") from None
    return _select(conn, sql, rows, size)


def columns_csv(data: bytes, *, columns: list[str], start: int, rows: int, size: int) -> dict[str, Any]:
    """Return some columns of some rows; no column named: all of them."""
    names, body = _rows(data, None)
    by_name = {name.casefold(): at for at, name in enumerate(names)}
    missing = [column for column in columns if column.casefold() not in by_name]
    if missing:
        raise Refused(f"there is no column {missing[0]!r}; there are: {', '.join(names)[:2000]}")
    chosen = [by_name[column.casefold()] for column in columns] or list(range(len(names)))
    out: list[list[str]] = []
    count = used = 0
    try:
        for count, row in enumerate(body, start=1):
            if count <= start or len(out) >= rows or used > size:
                continue
            cells = [row[at] if at < len(row) else "" for at in chosen]
            used += sum(map(len, cells))
            out.append(cells)
    except csv.Error as exc:
        raise Refused(f"this is not CSV: {exc}") from None
    return {"columns": [names[at] for at in chosen], "rows": out, "first_row": start, "rows_in_all": count}


# ------------------------------------------------------------------------------------------------------------- SQLite

# SQLite's own functions that only compute, by their names; an extension, or a later SQLite, may bring some that act.
_FUNCTIONS = """
abs changes char coalesce concat concat_ws format glob hex if ifnull iif instr last_insert_rowid length like likelihood
likely lower ltrim max min nullif octet_length printf quote random randomblob replace round rtrim sign soundex
sqlite_source_id sqlite_version substr substring total_changes trim typeof unhex unicode unistr unistr_quote unlikely
upper zeroblob match -> ->> date time datetime julianday unixepoch strftime timediff current_date current_time
current_timestamp avg count group_concat median percentile percentile_cont percentile_disc string_agg sum total
row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value acos acosh asin asinh
atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power radians sin sinh sqrt tan
tanh trunc json jsonb json_array jsonb_array json_array_length json_each json_error_position json_extract jsonb_extract
json_group_array jsonb_group_array json_group_object jsonb_group_object json_insert jsonb_insert json_object
jsonb_object json_patch jsonb_patch json_pretty json_quote json_remove jsonb_remove json_replace jsonb_replace json_set
jsonb_set json_tree json_type json_valid bm25 highlight snippet offsets matchinfo
"""
_FUNCTIONS_ALLOWED = frozenset(_FUNCTIONS.split())
_TABLES_DENIED = frozenset({"sqlite_dbpage", "sqlite_stmt", "bytecode", "tables_used", "dbstat", "fsdir", "zipfile"})


def _authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_READ and (first or "").lower() not in _TABLES_DENIED:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS_ALLOWED:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _cell(value: Any) -> Any:
    return f"x'{value[:64].hex()}'{'…' if len(value) > 64 else ''}" if isinstance(value, bytes) else value


def _select(conn: sqlite3.Connection, sql: str, rows: int, size: int) -> dict[str, Any]:
    """Run one statement that can do nothing but read, and return what fits."""
    conn.text_factory = lambda raw: raw.decode("utf-8", "replace")
    conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 16 * 1024 * 1024)
    conn.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    conn.set_authorizer(_authorize)
    try:
        cursor = conn.execute(sql)
        if cursor.description is None:
            raise Refused("only a SELECT is allowed here: nothing was changed")
        out: list[list[Any]] = []
        used, cut = 0, False
        for row in cursor:
            if len(out) >= rows or used > size:
                cut = True
                break
            cells = [_cell(value) for value in row]
            used += sum(len(str(value)) for value in cells)
            out.append(cells)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as exc:
        said = str(exc)
        if "not authorized" in said or "readonly" in said:
            said = f"{said}: only reading is allowed here, by one SELECT"
        raise Refused(said) from None
    answer: dict[str, Any] = {"columns": [each[0] for each in cursor.description], "rows": out}
    if cut:
        answer["cut"] = f"only the first {len(out)} rows are here: narrow the query, or page with LIMIT and OFFSET"
    return answer


def _open(path: str) -> sqlite3.Connection:
    try:
        conn = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
        conn.execute("pragma query_only = on")
        conn.execute("pragma trusted_schema = off")
        conn.execute("select 1 from sqlite_master limit 1")
    except sqlite3.Error as exc:
        raise Refused(f"the database cannot be read: {exc}") from None
    return conn


def query_sqlite(data: bytes, *, path: str, sql: str, rows: int, size: int) -> dict[str, Any]:
    """Run one SELECT over a database file."""
    return _select(_open(path), sql, rows, size)


def schema_sqlite(data: bytes, *, path: str, pattern: str, tables: int) -> list[dict[str, Any]]:
    """List tables and views with their columns."""
    conn = _open(path)
    found = conn.execute(
        "select name, type from sqlite_master where type in ('table', 'view') and name like ? "
        "and name not like 'sqlite\\_%' escape '\\' order by name limit ?",
        (pattern, tables),
    ).fetchall()
    listing = []
    for name, kind in found:
        columns = []
        with suppress(sqlite3.Error):  # a view over a table that is gone
            columns = conn.execute("select name, type, pk from pragma_table_info(?)", (name,)).fetchall()
        told = [f"{column} {type_ or 'any'}{' primary key' if key else ''}" for column, type_, key in columns]
        listing.append({"table": name, "kind": kind, "columns": told})
    return listing


# --------------------------------------------------------------------------------------------------------------- main


def postgres(data: bytes, *, sql: str, functions: list[str]) -> dict[str, Any]:
    """Return a statement for PostgreSQL that reads, written anew, and which columns of which sources it reads."""
    from pathlib import Path
    from runpy import run_path

    checks = run_path(str(Path(__file__).with_name("confined_sql.py")))
    columns = run_path(str(Path(__file__).with_name("confined_fields.py")))
    try:
        text = checks["read_statement"](sql, functions)
        return {"sql": text, "fields": columns["fields"](text)}
    except checks["Unsafe"] as exc:
        raise Refused(str(exc)) from None
    except (AttributeError, TypeError, ValueError, LookupError):  # the parser's own mistakes, on what is no SQL
        raise Refused("this SQL cannot be parsed: write one plain SELECT") from None


def page(data: bytes, *, charset: str | None, base: str, links: int, size: int) -> dict[str, Any]:
    """Return the text of a page of HTML."""
    from pathlib import Path
    from runpy import run_path

    read = run_path(str(Path(__file__).with_name("confined_html.py")))["read_page"]
    return read(data, charset, base, links, size)  # type: ignore[no-any-return]


JOBS: dict[str, Callable[..., Any]] = {
    "search": search,
    "json": query_json,
    "csv": query_csv,
    "columns": columns_csv,
    "sqlite": query_sqlite,
    "sqlite_schema": schema_sqlite,
    "page": page,
    "postgres": postgres,
}


def _limit(memory: int, seconds: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # not every system has these; the parent's clock stays
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _written(result: Any, most: int) -> str:
    """Return JSON, giving up as soon as it is too long: a short expression can stand for a huge value."""
    parts, size = [], 0
    for part in json.JSONEncoder(ensure_ascii=False).iterencode({"result": result}):
        size += len(part)
        if size > most // 4:
            raise Refused(f"the result is longer than {most // 4:,} characters: ask for less, such as the first 20")
        parts.append(part)
    return "".join(parts)


def main() -> None:
    """Read a line that says what to do and what it is to be done on, do it, and say what came of it."""
    head = json.loads(sys.stdin.buffer.readline())
    _limit(head["memory"], head["seconds"])
    try:
        said = _written(JOBS[head["job"]](sys.stdin.buffer.read(), **head["args"]), head["output"])
    except Refused as exc:
        said = json.dumps({"error": str(exc)})
    except MemoryError:
        said = json.dumps(
            {"error": "this needs more memory than it may have: ask for something simpler, or less of it"}
        )
    except RecursionError:
        said = json.dumps({"error": "this is nested too deeply"})
    sys.stdout.buffer.write(said.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
