"""The agents file of the controls: tools whose requests are certain to be under way, or to have landed, when it counts.

Workers load it as a user's file. The first request of a `late` tool lands when the scene says so, later ones at once;
what a `held` tool sends takes effect at once, and is answered when the scene says so.
"""

from __future__ import annotations

import json
import os
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from holdfast import Agent, Budget, ToolContext, tool

RECORDER = urlsplit(os.environ["CONFORMANCE_RECORDER"])
SENT = Path(os.environ["CONFORMANCE_MARK"]).with_name("sent")  # there when a request has left this process
SETTLE = 5.0  # seconds. With the guard on a control waits so long
TIMEOUT = 40.0  # seconds. A process that was frozen for longer sends nothing any more, with or without a fence


def ask(method: str, path: str, ctx: ToolContext, body: dict[str, str] | None = None) -> tuple[int, dict[str, str]]:
    """Return status and answer of the recorder."""
    conn = HTTPConnection(RECORDER.hostname or "", RECORDER.port, timeout=ctx.remaining)
    headers = {"Idempotency-Key": ctx.idempotency_key, "X-Pid": str(os.getpid()), "Content-Type": "application/json"}
    conn.request(method, path, json.dumps(body), headers)
    if body is not None:
        SENT.touch()
    answer = conn.getresponse()
    found: dict[str, str] = json.loads(answer.read())
    conn.close()
    return answer.status, found


def send(name: str, ctx: ToolContext, run: str, n: str, **more: str) -> str:
    """Take one effect."""
    wait = {}
    if name.endswith("_late") and not SENT.exists():
        wait = {"land": "land"}
    if name.endswith("_held"):
        wait = {"answer": "answer"}
    return ask("POST", f"/effect/{name}?{urlencode(wait)}", ctx, {"run": run, "n": n, **more})[1]["result"]


def look_up(name: str, ctx: ToolContext) -> str | None:
    """Ask whether a call took effect."""
    status, found = ask("GET", f"/lookup/{name}/{ctx.idempotency_key}", ctx)
    return found["result"] if status == 200 else None


def look_up_late(ctx: ToolContext, run: str, n: str) -> str | None:
    """Ask whether `verifiable_late` took effect."""
    return look_up("verifiable_late", ctx)


def look_up_held(ctx: ToolContext, run: str, n: str) -> str | None:
    """Ask whether `verifiable_held` took effect."""
    return look_up("verifiable_held", ctx)


@tool(effect="once", timeout=TIMEOUT, single_request=True)
def once_held(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect."""
    return send("once_held", ctx, run, n)


@tool(effect="once", timeout=10.0, single_request=True)
def once_late(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect. The time-out is what makes a person wait before it may be said not to be done."""
    return send("once_late", ctx, run, n)


@tool(effect="once", timeout=TIMEOUT, approval="always", single_request=True)
def once_approved(ctx: ToolContext, run: str, n: str, note: str = "") -> str:
    """Each arrival is an effect, and a person allows it first."""
    return send("once_approved", ctx, run, n, **({"note": note} if note else {}))


@tool(effect="verifiable", timeout=TIMEOUT, settle=SETTLE, lookup=look_up_late, single_request=True)
def verifiable_late(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect, and one can look: in vain as long as the request may still land."""
    return send("verifiable_late", ctx, run, n)


@tool(effect="verifiable", timeout=TIMEOUT, settle=0.5, lookup=look_up_held, single_request=True)
def verifiable_held(ctx: ToolContext, run: str, n: str) -> str:
    """Each arrival is an effect, and one can look."""
    return send("verifiable_held", ctx, run, n)


@tool(effect="once", timeout=TIMEOUT, single_request=True)
def once_now(ctx: ToolContext, run: str, n: str, note: str = "") -> str:
    """Each arrival is an effect."""
    return send("once_now", ctx, run, n, **({"note": note} if note else {}))


@tool(effect="keyed", timeout=TIMEOUT, single_request=True)
def keyed_now(ctx: ToolContext, run: str, n: str) -> str:
    """Arrivals with the same key are one effect."""
    return send("keyed_now", ctx, run, n)


@tool(effect="keyed", timeout=TIMEOUT, single_request=True)
def keyed_held(ctx: ToolContext, run: str, n: str) -> str:
    """Arrivals with the same key are one effect."""
    return send("keyed_held", ctx, run, n)


@tool(effect="local_tx", timeout=TIMEOUT)
async def local_note(ctx: ToolContext, run: str, n: str) -> str:
    """Write a row; the table would take the same row twice."""
    row = await ctx.connection.fetchval(
        "insert into public.notes (key, run, n) values ($1, $2, $3) returning id", ctx.idempotency_key, run, n
    )
    return f"local_note #{row}"


TOOLS: list[Any] = [
    once_now,
    once_held,
    once_late,
    once_approved,
    verifiable_late,
    verifiable_held,
    keyed_now,
    keyed_held,
    local_note,
]
INSTRUCTIONS = "Call what the script says."

steady = Agent(name="steady", model="openai/test", instructions=INSTRUCTIONS, tools=TOOLS)
mindful = Agent(name="mindful", model="openai/test", instructions=INSTRUCTIONS, tools=TOOLS, memory=True)
frugal = Agent(name="frugal", model="openai/test", instructions=INSTRUCTIONS, tools=TOOLS, budget=Budget(rounds=1))
