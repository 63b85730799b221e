"""The hash of a request is taken piece by piece, and is that of its canonical JSON."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from holdfast.activities.requests import digest_of, request_hash
from holdfast.ids import canonical_json
from holdfast.llm import ModelRequest


def request(messages: list[dict[str, Any]], **more: Any) -> ModelRequest:
    """Return a request with these messages."""
    given: dict[str, Any] = {"tools": [], "temperature": None, "seed": None, "max_tokens": None, "params": {}}
    return ModelRequest(model="openai/test", messages=messages, **{**given, **more})


@pytest.mark.parametrize(
    ("messages", "more"),
    [
        ([], {}),
        ([{"role": "user", "content": 'é "quoted"\n'}], {"params": {"b": [1, 2], "a": None}}),
        ([{"role": "user", "content": "a"}] * 3, {"tools": [{"type": "function", "function": {"name": "x"}}]}),
        ([], {"temperature": 0.5, "seed": 7, "max_tokens": 9, "response_format": {"type": "json_object"}}),
    ],
)
def test_pieces_make_the_canonical_json(messages: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """A request that was recorded by its whole JSON has the same hash."""
    made = request(messages, **more)
    names = ("model", "messages", "tools", "temperature", "seed", "max_tokens", "params")
    sent = {name: getattr(made, name) for name in names}
    if made.response_format is not None:
        sent["response_format"] = made.response_format
    assert request_hash(made) == hashlib.sha256(canonical_json(sent).encode()).hexdigest()


async def test_the_loop_turns_while_megabytes_are_hashed() -> None:
    """Hashed by one call, 64 MB of messages would stop every thread, and leases with them, until it is done."""
    made = request([{"role": "user", "content": "x" * 4000}] * 16_000)
    turns = 0

    async def turning() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(turning())
    digest = await digest_of(made, 16_000_000)
    task.cancel()
    assert turns > 10
    assert digest == request_hash(made)
