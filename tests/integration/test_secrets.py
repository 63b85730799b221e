"""Secrets are used and never kept: not in the database, not in a workflow's history, not in a log."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from holdfast import secret
from holdfast.errors import ConfigurationError
from holdfast.memory.database import connect
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, kept, serving, until
from tests.mcp.kit import SERVER
from tests.terminal import Terminal

BILLING, VAULT, MODEL, PASSWORD, SERVER_KEY = (
    'bk-4f/9 1+3"7-billing',
    "vault-c0ffee-0815",
    "sk-model-7e57ab1e",
    "pw!d8/a%c5-data",
    "mcp-5ec7e7-value",
)
NAMES = {"BILLING_KEY": BILLING, "MODEL_KEY": MODEL, "SERVER_KEY": SERVER_KEY}

AGENTS = """
import sys
from holdfast import Agent, MCPServer, Plugin, ToolContext, secret, tool
from holdfast.tools import http_request, shell, sql_query

class Vault(Plugin):
    name = "vault"

    async def secret(self, name: str) -> str | None:
        if name == "DOWN":
            raise ConnectionError("the vault is sealed; it knows vault-c0ffee-0815")
        return {"crm/key": "vault-c0ffee-0815"}.get(name)

@tool(effect="once")
async def blabs(ctx: ToolContext, how: str) -> str:
    "Show what it should not."
    key = await ctx.secret("crm/key")
    if how == "raises":
        raise RuntimeError(f"could not log in with {key}")
    if how == "down":
        await ctx.secret("DOWN")
    if how == "missing":
        await ctx.secret("NOWHERE")
    import logging
    logging.getLogger("mine").warning("using %s", key)
    return f"used {key} and " + __import__("base64").b64encode(key.encode()).decode()

plugins = [Vault()]

desk = Agent(
    "desk", "openai/test", "Help.",
    params={"api_key": secret("MODEL_KEY"), "extra_headers": {"X-Team": f"team {secret('MODEL_KEY')}"}},
    tools=[
        blabs,
        http_request([], allow_local=["localhost:SITE"], methods=["GET", "POST"],
                     headers={"X-Billing": f"key {secret('BILLING_KEY')}"}),
        sql_query(secret("SHOP_DSN"), allow_superuser=True),
        shell({"show": ["sh", "-c", 'echo "$TOKEN"; test -n "$TOKEN"']}, env={"TOKEN": secret("BILLING_KEY")}),
        MCPServer("test", command=[sys.executable, SERVER, FOLDER, "stdio"], env={"KEY": secret("SERVER_KEY")},
                  effects={"*": "pure"}),
    ],
)
"""


class Site:
    """A web site that tells what headers it got, and stands before the model server to see its headers."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.models = ""

    async def echo(self, request: web.Request) -> web.Response:
        """Answer with the secret that came."""
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({"you sent": request.headers.get("X-Billing")})

    async def model(self, request: web.Request) -> web.Response:
        """Hand a request on to the model server."""
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.models}/{request.match_info['rest']}", json=await request.json()) as answer,
        ):
            return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)


@asynccontextmanager
async def site() -> AsyncIterator[tuple[Site, int]]:
    """Run the site."""
    made = Site()
    app = web.Application()
    app.router.add_post("/v1/{rest:.*}", made.model)
    app.router.add_route("*", "/{rest:.*}", made.echo)
    async with serving(app) as port:
        yield made, port


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """Call what the message says, `NAME JSON`, and repeat what it gave."""
    said = request["messages"]
    last = max(at for at, message in enumerate(said) if message["role"] == "user")
    results = [message["content"] for message in said[last:] if message["role"] == "tool"]
    name, _, args = said[last]["content"].partition(" ")
    return {"say": results[-1]} if results else {"call": [{name: json.loads(args or "{}")}]}


async def heard(world: World, text: str, thread: str) -> str:
    """Ask, and return what the model read of the tool."""
    client = await world.client()
    run = await client.start("desk", text, thread=thread)
    return str((await run.result(timeout=2 * PATIENCE)).output)


def shown(value: str) -> list[bytes]:
    """Return the forms in which a value could be found."""
    forms = {value, json.dumps(value)[1:-1], quote(value, safe=""), base64.b64encode(value.encode()).decode()}
    return [form.encode() for form in forms]


