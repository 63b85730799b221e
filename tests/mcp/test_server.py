"""How an agents file names MCP servers: what is refused, and how light that is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from holdfast import Agent, MCPServer, secret
from holdfast.errors import ConfigurationError, ToolAnsweredError, ToolArgumentsInvalid, ToolResultInvalid
from holdfast.mcp.answers import hidden
from holdfast.mcp.arguments import ArgumentCheck, without
from holdfast.mcp.http import check_private
from holdfast.mcp.server import tool_name
from holdfast.mcp.weight import Weight
from holdfast.secrets import Mask
from holdfast.tools.results import ErrorResult, result_text

OK: dict[str, Any] = {"command": ["server"]}


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("a__b", OK, "without `__`"),
        ("a b", OK, "characters"),
        ("x" * 33, OK, "1 to 32"),
        ("a", {}, "either command"),
        ("a", {"command": ["x"], "url": "http://h/"}, "either command"),
        ("a", {"command": "npx server"}, "write a list"),
        ("a", {"command": []}, "write a list"),
        ("a", {"command": ["x\0"]}, "NUL"),
        ("a", {"command": ["x"], "headers": {"A": "b"}}, "headers belong to url"),
        ("a", {"url": "ftp://h/"}, "http://host/path"),
        ("a", {"url": "http:///x"}, "http://host/path"),
        ("a", {"url": "http://api.example.com/", "headers": {"Authorization": "Bearer x"}}, "unencrypted"),
        ("a", {"url": "http://api.example.com/", "headers": {"X-Team": "${TEAM}"}}, "unencrypted"),
        ("a", {"url": "http://api.example.com/", "headers": {"X-Team": secret("TEAM")}}, "unencrypted"),
        ("a", {"url": "http://93.184.216.34/", "headers": {"X-Api-Key": "x"}}, "unencrypted"),
        ("a", {"url": "http://user:pass@api.example.com/"}, "unencrypted"),
        ("a", {"url": "http://api.example.com/?api_key=x"}, "unencrypted"),
        ("a", {"url": f"http://api.example.com/?q={secret('Q')}"}, "unencrypted"),
        ("a", {"url": "http://localhost.example.com/", "headers": {"Cookie": "x"}}, "unencrypted"),
        ("a", {"url": "http://h/", "env": {"A": "b"}}, "env and cwd belong to command"),
        ("a", {"url": "http://h/", "headers": {"A b": "c"}}, "HTTP header"),
        ("a", {"url": "http://h/", "headers": {"A": "b\r\nC: d"}}, "dict of text"),
        ("a", {**OK, "env": {"A": 1}}, "dict of text"),
        ("a", {**OK, "effects": {"t": "local_tx"}}, "`pure`"),
        ("a", {**OK, "effects": {"t": "keyed"}}, "keys="),
        ("a", {**OK, "keys": {"t": "k"}}, "does not call"),
        ("a", {**OK, "approval": {"t": "sometimes"}}, "approval of 't'"),
        ("a", {**OK, "only": "read"}, "must be a list"),
        ("a", {**OK, "timeout": 0}, "seconds over 0"),
        ("a", {**OK, "timeout": float("nan")}, "seconds over 0"),
        ("a", {**OK, "attempts": 0}, "whole number"),
        ("a", {**OK, "protocol": "2024-01-01"}, "use one of"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, given: dict[str, Any], words: str) -> None:
    """Each message names the server and says what to write."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        MCPServer(name, **given)
    assert repr(name) in str(caught.value)


def test_an_agent_takes_servers_among_its_tools() -> None:
    """They are its sources; its definition has no tool of theirs until a worker asks the server."""
    server = MCPServer("files", **OK)
    agent = Agent("a", "openai/test", tools=[[server]])
    assert agent.sources == (server,)
    assert agent.definition.tools == []


def test_wildcards_stand_for_all_other_tools() -> None:
    """A name that is written out wins."""
    server = MCPServer("files", **OK, effects={"*": "pure", "write": "once"}, approval={"*": "always", "read": "never"})
    assert (server.effect_of("read"), server.effect_of("write")) == ("pure", "once")
    assert (server.approval_of("read"), server.approval_of("write")) == ("never", "always")
    assert MCPServer("files", **OK).effect_of("read") == "once"


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("read_file", "files__read_file"),
        ("read.file", "files__read_file"),
        ("a/b c", "files__a_b_c"),
        ("x" * 57, "files__" + "x" * 57),
    ],
)
def test_names_are_such_as_models_take(tool: str, expected: str) -> None:
    """Characters that no provider takes become underscores."""
    assert tool_name("files", tool) == expected


