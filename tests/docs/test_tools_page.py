"""The page about tools does what it says: each of its blocks is executed, and what it makes is used."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from holdfast import ToolContext
from holdfast.tools import sql_query
from holdfast.tools.builtin import __all__ as builtin
from holdfast.tools.context import StoredResult
from holdfast.tools.registry import load_agents
from holdfast.tools.toolset import Toolset
from tests.pages import ROOT, Page


class _Kept:
    """Reads that know one result; a worker's come from PostgreSQL."""

    async def result(self, handle: str, start: int = 0, length: int | None = None) -> StoredResult | None:
        data = b"first\nsecond"
        return StoredResult(data[start:][:length], start, len(data)) if handle == "result-known" else None

    async def runs(self, prefix: str) -> list[dict[str, Any]]:
        return []


async def _call(tools: Toolset, name: str, **args: Any) -> Any:
    tool = tools[name]
    ctx = ToolContext(
        idempotency_key=uuid.uuid4().hex,
        tenant="t",
        thread="c",
        run_id="r",
        step_no=1,
        deadline=time.monotonic() + 60,
        _stored=_Kept(),
    )
    value = tool(**tool.bind(tool.validate(args), ctx))
    return await value if tool.is_async else value


async def test_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: dict[str, str]) -> None:
    """Each block is executed, and what it makes is used."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    with Page("docs/howto/tools.md") as page:
        await _the_agent(page, tmp_path)
        await _the_other_blocks(page, tmp_path)
        await _the_role_can_read_and_no_more(page, servers)


async def _the_agent(page: Page, tmp_path: Path) -> None:
    """It has the tools of the table, in the classes of the table; those that need no server are used."""
    path = tmp_path / "agents.py"
    path.write_text(page.take("helper = Agent("))
    tools = load_agents(path)["helper"].tools
    table = (ROOT / page.name).read_text().partition("| you write |")[2].partition("\n\n")[0]
    for name, tool in tools.items():
        row = next((row for row in table.splitlines() if f"`{name}`" in row.split("|")[2]), "")
        assert tool.definition.effect in row or name == "lines", name
    await _call(tools, "write_file", path="a/b.csv", content="x,y\n1,2\n")
    assert "2 ./docs/a/b.csv" in await _call(tools, "lines", path="docs/a/b.csv")
    assert (await _call(tools, "csv_query", path="a/b.csv", sql="select sum(x + y) from data"))["rows"] == [[3]]
    assert "first" in await _call(tools, "result_page", handle="result-known")


async def _the_other_blocks(page: Page, tmp_path: Path) -> None:
    """Guarded requests with a key; commands in a real repository; a tool of one's own."""
    http = Toolset(page.python("http_request(\n")["tools"])
    assert {name: tool.definition.effect for name, tool in http.items()} == {"http_get": "pure", "http_send": "keyed"}
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "the first"]
    for command in (["git", "init", "-q"], git):
        await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, check=True, timeout=60)
    commands = Toolset(page.python('"deploy"')["tools"])
    assert "the first" in await _call(commands, "log", count=3)
    assert commands["deploy"].definition.approval == "always"
    own = Toolset([page.python("async def first_line")["first_line"]])
    assert await _call(own, "first_line", handle="result-known") == "first"
    assert await _call(own, "first_line", handle="result-other") == "there is no such result"


async def _the_role_can_read_and_no_more(page: Page, servers: dict[str, str]) -> None:
    """The SQL block makes a role with which the tool works, on a real server."""
    name = f"p{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(servers["database_url"])
    await admin.execute(f"create database {name}")
    await admin.close()
    base, _, rest = servers["database_url"].partition("?")
    conn = await asyncpg.connect(base.rpartition("/")[0] + f"/{name}" + (f"?{rest}" if rest else ""))
    await conn.execute("create table orders (id int); create table customers (id int); insert into orders values (17)")
    block = page.take("create role desk").replace("desk", f"{name}_desk")
    await conn.execute(block.replace("database shop", f"database {name}").replace("'…'", "'x'"))
    await conn.close()
    at = urlsplit(servers["database_url"])
    tools = Toolset(sql_query(f"postgresql://{name}_desk:x@{at.hostname}:{at.port}/{name}"))
    assert (await _call(tools, "sql_query", sql="select id from orders"))["rows"] == [[17]]
    assert [table["table"] for table in await _call(tools, "sql_schema")] == ["customers", "orders"]


async def test_the_desk_of_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's agent works on a folder of its own."""
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    monkeypatch.setenv("DESK", str(tmp_path))
    tools = load_agents(ROOT / "examples/desk.py")["desk"].tools
    assert "3 ./a.csv" in await _call(tools, "lines", path="a.csv")
    assert (await _call(tools, "csv_query", path="a.csv", sql="select sum(x) from data"))["rows"] == [[3]]
    await _call(tools, "notes_write_file", path="a.md", content="3")
    assert "3" in await _call(tools, "read_file", path="notes/a.md")
    assert "write_file" not in tools


def test_the_table_has_every_tool() -> None:
    """None of those that come along lacks a row, and no row names what does not come along."""
    table = (ROOT / "docs/howto/tools.md").read_text().partition("| you write |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1:3] for row in table.splitlines()[2:]]
    written, given = (
        {name for cell in column for name in re.findall(r"`(\w+)", cell)} for column in zip(*cells, strict=True)
    )
    assert set(builtin) - {"Command"} <= written | given
    assert written <= {*builtin, "Agent"}
