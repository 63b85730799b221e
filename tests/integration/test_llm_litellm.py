"""The LiteLLM adapter against a real server: streams, tool calls, every fault."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from holdfast.contracts import Price
from holdfast.errors import ContextTooLong, ModelRefused, ModelUnavailable
from holdfast.llm import ModelReply, ModelRequest, close, complete, context_window, count_tokens, warm
from holdfast.testing import ModelServer

SCRIPT = """
conversations:
  - when: hello
    replies: [{say: "Hello to you, whoever you are, from a long stream of words.", usage: [1000, 500, 400]}]
  - when: parallel
    replies:
      - say: Let me look.
        call: [{one: {text: "first call"}}, {two: {n: 2}}, {one: {text: "ünï, code"}}]
  - when: raw
    replies: [{call: {one: '{"text": "cut'}}]
  - when: half
    replies: [{fault: {bad_json: true}, call: {one: {text: "0123456789"}}}]
  - {when: wait a second, replies: [{fault: {status: 429, retry_after: 1.5}, say: ok}]}
  - {when: wait for a date, replies: [{fault: {status: 429, retry_after: "Wed, 21 Oct 2099 07:28:00 GMT"}, say: ok}]}
  - {when: status 500, replies: [{fault: {status: 500}, say: ok}]}
  - {when: status 503, replies: [{fault: {status: 503, retry_after: 7}, say: ok}]}
  - {when: status 400, replies: [{fault: {status: 400, message: "bad schema in tools[0]"}, say: ok}]}
  - {when: status 401, replies: [{fault: {status: 401}, say: ok}]}
  - {when: status 403, replies: [{fault: {status: 403}, say: ok}]}
  - {when: status 404, replies: [{fault: {status: 404}, say: ok}]}
  - when: too long
    replies:
      - say: ok
        fault:
          status: 400
          code: context_length_exceeded
          message: "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
  - {when: dropped, replies: [{fault: {cut_after: 3}, say: one two three four five six seven eight nine ten}]}
  - {when: closed, replies: [{fault: {cut_after: 3, clean: true}, say: one two three four five six seven eight nine}]}
  - {when: no word, replies: [{fault: {cut_after: 0}, say: one two three}]}
  - {when: tool dropped, replies: [{fault: {cut_after: 4, clean: true}, call: {one: {text: "0123456789 0123456789"}}}]}
  - {when: before the end, replies: [{fault: {cut_after: 2, clean: true}, say: one}]}
  - {when: no usage, replies: [{fault: {cut_after: 3}, say: one}]}
  - {when: slow, replies: [{pace: 0.2, say: "one two three four five six seven eight nine ten eleven twelve thirteen"}]}
  - {when: cut off by length, replies: [{say: half an ans, finish: length}]}
  - {when: the rule of a table, replies: [{say: "RULE"}]}
""".replace("RULE", "----- " * 600)

TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object"}}}
    for name in ("one", "two")
]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Import LiteLLM once: it takes seconds."""
    warm()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ModelServer]:
    """Start a scripted server; close LiteLLM's connections of this loop afterwards."""
    async with ModelServer(SCRIPT) as running:
        yield running
        await close()


def request(server: ModelServer, text: str, **more: Any) -> ModelRequest:
    """Return a request with one user message."""
    fields: dict[str, Any] = {"model": "openai/test-model", "tools": TOOLS, "timeout": 20.0} | more
    return ModelRequest(messages=[{"role": "user", "content": text}], api_base=server.base_url, **fields)


async def ask(server: ModelServer, text: str, *, stream: bool, **more: Any) -> tuple[ModelReply, list[str]]:
    """Call the model; return the reply and the pieces that were streamed."""
    pieces: list[str] = []
    reply = await complete(request(server, text, **more), on_delta=pieces.append if stream else None)
    return reply, pieces


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@both
async def test_an_answer_with_usage_and_cost(server: ModelServer, *, stream: bool) -> None:
    """Text, usage and the price of a known model come back; a stream's pieces make up the text."""
    reply, pieces = await ask(server, "hello", stream=stream, model="openai/gpt-5-mini")
    assert reply.text == "Hello to you, whoever you are, from a long stream of words."
    assert reply.message == {"role": "assistant", "content": reply.text}
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (1000, 500, 400)
    assert reply.cost_usd == pytest.approx(600 * 0.25e-6 + 400 * 0.025e-6 + 500 * 2e-6)
    assert reply.finish_reason == "stop"
    assert reply.latency_s > 0
    if stream:
        assert len(pieces) > 3
        assert "".join(pieces) == reply.text


