"""The agents file of the suite: tools of every effect class, async and sync, whose effects a recorder counts; agents.

It is loaded by workers as a user's file would be. Every call is slow before it is sent, before it takes effect and
after it, so that a kill hits calls at each of these points; how slow follows from the call's key and is the same at
every try.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import aiohttp
import httpx

from holdfast import Agent, Budget, MCPServer, ToolContext, ToolError, tool
from holdfast.tools import agent_tool

RECORDER = os.environ["CONFORMANCE_RECORDER"]
SPAN = 0.7  # seconds of each of the three parts of a call, at most; SETTLE leaves a loaded machine time to spare
SETTLE = 3.0
LARGE = 300_000  # bytes of a large result
# Seconds. Long for `once`: there a time-out is a doubt, and this test wants doubts from kills alone. Shorter than
# SETTLE for `verifiable`: waiting for a lost request to settle must not use up the time of the call itself.
TIMEOUT, TIMEOUT_VERIFIABLE = 6.0, 2.8


def delays(ctx: ToolContext) -> tuple[float, float, float]:
    """Return the seconds before this call is sent, before its effect, and after it."""
    spread = int(ctx.idempotency_key[:12], 16)
    unsent, before, after = (0.05 + spread % prime / prime * (SPAN - 0.05) for prime in (997, 991, 983))
    return unsent, before, after


def request(name: str, ctx: ToolContext, run: str, n: str, **more: str) -> dict[str, Any]:
    """Return what both HTTP clients are told."""
    _, before, after = delays(ctx)
    return {
        "url": f"{RECORDER}/effect/{name}",
        "params": {"delay_before": f"{before * 1000:.0f}", "delay_after": f"{after * 1000:.0f}"},
        "headers": {"Idempotency-Key": ctx.idempotency_key, "X-Pid": str(os.getpid())},
        "json": {"run": run, "n": n, **more},
    }


async def send(name: str, ctx: ToolContext, run: str, n: str, **more: str) -> str:
    """Take one effect, as an async tool would."""
    await asyncio.sleep(delays(ctx)[0])
    timeout = aiohttp.ClientTimeout(total=ctx.remaining)
    async with aiohttp.request("POST", **request(name, ctx, run, n, **more), timeout=timeout) as answer:
        return str((await answer.json())["result"])


def send_blocking(name: str, ctx: ToolContext, run: str, n: str) -> str:
    """Take one effect, as a sync tool would."""
    time.sleep(delays(ctx)[0])
    with httpx.Client(timeout=ctx.remaining, verify=False, trust_env=False) as client:
        return str(client.post(**request(name, ctx, run, n)).json()["result"])


async def look_up(ctx: ToolContext, run: str, n: str) -> str | None:
    """Ask whether the call took effect."""
    timeout = aiohttp.ClientTimeout(total=ctx.remaining)
    url = f"{RECORDER}/lookup/verifiable_async/{ctx.idempotency_key}"
    async with aiohttp.request("GET", url, timeout=timeout) as answer:
        return str((await answer.json())["result"]) if answer.status == 200 else None


def look_up_blocking(ctx: ToolContext, run: str, n: str) -> str | None:
    """Ask whether the call took effect."""
    with httpx.Client(timeout=ctx.remaining, verify=False, trust_env=False) as client:
        answer = client.get(f"{RECORDER}/lookup/verifiable_sync/{ctx.idempotency_key}")
        return str(answer.json()["result"]) if answer.status_code == 200 else None


@tool(effect="once", timeout=TIMEOUT, single_request=True)
async def once_async(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect, and nobody can look."""
    return await send("once_async", ctx, run, n)