def test_long_names_stay_distinct() -> None:
    """At most 64 characters, the last of them from a hash of the whole."""
    one, two = tool_name("files", "x" * 100 + "1"), tool_name("files", "x" * 100 + "2")
    assert len(one) == len(two) == 64
    assert one != two


def test_declaring_a_server_is_light() -> None:
    """Neither the protocol's library nor an HTTP client is loaded for it."""
    script = (
        "import sys\nfrom holdfast import Agent, MCPServer\n"
        "Agent('a', 'openai/x', tools=[MCPServer('s', command=['c'])])\n"
        "heavy = {'mcp', 'httpx2', 'httpx', 'jsonschema', 'starlette', 'asyncpg'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "pattern": "^(a+)+$"},
        "pattern": {"type": "string"},
        "n": {"$ref": "#/$defs/n"},
        "tree": {"$ref": "#/$defs/tree"},
    },
    "required": ["path"],
    "additionalProperties": False,
    "$defs": {
        "n": {"type": "integer", "minimum": 1},
        "tree": {"type": "object", "properties": {"in": {"$ref": "#/$defs/tree"}, "leaf": {"type": "boolean"}}},
    },
}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "'path' is a required property"),
        ({"path": 5}, "path: 5 is not of type 'string'"),
        ({"path": "a", "n": 0}, "n: 0 is less than the minimum of 1"),
        ({"path": "a", "other": 1}, "'other' was unexpected"),
        ({"path": "a", "pattern": 3}, "pattern: 3 is not of type 'string'"),
        ({"path": "a", "tree": {"in": {"leaf": 1}}}, "tree.in.leaf: 1 is not of type 'boolean'"),
        ([], "JSON object"),
    ],
)
def test_wrong_arguments_are_told(args: Any, words: str) -> None:
    """Each with its place, so that a model can mend it."""
    with pytest.raises(ToolArgumentsInvalid) as caught:
        ArgumentCheck("t", SCHEMA)(args)
    assert words in str(caught.value)


@pytest.mark.timeout(60)
def test_a_stranger_s_schema_cannot_hold_the_worker() -> None:
    """No regular expression is run, no reference fetched, nothing evaluated that doubles with each level."""
    assert ArgumentCheck("t", SCHEMA)({"path": "a" * 60 + "!"})
    remote = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}}
    assert ArgumentCheck("t", remote)({"a": 1}) == {"a": 1}
    bomb = {"type": "object", "allOf": [{"$ref": "#/$defs/d0"}], "$defs": {"d40": {"type": "object"}}}
    for n in range(40):
        bomb["$defs"][f"d{n}"] = {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2}  # type: ignore[index]
    assert ArgumentCheck("t", bomb)({}) == {}
    around = {"type": "object", "$ref": "#"}
    assert ArgumentCheck("t", around)({}) == {}
    assert ArgumentCheck("t", {"type": "object", "properties": {"a": {"type": 5}}})({"a": 1}) == {"a": 1}


def _doubling(levels: int) -> dict[str, Any]:
    anchors: dict[str, Any] = {f"d{levels}": {"$anchor": f"a{levels}", "type": "object"}}
    for n in range(levels):
        anchors[f"d{n}"] = {"$anchor": f"a{n}", "allOf": [{"$ref": f"#a{n + 1}"}] * 2}
    return {"type": "object", "properties": {"a": {"$ref": "#a0"}}, "$defs": anchors}


def _nested(levels: int) -> dict[str, Any]:
    return {"a": _nested(levels - 1)} if levels else {}


