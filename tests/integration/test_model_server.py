"""The model server as a process and as a context manager, over real HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from asyncio import create_subprocess_exec, subprocess, wait_for
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from holdfast.errors import ConfigurationError
from holdfast.testing import ModelServer

SCRIPT = """
model: tiny
conversations:
  - when: order 17
    replies:
      - call: {order_status: {order_id: "17"}}
      - say: "Seen: {{last_tool}}"
  - when: flaky
    replies:
      - fault: [{status: 429, retry_after: 1, times: 2}, {status: 500}]
        say: at last
  - replies:
      - repeat: 3
        call: {look: {page: "p{{n}}"}}
      - say: "{{user}} done"
"""


def user(text: str) -> dict[str, Any]:
    """Return a user message."""
    return {"role": "user", "content": text}


async def post(url: str, *messages: dict[str, Any], **more: Any) -> tuple[int, dict[str, Any], Any]:
    """Send a request; return status, JSON and headers."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/chat/completions", json={"model": "m", "messages": messages, **more}) as response,
    ):
        return response.status, await response.json(), response.headers


async def test_reply_depends_on_the_request_alone() -> None:
    """The same request gets the same reply, ids included, however often and in whatever order it comes."""
    async with ModelServer(SCRIPT) as server:
        _, first, _ = await post(server.base_url, user("Where is ORDER 17?"))
        message = first["choices"][0]["message"]
        tool = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "broken"}
        _, second, _ = await post(server.base_url, user("Where is ORDER 17?"), message, tool)
        _, again, _ = await post(server.base_url, user("Where is ORDER 17?"))
        assert second["choices"][0]["message"]["content"] == "Seen: broken"
        assert again["choices"] == first["choices"]
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"order_id": "17"}
        assert [entry["messages"] for entry in server.journal] == [1, 3, 1]
        assert server.journal[0]["hash"] == server.journal[2]["hash"]


async def test_repeat_counts_within_the_run() -> None:
    """A repeated call sees its number; after the last repetition the next reply comes."""
    async with ModelServer(SCRIPT) as server:
        messages, pages = [user("go")], []
        for _ in range(3):
            _, body, _ = await post(server.base_url, *messages)
            message = body["choices"][0]["message"]
            pages.append(json.loads(message["tool_calls"][0]["function"]["arguments"])["page"])
            messages += [message, {"role": "tool", "tool_call_id": "x", "content": "r"}]
        _, body, _ = await post(server.base_url, *messages)
        assert pages == ["p1", "p2", "p3"]
        assert body["choices"][0]["message"]["content"] == "go done"
        messages.append(body["choices"][0]["message"])
        status, body, _ = await post(server.base_url, *messages)
        assert status == 400
        assert "has 4 replies, this request asks for number 5" in body["error"]["message"]


async def test_faults_come_in_order_and_run_out() -> None:
    """Each fault comes its number of times to one request, then the reply."""
    async with ModelServer(SCRIPT) as server:
        answers = [await post(server.base_url, user("flaky")) for _ in range(4)]
        assert [status for status, _, _ in answers] == [429, 429, 500, 200]
        assert answers[0][2]["Retry-After"] == "1"


async def test_reply_function_answers() -> None:
    """A function may answer instead of a script; what it returns is checked alike."""
    async with ModelServer(reply=lambda body: {"say": f"{len(body['messages'])} messages"}) as server:
        _, body, _ = await post(server.base_url, user("a"), user("b"))
        assert body["choices"][0]["message"]["content"] == "2 messages"


async def test_models_are_listed() -> None:
    """The script's model is listed, as clients that probe a server expect."""
    async with (
        ModelServer(SCRIPT) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.base_url}/models") as response,
    ):
        assert [model["id"] for model in (await response.json())["data"]] == ["tiny"]


async def test_a_taken_port_is_a_clear_error() -> None:
    """A busy port is refused with what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="Give another --port"):
            await ModelServer(SCRIPT, port=taken.getsockname()[1]).start()


async def test_process_serves_and_journals(tmp_path: Path) -> None:
    """As a process it says its address, writes each request down before answering, and ends on SIGTERM."""
    script, journal = tmp_path / "script.yaml", tmp_path / "journal.jsonl"
    script.write_text(SCRIPT)
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "holdfast.testing.model_server", "--script", script, "--journal", journal),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    url = (await wait_for(process.stdout.readline(), 20)).decode().strip()
    status, _, _ = await post(url, user("order 17"))
    entry = json.loads(journal.read_text())
    os.kill(process.pid, signal.SIGTERM)
    assert await wait_for(process.wait(), 10) == 0
    assert status == 200
    assert entry["body"]["messages"] == [user("order 17")]
    assert (await process.stderr.read()) == b""


async def test_process_refuses_a_bad_script(tmp_path: Path) -> None:
    """A wrong script ends the process with its reason and no traceback."""
    script = tmp_path / "script.yaml"
    script.write_text("conversations:\n  - replies: []\n")
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "holdfast.testing.model_server", "--script", script), stderr=subprocess.PIPE
    )
    _, error = await wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert b"line 2" in error
    assert b"Traceback" not in error