async def test_no_value_is_left_anywhere(make_world: MakeWorld, servers: dict[str, str], tmp_path: Path) -> None:
    """By every way in: model, HTTP, SQL, shell, MCP and a user's own tool, also where they blab it out."""
    shop = await connect(servers["database_url"])
    await shop.execute(f"""do $$ begin create role shopper superuser login password '{PASSWORD}';
        exception when duplicate_object then null; end $$""")
    await shop.close()
    host = servers["database_url"].rpartition("@")[2]
    dsn = f"postgresql://shopper:{quote(PASSWORD, safe='')}@{host}"
    async with site() as (made, port), ModelServer(reply=reply) as models:
        made.models = models.base_url
        source = AGENTS.replace("SITE", str(port)).replace("SERVER,", f"{str(SERVER)!r},")
        world = await make_world(
            source.replace("FOLDER", repr(str(tmp_path))), api_base=f"http://127.0.0.1:{port}/v1", model_patience=5.0
        )
        await world.worker(**NAMES, SHOP_DSN=dsn)
        url = f"http://localhost:{port}/x"
        asked = {
            "get": f'http_get {{"url": "{url}"}}',
            "send": f'http_send {{"url": "{url}", "method": "POST"}}',
            "sql": 'sql_query {"sql": "select usename, 1 + 1 as two from pg_user where usename = current_user"}',
            "shell": "show {}",
            "mcp": 'test__note {"text": "${secret:BILLING_KEY}"}',
            "env": "test__environment {}",
            "blabs": 'blabs {"how": "says"}',
            "missing": 'blabs {"how": "missing"}',
            "down": 'blabs {"how": "down"}',
        }
        said = {thread: await heard(world, text, thread) for thread, text in asked.items()}
        assert '"you sent":"key ***"' in said["get"], said["get"]
        assert '"you sent":"key ***"' in said["send"]
        assert '"shopper"' in said["sql"]
        assert "exit code 0" in said["shell"]
        assert "***" in said["shell"]
        assert said["mcp"] == "noted ${secret:BILLING_KEY}", "what a model writes is never resolved"
        assert said["blabs"] == "used *** and ***"
        assert "error: the secret NOWHERE is not set. Set the environment variable NOWHERE" in said["missing"]
        assert "None of vault has it either" in said["missing"]
        sealed = "the secret store vault did not answer for DOWN: ConnectionError: the vault is sealed; it knows ***"
        assert sealed in said["down"]
        client = await world.client()
        run = await client.start("desk", 'blabs {"how": "raises"}', thread="raises")

        async def doubtful() -> list[str]:
            return [event.data["why"] for event in await run.recorded() if event.kind == "in_doubt"]

        assert await until(doubtful, "it is in doubt") == ["RuntimeError: could not log in with ***"]
        used = [headers for headers in made.seen if "x-team" in headers]
        assert used[0]["authorization"] == f"Bearer {MODEL}"
        assert used[0]["x-team"] == f"team {MODEL}"
        assert f"key {BILLING}" in [headers.get("x-billing") for headers in made.seen]
        left = await kept(world, [*asked, "raises"])
        for value in (BILLING, VAULT, MODEL, PASSWORD, SERVER_KEY):
            found = [place for place, data in left.items() if any(form in data for form in shown(value))]
            assert not found, (value, found)
        assert any(b"${secret:MODEL_KEY}" in data for data in left.values()), "the name is what is stored"


async def test_a_model_error_that_quotes_the_key_is_masked(make_world: MakeWorld) -> None:
    """A provider's words go into the run's error and the history without the key."""

    def refuse(request: dict[str, Any]) -> dict[str, Any]:
        del request
        return {"fault": {"status": 401, "message": f"Incorrect API key provided: {MODEL}"}}

    source = (
        "from holdfast import Agent, secret\n"
        'desk = Agent("desk", "openai/test", "Help.", params={"api_key": secret("MODEL_KEY")})\n'
    )
    async with ModelServer(reply=refuse) as models:
        world = await make_world(source, api_base=models.base_url)
        await world.worker(MODEL_KEY=MODEL)
        client = await world.client()
        run = await client.start("desk", "hello", thread="c")
        await until(lambda: over(run), "it has ended")
        assert "Incorrect API key provided: ***" in ((await run.status()).error or "")
        for place, data in (await kept(world, ["c"])).items():
            assert MODEL.encode() not in data, place


async def over(run: Any) -> bool:
    """Whether a run has ended."""
    return bool((await run.status()).ended)


async def test_a_missing_secret_is_told_before_the_first_call(make_world: MakeWorld) -> None:
    """The worker names it, who needs it and how to set it, and does not start; `holdfast plugins` says so, too."""
    source = (
        "from holdfast import Agent, secret\n"
        "from holdfast.tools import http_request\n"
        'tools = http_request("shop.example.com", headers={"X-Key": secret("SHOP_KEY")})\n'
        'desk = Agent("desk", "openai/test", "Help.", tools=[*tools])\n'
    )
    world = await make_world(source, api_base="http://127.0.0.1:9")
    process = world.start()
    code = await until(lambda: process.popen.poll(), "the worker has given up")
    said = process.log.read_text()
    assert code == 3
    assert "desk: the secret SHOP_KEY is not set. Set the environment variable SHOP_KEY where the workers run" in said
    out = await Terminal(world, await world.client())("plugins", "--json")
    assert json.loads(out.out)["secrets"] == [{"name": "SHOP_KEY", "agents": ["desk"], "set": False}]


def test_a_placeholder_is_a_name_and_nothing_else() -> None:
    """What stands in definitions and representations is the name; a value given in its place is refused unquoted."""
    assert secret("BILLING_KEY") == "${secret:BILLING_KEY}"
    with pytest.raises(ConfigurationError, match="Give the name and not the value"):
        secret("sk-live 4711")