DRAFT = "http://json-schema.org/draft-07/schema#"
AGAIN = {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}
MIXED = [each for n in range(20_000) for each in (n, str(n))]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("schema", "args"),
    [
        (_doubling(40), {"a": {}}),
        ({"type": "object", "properties": {"a": AGAIN}}, _nested(60)),
        ({"$schema": DRAFT, "type": "object", "properties": {"a": AGAIN}}, _nested(60)),
        ({"type": "object", "properties": {"a": {"$schema": DRAFT, **AGAIN}}}, _nested(60)),
        ({"type": "object", "properties": {"a": AGAIN}, "unevaluatedProperties": False}, _nested(60)),
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}, {"a": MIXED}),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "type": "object", "enum": MIXED}, {}),
        ({"type": "object", "required": MIXED}, {}),
        ({"type": "object", "properties": {str(n): {"type": "object"} for n in range(5000)}}, {}),
    ],
    ids=["anchors", "turns", "draft", "subdraft", "unevaluated", "unique", "enum", "required", "wide"],
)
def test_a_schema_that_doubles_or_compares_is_given_up(schema: dict[str, Any], args: dict[str, Any]) -> None:
    """By anchors, by the depth of the arguments, by pairs: a check ends within a beat, and the server looks itself."""
    check = ArgumentCheck("t", schema)
    check({})
    began = time.monotonic()
    assert check(args) == args
    assert time.monotonic() - began < 2.0


def test_an_argument_can_be_left_out_of_a_schema() -> None:
    """The idempotency key is ours to fill in."""
    assert without(SCHEMA, "path")["required"] == []
    assert "path" not in without(SCHEMA, "path")["properties"]
    assert "path" in SCHEMA["properties"]  # type: ignore[operator]


def test_an_error_that_is_an_answer_is_told_as_one() -> None:
    """Its text goes the way of results that stand: the row is done, and the model reads the error."""
    with pytest.raises(ToolAnsweredError, match="no such file") as caught:
        result_text("t", ErrorResult("no such file\0"), 1000)
    assert isinstance(caught.value, ToolResultInvalid)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_weighing_looks_past_texts(size: int) -> None:
    """In pieces of any size, cut amid a text or an escape: what stands in texts weighs nothing."""
    text = json.dumps({"a": 'x{[,"\\' * 50, "b\\": ["{,{", "\\", 1, {}], "c": "[" * 500}).encode()

    def fits(most: int) -> bool:
        weight = Weight(most)
        return all(weight.add(text[at : at + size]) for at in range(0, len(text), size))

    assert fits(24 + 5 + 20 + len(text) // size + 1)
    assert not fits(24 + 5)
    assert not Weight(100).add(b': "\nevent: "x\ndata: ' + b"{}," * 100), "another line is no text's first half"


@pytest.mark.parametrize(
    ("url", "found", "passes"),
    [
        ("http://localhost:8000/mcp", ["127.0.0.1", "::1"], True),
        ("http://tools:8000/mcp", ["172.18.0.3"], True),
        ("http://tools.lan/mcp", ["fd12::1"], True),
        ("http://tools:8000/mcp", ["172.18.0.3", "93.184.216.34"], False),
        ("http://tools.internal/mcp", ["169.254.169.254"], False),
        ("https://tools:8000/mcp", ["93.184.216.34"], True),
    ],
)
async def test_credentials_in_the_clear_stay_at_home(url: str, found: list[str], passes: bool) -> None:
    """A name without a domain may lead anywhere: where it leads is looked at before anything is sent."""
    server = MCPServer("a", url=url, headers={"Authorization": "Bearer x"})

    async def resolve(host: str, port: int) -> list[str]:
        return found

    async def check() -> None:
        await check_private(server.endpoint, url, resolve=resolve)

    if passes:
        await check()
    else:
        with pytest.raises(ConfigurationError, match="in the clear"):
            await check()


def test_headers_that_are_no_credentials_may_go_by_http() -> None:
    """Such as the language that is wanted."""
    assert MCPServer("a", url="http://api.example.com/mcp", headers={"Accept-Language": "de"}).endpoint.url


def test_an_answer_has_no_credential_of_ours() -> None:
    """Whatever a server sends back of what it got, in texts, in JSON and in errors."""
    hide = Mask(["sk-remote-1"])
    assert hidden({"you sent": ["Bearer sk-remote-1", 5, None]}, hide) == {"you sent": ["Bearer ***", 5, None]}
    assert hidden(ErrorResult("no sk-remote-1"), hide) == ErrorResult("no ***")
    assert hidden("sk-remote-1", None) == "sk-remote-1"
