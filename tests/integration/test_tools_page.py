"""The page about tools does what it says: each of its blocks is executed, and what it makes is used."""

from __future__ import annotations

import asyncio
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
from tests.unit.test_docs import ROOT, blocks

PAGE = "docs/howto/tools.md"


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


def _block(part: str, language: str = "python") -> str:
    [found] = [block.text for block in blocks(language) if block.page == PAGE and part in block.text]
    return found


def _run(part: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(_block(part), PAGE, "exec"), names)
    return names


async def test_the_agent_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the tools of the table, in the classes of the table; those that need no server are used."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    path = tmp_path / "agents.py"
    path.write_text(_block("helper = Agent("))
    tools = load_agents(path)["helper"].tools
    table = (ROOT / PAGE).read_text().partition("| you write |")[2].partition("\n\n")[0]
    for name, tool in tools.items():
        row = next((row for row in table.splitlines() if f"`{name}`" in row.split("|")[2]), "")
        assert tool.definition.effect in row or name == "lines", name
    await _call(tools, "write_file", path="a/b.csv", content="x,y\n1,2\n")
    assert "2 docs/a/b.csv" in await _call(tools, "lines", path="docs/a/b.csv")
    assert (await _call(tools, "csv_query", path="a/b.csv", sql="select sum(x + y) from data"))["rows"] == [[3]]
    assert "first" in await _call(tools, "result_page", handle="result-known")


async def test_the_other_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guarded requests with a key; commands in a real repository; a tool of one's own."""
    monkeypatch.chdir(tmp_path)
    http = Toolset(_run("http_request(\n")["tools"])
    assert {name: tool.definition.effect for name, tool in http.items()} == {"http_get": "pure", "http_send": "keyed"}
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "the first"]
    for command in (["git", "init", "-q"], git):
        await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, check=True, timeout=60)
    commands = Toolset(_run('"deploy"')["tools"])
    assert "the first" in await _call(commands, "log", count=3)
    assert commands["deploy"].definition.approval == "always"
    own = Toolset([_run("async def first_line")["first_line"]])
    assert await _call(own, "first_line", handle="result-known") == "first"
    assert await _call(own, "first_line", handle="result-other") == "there is no such result"


async def test_the_role_of_the_page_can_read_and_no_more(servers: dict[str, str]) -> None:
    """The SQL block makes a role with which the tool works, on a real server."""
    name = f"p{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(servers["database_url"])
    await admin.execute(f"create database {name}")
    await admin.close()
    base, _, rest = servers["database_url"].partition("?")
    conn = await asyncpg.connect(base.rpartition("/")[0] + f"/{name}" + (f"?{rest}" if rest else ""))
    await conn.execute("create table orders (id int); create table customers (id int); insert into orders values (17)")
    block = (
        _block("create role desk", "sql").replace("desk", f"{name}_desk").replace("database shop", f"database {name}")
    )
    await conn.execute(block.replace("'…'", "'x'"))
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
    assert "3 a.csv" in await _call(tools, "lines", path="a.csv")
    assert (await _call(tools, "csv_query", path="a.csv", sql="select sum(x) from data"))["rows"] == [[3]]
    await _call(tools, "notes_write_file", path="a.md", content="3")
    assert "3" in await _call(tools, "read_file", path="notes/a.md")
    assert "write_file" not in tools


def test_the_page_names_every_tool() -> None:
    """None of those that come along is missing there."""
    page = (ROOT / PAGE).read_text()
    assert [name for name in builtin if name not in page] == []
