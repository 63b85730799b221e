"""The tools that come along, through the real stack: a model calls them, the ledger records them, their limits hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from holdfast import RunHandle
from holdfast.activities.stored import Stored
from holdfast.memory.database import open_pool
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGENTS = """
from pathlib import Path
from holdfast import Agent, tool
from holdfast.tools import csv_query, files, http_request, json_query, result_tools, run_state, shell
from holdfast.tools import sql_query, web_page

ROOT = Path(__file__).parent / "work"
ROOT.mkdir(exist_ok=True)

@tool(effect="pure")
def report(kind: str) -> object:
    "Make a large report."
    if kind == "csv":
        return "n,name\\n" + "\\n".join(f"{n},name {n}" for n in range(3000))
    if kind == "words":
        return "".join(f"Grüße {n} und Tschüß " for n in range(2000))
    return {"items": [{"n": n, "name": f"name {n}"} for n in range(3000)]}

everything = Agent(
    name="everything",
    model="openai/test",
    window=1_000_000,
    tools=[
        report,
        result_tools,
        csv_query,
        json_query,
        run_state,
        files(ROOT, write=True),
        shell({"count": ["wc", "-c", "{path:path}"]}, root=ROOT),
        sql_query(env="SHOP_URL"),
        http_request([], allow_local=["localhost:SITE", "localhost:1"], methods=["GET", "POST"], timeout=10),
        web_page([], allow_local=["localhost:SITE"]),
    ],
)
plain = Agent(name="plain", model="openai/test", window=1_000_000, tools=[report])
"""


class Stage:
    """A world with a worker, a web site, and a model that makes the calls a test has put down."""

    def __init__(self) -> None:
        self.world: World
        self.port = 0
        self.posted: list[str] = []
        self.calls: dict[str, list[list[dict[str, Any]]]] = {}

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make the next round's calls, HANDLE being the last one that was told; at the end say so."""
        said = request["messages"]
        last = max(at for at, message in enumerate(said) if message["role"] == "user")
        rounds = self.calls[said[last]["content"]]
        done = sum(message["role"] == "assistant" for message in said[last:])
        results = [message["content"] for message in said[last:] if message["role"] == "tool"]
        if done < len(rounds):
            handles = [
                text.partition("stored whole as ")[2].split()[0] for text in results if "stored whole as" in text
            ]
            handle = handles[-1].rstrip(",") if handles else ""
            return {"call": json.loads(json.dumps(rounds[done]).replace("HANDLE", handle))}
        return {"say": "done"}

    async def ask(self, text: str, *rounds: list[dict[str, Any]], agent: str = "everything", thread: str) -> list[str]:
        """Return what the tools answered to *rounds* of calls, in order."""
        self.calls[text] = list(rounds)
        client = await self.world.client()
        run = await client.start(agent, text, thread=thread)
        await run.result(timeout=2 * PATIENCE)
        return await self.heard(run)

    async def heard(self, run: RunHandle) -> list[str]:
        """Return what the model got to read of a run's tools."""
        messages, page = [], await run.messages()
        while page:
            messages += page
            page = await run.messages(after=page[-1].seq)
        return [m.body["content"] for m in messages if m.role == "tool" and m.run_id == run.run_id and m.body]

    async def site(self, request: web.Request) -> web.Response:
        """Be the web site."""
        self.posted.append(f"{request.method} {request.path}")
        if request.path == "/cut" and request.transport is not None:
            request.transport.abort()
        return web.json_response({"path": request.path, "rows": list(range(9000)) if request.path == "/big" else []})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(make_shared_world: MakeWorld) -> AsyncIterator[Stage]:
    """Set it up for all tests of this file."""
    made = Stage()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.site)
    async with serving(app) as made.port, ModelServer(reply=made.reply) as models:
        made.world = await make_shared_world(AGENTS.replace("SITE", str(made.port)), api_base=models.base_url)
        await made.world.worker(SHOP_URL=made.world.settings.database_url or "")
        yield made