async def test_a_reply_may_repeat_itself(server: ModelServer) -> None:
    """A hundred equal pieces in a row are no fault: the library would break the reply off, and each try would cost."""
    reply, _ = await ask(server, "the rule of a table", stream=True)
    assert (reply.text or "").count("-----") == 600


@both
async def test_the_cost_of_an_unknown_model_is_not_known(server: ModelServer, *, stream: bool) -> None:
    """A model without a price has no cost, which is neither 0 nor an error."""
    reply, _ = await ask(server, "hello", stream=stream)
    assert reply.cost_usd is None


@both
async def test_parallel_tool_calls(server: ModelServer, *, stream: bool) -> None:
    """Several calls arrive whole and in order, and the message can be sent again."""
    reply, _ = await ask(server, "parallel", stream=stream)
    assert [(call.name, json.loads(call.arguments)) for call in reply.tool_calls] == [
        ("one", {"text": "first call"}),
        ("two", {"n": 2}),
        ("one", {"text": "ünï, code"}),
    ]
    assert len({call.id for call in reply.tool_calls}) == 3
    assert reply.finish_reason == "tool_calls"
    assert reply.text == "Let me look."
    assert set(reply.message) == {"role", "content", "tool_calls"}
    results = [{"role": "tool", "tool_call_id": call.id, "content": "r"} for call in reply.tool_calls]
    again = request(server, "hello")
    again.messages[:0] = [{"role": "user", "content": "x"}, reply.message, *results]
    assert (await complete(again)).text == "Hello to you, whoever you are, from a long stream of words."
    assert server.journal[-1]["body"]["messages"][1] == reply.message


@both
@pytest.mark.parametrize(("text", "arguments"), [("raw", '{"text": "cut'), ("half", '{"text": "0')])
async def test_malformed_arguments_pass_through(
    server: ModelServer, text: str, arguments: str, *, stream: bool
) -> None:
    """What the model wrote is handed on untouched: whoever validates it can tell the model."""
    reply, _ = await ask(server, text, stream=stream)
    assert reply.tool_calls[0].arguments == arguments


@both
@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("wait a second", 1.5, 1.5), ("wait for a date", 2e9, 3e9), ("status 503", 7, 7), ("status 500", None, None)],
)
async def test_worth_another_try(
    server: ModelServer, text: str, least: float | None, most: float | None, *, stream: bool
) -> None:
    """429 and 5xx are ModelUnavailable with what Retry-After said; nobody tried again behind our back."""
    with pytest.raises(ModelUnavailable) as caught:
        await ask(server, text, stream=stream)
    if least is None or most is None:
        assert caught.value.retry_after is None
    else:
        assert caught.value.retry_after is not None
        assert least <= caught.value.retry_after <= most
    assert len(server.journal) == 1
    reply, _ = await ask(server, text, stream=stream)
    assert reply.text == "ok"


@both
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("status 400", r"bad schema in tools\[0\]"),
        ("status 401", "OPENAI_API_KEY"),
        ("status 403", "may not use"),
        ("status 404", "check the name openai/test-model"),
        ("nobody scripted this", "no conversation of the script"),
    ],
)
async def test_refused(server: ModelServer, text: str, hint: str, *, stream: bool) -> None:
    """4xx is ModelRefused and says what to do."""
    with pytest.raises(ModelRefused, match=hint) as caught:
        await ask(server, "nobody" if text.startswith("nobody") else text, stream=stream)
    assert not isinstance(caught.value, ContextTooLong)
    assert len(server.journal) == 1


@both
async def test_context_too_long(server: ModelServer, *, stream: bool) -> None:
    """A conversation over the window is an error of its own: compaction can mend it."""
    with pytest.raises(ContextTooLong, match="window"):
        await ask(server, "too long", stream=stream)


@pytest.mark.parametrize("text", ["dropped", "closed", "no word", "tool dropped", "before the end"])
async def test_a_cut_stream_is_no_answer(server: ModelServer, text: str) -> None:
    """A stream without its end, dropped or cleanly closed, is ModelUnavailable, whatever had arrived."""
    with pytest.raises(ModelUnavailable):
        await ask(server, text, stream=True)
    reply, _ = await ask(server, text, stream=True)
    assert reply.text or reply.tool_calls
    assert len(server.journal) == 2