@tool(effect="once", timeout=TIMEOUT, single_request=True)
def once_sync(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect, and nobody can look."""
    return send_blocking("once_sync", ctx, run, n)


@tool(effect="keyed", timeout=TIMEOUT, single_request=True)
async def keyed_async(ctx: ToolContext, run: str, n: str) -> str:
    """Arrivals with the same key are one effect."""
    return await send("keyed_async", ctx, run, n)


@tool(effect="keyed", timeout=TIMEOUT, single_request=True)
def keyed_sync(ctx: ToolContext, run: str, n: str) -> str:
    """Arrivals with the same key are one effect."""
    return send_blocking("keyed_sync", ctx, run, n)


@tool(effect="verifiable", timeout=TIMEOUT_VERIFIABLE, settle=SETTLE, lookup=look_up, single_request=True)
async def verifiable_async(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect, and one can look."""
    return await send("verifiable_async", ctx, run, n)


@tool(effect="verifiable", timeout=TIMEOUT_VERIFIABLE, settle=SETTLE, lookup=look_up_blocking, single_request=True)
def verifiable_sync(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect, and one can look."""
    return send_blocking("verifiable_sync", ctx, run, n)


@tool(effect="local_tx", timeout=TIMEOUT)
async def local_note(ctx: ToolContext, run: str, n: str) -> str:
    """Write a row; the table would take the same row twice."""
    unsent, before, after = delays(ctx)
    await asyncio.sleep(unsent + before)
    row = await ctx.connection.fetchval(
        "insert into public.notes (key, run, n) values ($1, $2, $3) returning id", ctx.idempotency_key, run, n
    )
    await asyncio.sleep(after)
    return f"local_note #{row}"


@tool(effect="pure", timeout=TIMEOUT)
async def pure_look(ctx: ToolContext, run: str, n: str) -> str:
    """May run again; the recorder tells how often it did."""
    return await send("pure_look", ctx, run, n)


@tool(effect="once", timeout=TIMEOUT, approval="always", single_request=True)
async def once_approved(ctx: ToolContext, run: str, n: str, note: str = "") -> str:
    """Each arrival is an effect, and a person allows it first, perhaps with a note of their own."""
    return await send("once_approved", ctx, run, n, **({"note": note} if note else {}))


@tool(effect="once", timeout=TIMEOUT, single_request=True)
async def once_refused(ctx: ToolContext, run: str, n: str) -> str:
    """Send what the remote refuses, for it is not in its form: no effect takes place."""
    await asyncio.sleep(delays(ctx)[0])
    what: dict[str, Any] = {**request("once_refused", ctx, run, n), "json": [run, n]}
    async with aiohttp.request("POST", **what, timeout=aiohttp.ClientTimeout(total=ctx.remaining)) as answer:
        if answer.status == 400:
            raise ToolError(f"refused: {await answer.text()}")
        return str((await answer.json())["result"])


@tool(effect="once", timeout=TIMEOUT, single_request=True)
async def once_long(ctx: ToolContext, run: str, n: str, text: str) -> str:
    """Take arguments that travel by reference."""
    return await send("once_long", ctx, run, n, text=text)


@tool(effect="keyed", timeout=TIMEOUT, single_request=True)
def keyed_long(ctx: ToolContext, run: str, n: str, text: str) -> str:
    """Take arguments that travel by reference."""
    time.sleep(delays(ctx)[0])
    with httpx.Client(timeout=ctx.remaining, verify=False, trust_env=False) as client:
        return str(client.post(**request("keyed_long", ctx, run, n, text=text)).json()["result"])


@tool(effect="keyed", timeout=TIMEOUT, single_request=True)
async def keyed_large(ctx: ToolContext, run: str, n: str) -> str:
    """Return much more than a model is passed on: it is stored whole."""
    return (await send("keyed_large", ctx, run, n)).ljust(LARGE, ".")


async def look_up_slow(ctx: ToolContext, run: str, n: str) -> str | None:
    """Ask whether the slow call took effect."""
    async with aiohttp.request("GET", f"{RECORDER}/lookup/verifiable_slow/{ctx.idempotency_key}") as answer:
        return str((await answer.json())["result"]) if answer.status == 200 else None


@tool(effect="verifiable", timeout=12.0, settle=15.0, lookup=look_up_slow, single_request=True)
async def verifiable_slow(ctx: ToolContext, run: str, n: str) -> str:
    """Take an effect seconds after the request: long enough for others to think it lost."""
    what: dict[str, Any] = {**request("verifiable_slow", ctx, run, n), "params": {"delay_before": "5000"}}
    async with aiohttp.request("POST", **what) as answer:
        return str((await answer.json())["result"])


TOOLS: list[Any] = [
    once_async,
    once_sync,
    once_approved,
    once_refused,
    once_long,
    keyed_async,
    keyed_sync,
    keyed_long,
    keyed_large,
    verifiable_async,
    verifiable_sync,
    local_note,
    verifiable_slow,
    pure_look,
]


def agent(name: str, *, tools: list[Any] = TOOLS, **more: Any) -> Agent:
    """Return an agent that says who it is: so one can tell from a request who speaks."""
    return Agent(
        name=name, model="openai/test", instructions=f"You are {name}. Call what the script says.", tools=tools, **more
    )


steady = agent("steady")
mindful = agent("mindful", memory=True)
frugal = agent("frugal", budget=Budget(rounds=3, tokens=100_000))
thrifty = agent("thrifty", budget=Budget(tokens=2500))

# Agents that ask one another.
leaf = agent("leaf")
poor = agent("poor", budget=Budget(rounds=1))
middle = agent("middle", tools=[*TOOLS, leaf])
chief = agent("chief", tools=[*TOOLS, leaf, middle, poor, agent_tool("nobody", description="Is not there.")])
miser = agent("miser", tools=[*TOOLS, leaf, middle], budget=Budget(tokens=6000))

# One hands the conversation over to the other.
front = agent("front", handoffs=["back"])
back = agent("back")

# Two MCP servers with the same tools: one is a child of each worker, one is reached by HTTP. Programs that need neither
# start none.
if "CONFORMANCE_OFFICE" in os.environ:
    shared: dict[str, Any] = {
        "effects": {"pure": "pure", "keyed": "keyed"},
        "keys": {"keyed": "key"},
        "timeout": 8.0,
        "attempts": 8,  # servers are killed often here, and a `keyed` call whose attempts are used up is in doubt
        "connect_timeout": 4.0,
    }
    program = [os.environ["CONFORMANCE_OFFICE"], "office", RECORDER, os.environ["CONFORMANCE_LISTING"], "stdio"]
    office = MCPServer("office", command=[sys.executable, "-I", "-S", *program], **shared)
    desk = MCPServer("desk", url=os.environ["CONFORMANCE_DESK"], **shared)
    clerk = agent("clerk", tools=[*TOOLS, office, desk])
