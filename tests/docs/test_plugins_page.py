"""The page about plugins does what it says: each of its blocks is run, and the example's guard and audit work."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from holdfast.plugins.load import find_plugins
from holdfast.settings import Settings
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, kept, until
from tests.pages import ROOT, Page, lines
from tests.terminal import Terminal

CARD = "4111 1111 1111 1111"


async def test_the_page(make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its blocks is run: its guard, its commands, its package, its store, its worker."""
    with Page("docs/howto/plugins.md") as page:
        guarded = page.take("class Mails(Plugin)")
        await the_first_agent_and_the_commands(make_world, guarded, page.take("holdfast plugins --json"))
        an_installed_one(guarded, page.take("entry-points"), tmp_path, monkeypatch)
        await a_store_of_secrets(make_world, page.take("async def post_invoice"), page.take("class Vault(Plugin)"))
        serve = page.python("async def serve(")["serve"]
        await a_worker_of_ones_own(make_world, guarded, serve, page.take("class Order:"), tmp_path, monkeypatch)


async def the_first_agent_and_the_commands(make_world: MakeWorld, source: str, console: str) -> None:
    """Its guard takes mail addresses out of what the model is sent, and each command lists it."""
    async with ModelServer("conversations: [{replies: [{say: 'I read: {{user}}'}]}]") as models:
        world = await make_world(source, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        answer = await (await client.start("support", "write to ann@example.org")).result(timeout=PATIENCE)
        assert answer.output == "I read: write to [mail]"
        assert "ann@" not in json.dumps([entry["body"] for entry in models.journal])
        terminal = Terminal(world, client)
        told = ""
        for line in lines(console):
            out = await terminal(*shlex.split(line)[1:])
            assert out.code == 0, out.err
            assert "Mails" in out.out
            told = out.out
        [listed] = json.loads(told)["plugins"]
        assert listed["hooks"] == ["message", "before_tool", "after_tool"]
        assert (listed["required"], listed["source"]) == (True, "agents file")


def an_installed_one(source: str, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point of the page makes it known."""
    [(name, target)] = tomllib.loads(project)["project"]["entry-points"]["holdfast.plugins"].items()
    module = target.partition(":")[0]
    (tmp_path / f"{module}.py").write_text(source)
    info = tmp_path / f"{module}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[holdfast.plugins]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [(each.name, each.source) for each in find_plugins(Settings(plugins="mails"))] == [
        ("mails", "my_package 0.1")
    ]


async def a_store_of_secrets(make_world: MakeWorld, books: str, vault: str) -> None:
    """The page's store gives what the page's agent, as it stands, asks for; its MCP server is away all the while."""
    crm = "https://crm.example.com/mcp"
    assert crm in books
    source = f"{books.replace(crm, 'http://127.0.0.1:9/mcp')}\n{vault}\nplugins = [Vault()]\n"
    script = """
conversations:
  - replies:
      - call: {post_invoice: {customer: ann, amount: 5}}
      - say: "{{last_tool}}"
"""
    async with ModelServer(script) as models:
        world = await make_world(source, api_base=models.base_url)
        dsn = world.settings.database_url or ""
        await world.worker(BOOKS_MODEL_KEY="a key of the model", CRM_KEY="a key of the server", SHOP_DSN=dsn)
        client = await world.client()
        answer = await (await client.start("books", "bill ann")).result(timeout=PATIENCE)
        assert answer.output == "sent 5.0 to ann with a key of 14 characters"
        offered = {tool["function"]["name"] for tool in models.journal[0]["body"]["tools"]}
        assert offered == {"post_invoice", "http_get", "sql_query", "sql_schema"}


async def a_worker_of_ones_own(
    make_world: MakeWorld, source: str, serve: Any, order_source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's worker serves, and the page's workflow asks an agent on it."""
    (tmp_path / "order_of_the_page.py").write_text(order_source)
    monkeypatch.syspath_prepend(str(tmp_path))
    order = importlib.import_module("order_of_the_page").Order
    try:
        async with ModelServer("conversations: [{replies: [{say: 'I read: {{user}}'}]}]") as models:
            world = await make_world(source, api_base=models.base_url)
            for name, value in world.environment().items():
                monkeypatch.setenv(name, value)
            worker = await serve(world.settings.temporal_address, [order], [])
            async with worker:
                client = await Client.connect(world.settings.temporal_address or "")
                running = client.execute_workflow(
                    "Order", "17", id=f"order-{uuid.uuid4().hex}", task_queue="orders", result_type=str
                )
                assert await running == "I read: Where is order 17?"
    finally:
        sys.modules.pop("order_of_the_page")


async def test_the_example_guards_and_writes_down(make_world: MakeWorld, tmp_path: Path) -> None:
    """No card number reaches the model, the database or the answer; the audit has every event of the run."""
    audit = tmp_path / "audit.jsonl"
    script = """
conversations:
  - replies:
      - call: [{customer: {name: ann}}, {customer: {name: "CARD"}}]
      - say: "the card is CARD"
""".replace("CARD", CARD)
    async with ModelServer(script) as models:
        world = await make_world((ROOT / "examples/guarded.py").read_text(), api_base=models.base_url)
        await world.worker(AUDIT=str(audit))
        client = await world.client()
        run = await client.start("clerk", f"my card is {CARD}, who am I?")
        answer = await run.result(timeout=PATIENCE)
        assert answer.output == "the card is [card]"
        said = [m.body["content"] for m in await run.messages() if m.body and m.role in ("user", "tool")]
        assert said[0] == "my card is [card], who am I?"
        assert '"card":"[card]"' in said[1]
        assert said[2] == '{"name":"[card]","card":"[card]","city":"Riga"}'
        assert CARD not in json.dumps([entry["body"] for entry in models.journal])
        assert not [place for place, data in (await kept(world, [])).items() if CARD.encode() in data]
        last = (await run.recorded())[-1].seq

        def heard() -> bool:
            lines = audit.read_text().splitlines() if audit.exists() else []
            return {json.loads(line)["seq"] for line in lines} == set(range(1, last + 1))

        await until(heard, "the audit has every event")
