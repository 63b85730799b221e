"""The agents file of the demo: one agent that reads files and files reports. The demo's workers load it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

from holdfast import Agent, Budget, ToolContext, files, tool

DESK = os.environ.get("DEMO_RECORDER", "http://127.0.0.1:9")


def _ask(path: str, body: dict[str, Any] | None = None, key: str = "") -> dict[str, Any]:
    """Call the recorder, which is nothing of ours: a service somewhere that takes reports."""
    request = urllib.request.Request(
        DESK + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "X-Key": key, "X-Pid": str(os.getpid())},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        found: dict[str, Any] = json.load(response)
        return found


def look_up(ctx: ToolContext, title: str, text: str) -> str | None:
    """Return what `file_report` returned if a report of this call has arrived, else None."""
    try:
        return str(_ask(f"/reports/{ctx.idempotency_key}")["said"])
    except urllib.error.HTTPError as exc:
        if exc.code == 404:
            return None
        raise


@tool(effect="verifiable", lookup=look_up, settle=1.0, approval="always", single_request=True)
def file_report(ctx: ToolContext, title: str, text: str) -> str:
    """File a report with the records office."""
    return str(_ask("/reports", {"title": title, "text": text}, key=ctx.idempotency_key)["said"])


demo = Agent(
    name="demo",
    model="offline/extractive",  # no key and no account; HOLDFAST_MODEL=provider/model puts a real one in its place
    instructions="Answer from the files: search them, read what you find, quote it with its path.",
    tools=[*files(os.environ.get("DEMO_FILES", ".")), file_report],
    budget=Budget(usd=0.50, rounds=20),
)