async def test_a_large_json_result_is_paged_searched_and_selected(stage: Stage) -> None:
    """The trimmed result names its handle and the tools that read it; they give what was left out."""
    results = await stage.ask(
        "json",
        [{"report": {"kind": "json"}}],
        [
            {"result_select": {"handle": "HANDLE", "expression": "items[?n == `1777`].name"}},
            {"result_search": {"handle": "HANDLE", "text": '"n":17\\d7,', "regex": True, "limit": 2}},
            {"result_page": {"handle": "HANDLE", "offset": 50000, "length": 60}},
            {"json_query": {"handle": "HANDLE", "expression": "length(items)"}},
        ],
        thread="json",
    )
    note = "for result_page, result_search, result_select …]"
    assert note in results[0]
    assert json.loads(results[1]) == ["name 1777"]
    found = json.loads(results[2])
    assert (found["found"], found["shown"]) == (10, 2)
    assert '{"n":1707,"name":"name 1707"}' in found["hits"][0]["text"]
    assert results[3].startswith("(bytes 50000-50060 of ")
    assert "next offset 50060)" in results[3]
    assert results[4] == "3000"
    offset = found["hits"][0]["offset"]
    again = await stage.ask(
        "json again", [{"result_page": {"handle": _handle(results[0]), "offset": offset, "length": 9}}], thread="json"
    )
    assert again[0].endswith('\n"n":1707,'), "a later run on the thread reads it too, at the offset that search told"


def _handle(text: str) -> str:
    return text.partition("stored whole as ")[2].split(",")[0].split()[0]


async def test_pages_join_without_a_gap(stage: Stage) -> None:
    """Read from one next offset to the next, the pages are the text, though characters take two bytes."""
    [trimmed] = await stage.ask("words", [{"report": {"kind": "words"}}], thread="words")
    handle, offset, text = _handle(trimmed), 0, ""
    for number in range(20):
        [page] = await stage.ask(
            f"page {number}",
            [{"result_page": {"handle": handle, "offset": offset, "length": 11_999}}],
            thread="words",
        )
        head, _, part = page.partition("\n")
        text += part
        if "the end" in head:
            break
        offset = int(head.rpartition(" ")[2].rstrip(")"))
    assert text == "".join(f"Grüße {n} und Tschüß " for n in range(2000))


async def test_a_large_csv_result_is_queried(stage: Stage) -> None:
    """By columns, and by SQL over its handle."""
    results = await stage.ask(
        "csv",
        [{"report": {"kind": "csv"}}],
        [
            {"result_select": {"handle": "HANDLE", "columns": ["name"], "start": 1500, "limit": 2}},
            {"csv_query": {"handle": "HANDLE", "sql": "select count(*), max(n) from data"}},
            {"result_select": {"handle": "HANDLE", "columns": ["nothing"]}},
            {"result_select": {"handle": "HANDLE"}},
        ],
        thread="csv",
    )
    selected = json.loads(results[1])
    assert (selected["rows"], selected["rows_in_all"]) == ([["name 1500"], ["name 1501"]], 3000)
    assert json.loads(results[2])["rows"] == [[3000, 2999]]
    assert results[3].startswith("error: there is no column 'nothing'; there are: n, name")
    assert results[4].startswith("error: give either expression")


async def test_no_one_reads_another_threads_results(stage: Stage) -> None:
    """Neither by the handle from another thread, nor as another tenant; without tools for it, the note names none."""
    [trimmed] = await stage.ask("mine", [{"report": {"kind": "json"}}], agent="plain", thread="mine")
    handle = _handle(trimmed)
    assert f"stored whole as {handle} …]" in trimmed
    tries: list[dict[str, Any]] = [
        {"result_page": {"handle": handle}},
        {"result_search": {"handle": handle, "text": "name"}},
        {"result_select": {"handle": handle, "expression": "items"}},
        {"json_query": {"handle": handle, "expression": "items"}},
        {"result_page": {"handle": "result-' or true --"}},
    ]
    for result in await stage.ask("theirs", tries, thread="theirs"):
        assert result.startswith("error: there is no stored result")
    tenant = stage.world.settings.tenant
    pool = await open_pool(stage.world.settings.database_url or "", size=2, name="test")
    try:
        assert await Stored(pool, tenant, "mine").result(handle, 0, 10) is not None
        assert await Stored(pool, tenant, "theirs").result(handle, 0, 10) is None
        assert await Stored(pool, "other", "mine").result(handle, 0, 10) is None
        run_id = handle[7:43]
        assert len(await Stored(pool, tenant, "theirs").runs(run_id[:8])) == 1
        assert await Stored(pool, "other", "theirs").runs(run_id) == []
        assert await Stored(pool, tenant, "theirs").runs("%") == []
    finally:
        await pool.close()


