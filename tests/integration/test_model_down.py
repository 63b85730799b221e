"""A model server that is down: its cause is told in full, from the first attempt, in every place."""

from __future__ import annotations

import asyncio
import json
import re
import socket

from temporalio.api.failure.v1 import Failure
from temporalio.converter import PayloadConverter
from temporalio.exceptions import ApplicationError

from holdfast.convert import FAILURE_MAX, data_converter
from tests.conftest import MakeWorld
from tests.kit import until
from tests.terminal import Terminal

AGENTS = """
from holdfast import Agent, tool

@tool(effect="pure", attempts=100)
async def deep(n: int) -> str:
    "Fail from far below, in many words."
    try:
        try:
            raise ConnectionError("the innermost cause")
        except ConnectionError as exc:
            raise ValueError("v" * 5000) from exc
    except ValueError as exc:
        raise RuntimeError("r" * 5000) from exc

agent = Agent(name="agent", model="openai/test", instructions="Help.", tools=[deep])
"""


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_the_cause_is_told_in_full_from_the_first_attempt(make_world: MakeWorld) -> None:
    """The server keeps the whole message, `run` and `show` print it, and it names the connection that was refused."""
    port = free_port()
    world = await make_world(AGENTS, api_base=f"http://127.0.0.1:{port}/v1")
    await world.worker()
    client = await world.client()
    terminal = Terminal(world, client)
    run = await client.start("agent", "hello", thread="down")
    following = asyncio.create_task(terminal("show", run.run_id, "--follow"))
    [told] = await until(run.trouble, "the first attempt failed")
    assert told.startswith("model_step, attempt ")
    assert f"openai/test did not answer at http://127.0.0.1:{port}/v1" in told
    assert "Connect call failed" in told
    assert "OpenAIException" not in told, "the words of a library tell nobody anything"
    shown = (await terminal("show", run.run_id)).out
    assert "Connect call failed" in " ".join(shown.split())
    assert "Connect call failed" in json.loads((await terminal("show", run.run_id, "--json")).out)["trouble"][0]
    await asyncio.wait([following], timeout=world.settings.scaled(3.0))
    await run.stop("enough")
    out = " ".join(((await following).err).split())
    assert out.count("Connect call failed") == 1, "told once, not for each attempt"
    assert re.search(r"! model_step, attempt \d+ failed: openai/test did not answer", out)


def failure_of(exc: BaseException) -> Failure:
    """Return what is sent to the server for an error."""
    failure = Failure()
    data_converter.failure_converter.to_failure(exc, PayloadConverter.default, failure)
    return failure


def deep(depth: int, words: str) -> Exception:
    """Return an error with a long chain of causes and deep stacks."""
    last: Exception = ConnectionError("the innermost cause")
    for number in range(depth):
        try:
            _nested(20, f"link {number} {words}", last)
        except RuntimeError as exc:
            last = exc
    return last


def _nested(levels: int, words: str, cause: Exception) -> None:
    if levels:
        _nested(levels - 1, words, cause)
    raise RuntimeError(words) from cause


def test_every_failure_fits_what_the_server_keeps() -> None:
    """However deep its causes and however long their words; the outermost and the innermost are left."""
    for exc in (deep(0, ""), deep(1, ""), deep(10, "w" * 300), deep(3, "ü" * 5000), ApplicationError("m" * 100_000)):
        failure = failure_of(exc)
        assert failure.ByteSize() <= FAILURE_MAX
        last = failure
        while last.HasField("cause"):
            last = last.cause
        if isinstance(exc, RuntimeError):
            assert last.message == "the innermost cause"
            assert failure.message.startswith("link")
    assert "the innermost" in failure_of(deep(0, "")).message
    assert "in _nested" in failure_of(deep(1, "")).stack_trace, "where it was raised"
    assert failure_of(ApplicationError("m" * 100_000)).message.startswith("mmm")


async def test_a_tool_that_fails_in_many_words_is_told(make_world: MakeWorld) -> None:
    """The server has its message, cut, and what it came from."""
    from holdfast.testing import ModelServer

    script = "conversations: [{replies: [{call: {deep: {n: 1}}}, {say: done}]}]"
    async with ModelServer(script) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        run = await client.start("agent", "hello")
        [told] = await until(run.trouble, "the tool failed")
        assert "rrrr" in told
        assert "the innermost cause" in told
        await run.stop("enough")
