"""The agents file of `resume`: a tool of every effect class that counts at a recorder and can be held. Workers load it.

`mode` says how a call goes: `quick` returns; `hold` keeps its first attempt for ever once its effect has taken place;
`gate` waits, with its effect in place, until all are told to go on. `n` tells
calls apart.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp

from holdfast import Agent, Budget, ToolContext, tool

RECORDER = os.environ["BENCH_RECORDER"]
MARKS = Path(os.environ["BENCH_MARKS"])  # a file here for each run that is held; `go` lets them go
TIMEOUT = 300.0  # seconds: no call of a bench shall end by its deadline
DELAY = os.environ["BENCH_DELAY"]  # milliseconds before a call's effect, and again before its answer
SETTLE = 1.0 + float(DELAY) / 1000


async def take(name: str, ctx: ToolContext) -> str:
    """Have an effect at the recorder, half-way through the call."""
    async with aiohttp.request(
        "POST",
        f"{RECORDER}/effect/{name}",
        params={"delay_before": DELAY, "delay_after": DELAY},
        headers={"Idempotency-Key": ctx.idempotency_key},
        json={"run": ctx.run_id},
    ) as answer:
        return str((await answer.json())["result"])


async def stay(mode: str, ctx: ToolContext) -> None:
    """Be there when the worker is killed."""
    if mode == "quick" or ctx.attempt > 1:
        return
    await asyncio.to_thread((MARKS / ctx.run_id).touch)
    while mode == "hold" or not await asyncio.to_thread((MARKS / "go").exists):  # noqa: ASYNC110  # told by a file
        await asyncio.sleep(0.02)


@tool(effect="pure", timeout=TIMEOUT)
async def pure(ctx: ToolContext, mode: str, n: str = "") -> str:
    """May run again."""
    await stay(mode, ctx)
    return "done"


@tool(effect="keyed", timeout=TIMEOUT, single_request=True)
async def keyed(ctx: ToolContext, mode: str, n: str = "") -> str:
    """Arrivals with the same key are one effect."""
    result = await take("keyed", ctx)
    await stay(mode, ctx)
    return result


async def look(ctx: ToolContext, mode: str, n: str = "") -> str | None:
    """Ask whether the call took effect."""
    async with aiohttp.request("GET", f"{RECORDER}/lookup/verifiable/{ctx.idempotency_key}") as answer:
        return str((await answer.json())["result"]) if answer.status == 200 else None


@tool(effect="verifiable", timeout=TIMEOUT, settle=SETTLE, lookup=look, single_request=True)
async def verifiable(ctx: ToolContext, mode: str, n: str = "") -> str:
    """Each arrival is an effect, and one can look."""
    result = await take("verifiable", ctx)
    await stay(mode, ctx)
    return result


@tool(effect="once", timeout=TIMEOUT, single_request=True)
async def once(ctx: ToolContext, mode: str, n: str = "") -> str:
    """Each arrival is an effect, and nobody can look."""
    result = await take("once", ctx)
    await stay(mode, ctx)
    return result


@tool(effect="local_tx", timeout=TIMEOUT)
async def local_tx(ctx: ToolContext, mode: str, n: str = "") -> str:
    """Write a row; the table would take the same row twice."""
    row = await ctx.connection.fetchval("insert into public.notes (key) values ($1) returning id", ctx.idempotency_key)
    await stay(mode, ctx)
    return f"note {row}"


@tool(effect="pure", approval="always")
async def asked() -> str:
    """Do what a person was asked about."""
    return "done"


worker = Agent(
    name="worker",
    model="openai/test",
    tools=[pure, keyed, verifiable, once, local_tx, asked],
    budget=Budget(rounds=None),  # a long history has more rounds than the default allows
    window=1_000_000,  # and is not compacted: the script counts its messages
)