async def test_the_state_of_another_run(stage: Stage) -> None:
    """Counts and states; no word of what was said in it."""
    client = await stage.world.client()
    stage.calls["a secret question"] = [[{"report": {"kind": "csv"}}]]
    other = await client.start("plain", "a secret question", thread="other")
    await other.result(timeout=PATIENCE)
    states = [{"run_state": {"run": run}} for run in (other.run_id, other.run_id[:10], "00000000-0000")]
    found, same, missing = await stage.ask("how is it", states, thread="asking")
    state = json.loads(found)
    assert found == same
    assert (state["state"], state["agent"], state["thread"], state["answered"]) == ("done", "plain", "other", True)
    assert (state["rounds"], state["last_event"], state["calls_in_doubt"]) == (2, "ended", 0)
    assert "secret" not in found
    assert missing == "error: there is no run '00000000-0000'"


async def test_files_and_commands_through_the_ledger(stage: Stage) -> None:
    """Each change is made once and recorded; a refused one is an error the model reads."""
    results = await stage.ask(
        "write",
        [{"write_file": {"path": "notes/a.md", "content": "one\ntwo\n"}}],
        [{"patch_file": {"path": "notes/a.md", "old": "two", "new": "three"}}],
        [{"count": {"path": "notes/a.md"}}, {"read_file": {"path": "notes/a.md"}}],
        [{"write_file": {"path": "../out.md", "content": "x"}}, {"count": {"path": "/etc/passwd"}}],
        thread="write",
    )
    assert results[0] == "created notes/a.md (8 bytes)"
    assert "-two\n+three" in results[1]
    assert results[2].splitlines()[1] == "10 ./notes/a.md"
    assert results[3].endswith("one\nthree")
    assert all("is not allowed" in result for result in results[4:])
    rows = await stage.world.rows(
        "select tool, class, state from effects where tool in ('write_file', 'patch_file', 'count') order by created_at"
    )
    done = [tuple(row.values()) for row in rows if row["state"] == "done"]
    assert done == [("write_file", "keyed", "done"), ("patch_file", "keyed", "done"), ("count", "once", "done")]
    assert not (Path(stage.world.folder) / "out.md").exists()


async def test_sql_and_http_through_the_ledger(stage: Stage) -> None:
    """Reads are pure; what was refused before it was sent is told, and in doubt is only what may have arrived."""
    base = f"http://localhost:{stage.port}"
    results = await stage.ask(
        "fetch",
        [{"http_get": {"url": f"{base}/big"}}],
        [{"result_select": {"handle": "HANDLE", "expression": "body.rows[-1]"}}, {"web_page": {"url": f"{base}/page"}}],
        [
            {"sql_query": {"sql": "select 1"}},
            {"http_send": {"method": "POST", "url": f"{base}/order", "body": {"n": 1}}},
        ],
        [
            {"http_send": {"method": "POST", "url": "http://169.254.169.254/latest/api/token"}},
            {"http_send": {"method": "POST", "url": "http://localhost:1/"}},
        ],
        thread="fetch",
    )
    assert results[1] == "8999"
    assert json.loads(json.loads(results[2])["text"])["path"] == "/page"
    assert "allow_superuser" in results[3], "the embedded PostgreSQL's own role is one"
    assert json.loads(results[4])["status"] == 200
    assert "not allowed" in results[5] or "link-local" in results[5]
    assert "could not be sent, 3 tries" in results[6]
    rows = await stage.world.rows("select state, sends from effects where tool = 'http_send' order by step_no")
    assert [(row["state"], row["sends"]) for row in rows] == [("done", 1), ("failed", 1), ("failed", 3)]
    assert stage.posted.count("POST /order") == 1

    stage.calls["cut"] = [[{"http_send": {"method": "POST", "url": f"{base}/cut"}}]]
    client = await stage.world.client()
    run = await client.start("everything", "cut", thread="cut")

    async def doubted() -> bool:
        return (await run.status()).in_doubt == 1

    await until(doubted, "the call is in doubt")
    assert stage.posted.count("POST /cut") == 1
    step = next(step for step in await run.steps() if step.state == "in_doubt")
    await run.resolve(step.step_no, done="it arrived")
    await run.result(timeout=PATIENCE)
    assert await stage.heard(run) == ["it arrived"]
