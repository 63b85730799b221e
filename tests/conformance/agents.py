"""The agents file of the suite: the crash tests' tools of every class, two more, and three agents."""

from __future__ import annotations

from typing import Any

import aiohttp

from holdfast import Agent, Budget, ToolContext, tool
from tests.crash.agents import (
    RECORDER,
    TIMEOUT,
    keyed_async,
    keyed_sync,
    local_note,
    once_async,
    once_sync,
    pure_look,
    request,
    send,
    verifiable_async,
    verifiable_sync,
)


@tool(effect="once", timeout=TIMEOUT, approval="always")
async def once_approved(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect, and a person allows it first."""
    return await send("once_approved", ctx, run, n)


async def look_up_slow(ctx: ToolContext, run: str, n: str) -> str | None:
    """Ask whether the slow call took effect."""
    async with aiohttp.request("GET", f"{RECORDER}/lookup/verifiable_slow/{ctx.idempotency_key}") as answer:
        return str((await answer.json())["result"]) if answer.status == 200 else None


@tool(effect="verifiable", timeout=12.0, settle=15.0, lookup=look_up_slow)
async def verifiable_slow(ctx: ToolContext, run: str, n: str) -> str:
    """Take an effect seconds after the request: long enough for others to think it lost."""
    what = {**request("verifiable_slow", ctx, run, n), "params": {"delay_before": "5000"}}
    async with aiohttp.request("POST", **what) as answer:
        return str((await answer.json())["result"])


TOOLS: list[Any] = [
    once_async,
    once_sync,
    once_approved,
    keyed_async,
    keyed_sync,
    verifiable_async,
    verifiable_sync,
    local_note,
    verifiable_slow,
    pure_look,
]
INSTRUCTIONS = "Call what the script says."

steady = Agent(name="steady", model="openai/test", instructions=INSTRUCTIONS, tools=TOOLS)
mindful = Agent(name="mindful", model="openai/test", instructions=INSTRUCTIONS, tools=TOOLS, memory=True)
frugal = Agent(
    name="frugal", model="openai/test", instructions=INSTRUCTIONS, tools=TOOLS, budget=Budget(rounds=3, tokens=100_000)
)