async def test_an_answer_without_usage_is_counted(server: ModelServer) -> None:
    """A stream that reached its finish reason is whole; the tokens nobody reported are counted here."""
    reply, _ = await ask(server, "no usage", stream=True)
    assert reply.text == "one"
    assert reply.usage.input_tokens > 5
    assert reply.usage.output_tokens == 1


async def test_a_cut_reply_is_no_answer(server: ModelServer) -> None:
    """A reply cut without streaming is ModelUnavailable too."""
    with pytest.raises(ModelUnavailable):
        await ask(server, "dropped", stream=False)


@both
async def test_a_reply_at_its_limit_says_so(server: ModelServer, *, stream: bool) -> None:
    """`length` is an answer, as the provider gave it; the finish reason tells."""
    reply, _ = await ask(server, "cut off by length", stream=stream)
    assert (reply.text, reply.finish_reason) == ("half an ans", "length")


async def test_time_out_is_for_the_whole_call(server: ModelServer) -> None:
    """A stream that trickles on is ended at the time-out, though each chunk came in time."""
    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"0\.5 s"):
        await ask(server, "slow", stream=True, timeout=0.5)
    assert time.monotonic() - started < 30


async def test_no_server_is_unavailable() -> None:
    """A refused connection is worth another try."""
    async with ModelServer(SCRIPT) as stopped:
        free = stopped.base_url
    gone = ModelRequest(model="openai/x", messages=[{"role": "user", "content": "a"}], api_base=free, timeout=20)
    with pytest.raises(ModelUnavailable, match="did not answer"):
        await complete(gone)


async def test_cancelling_ends_the_call(server: ModelServer) -> None:
    """A cancelled call raises CancelledError at once, also amid a stream."""
    seen = asyncio.Event()
    task = asyncio.create_task(complete(request(server, "slow"), on_delta=lambda _: seen.set()))
    await asyncio.wait_for(seen.wait(), 10)
    task.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 30


async def test_a_listener_that_fails_ends_the_call(server: ModelServer) -> None:
    """What `on_delta` raises is the caller's own error, not a model's."""

    def refuse(_: str) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await complete(request(server, "hello"), on_delta=refuse)


async def test_fields_reach_the_server(server: ModelServer) -> None:
    """Parameters of the agent are sent; `params` cannot replace what the port decides."""
    params = {"top_p": 0.5, "stream": True, "model": "other"}
    await ask(server, "hello", stream=False, temperature=0.1, seed=7, max_tokens=50, params=params)
    body = server.journal[0]["body"]
    assert body["temperature"] == 0.1
    assert body["seed"] == 7
    assert body["max_tokens"] == 50
    assert body["top_p"] == 0.5
    assert body["model"] == "test-model"
    assert not body.get("stream")


def test_windows_and_counts() -> None:
    """A known model's window is looked up, an unknown one's is 8,192; counting grows with the text."""
    assert context_window("openai/gpt-5-mini") == 272_000
    assert context_window("openai/nobody-knows") == 8192
    short = count_tokens("openai/test-model", [{"role": "user", "content": "hi"}], [])
    long = count_tokens("openai/test-model", [{"role": "user", "content": "hi " * 100}], TOOLS)
    assert 0 < short < 20
    assert long > 100


async def test_a_price_among_the_parameters_reaches_nobody_else(server: ModelServer) -> None:
    """LiteLLM would register it for the process: the next agent of the same model would be billed by it."""
    dear = {"input_cost_per_token": 1.0, "output_cost_per_token": 1.0}
    await complete(request(server, "hello", model="openai/shared-model", params=dear))
    assert (await complete(request(server, "hello", model="openai/shared-model"))).cost_usd in (None, 0.0)
    for params in (dear, {}):
        cost = (await complete(request(server, "hello", model="openai/gpt-4o-mini", params=params))).cost_usd
        assert cost is not None
        assert 0 < cost < 1
    own = await complete(request(server, "hello", model="openai/gpt-4o-mini", price=Price(input=1, output=2, cached=0)))
    assert own.cost_usd == pytest.approx((1000 - 400 + 2 * 500) / 1e6)
