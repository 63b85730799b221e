"""The pages about typed answers and schedules do what they say: each of their blocks is run, on the real servers."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

import pytest

from holdfast.schedules import ScheduleView
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import until
from tests.pages import Page, lines
from tests.terminal import Terminal

AGENTS = """
from holdfast import Agent

support = Agent(name="support", model="openai/gpt-5-mini")
"""


def _typed_reply(request: dict[str, Any]) -> dict[str, Any]:
    said = request["messages"][1]["content"] if request["messages"][0]["role"] == "system" else ""
    if "words" in said:
        return {"say": '{"summary": "late", "tone": "angry"}', "usage": (1000, 100)}
    wrong = len(request["messages"]) == 2
    return {"say": json.dumps({"kind": "refund", "order_id": None, "urgency": 9 if wrong else 5})}


async def test_typed_answers(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agents of the page answer, the first after a correction; the client's blocks read what the page says."""
    with Page("docs/howto/typed-answers.md") as page:
        async with ModelServer(reply=_typed_reply) as models:
            world = await make_world(page.take("triage = Agent("), api_base=models.base_url)
            await world.worker()
            client = await world.client()
            read = page.python("async def read(")
            typed, plain = await read["read"](client)
            assert isinstance(typed, read["Ticket"])
            assert plain == {"kind": "refund", "order_id": None, "urgency": 5}
            [run] = await client.runs()
            assert run.rounds == 2
            asked = [entry["body"].get("response_format", {}).get("type") for entry in models.journal]
            assert asked == ["json_schema", "json_schema"], "the model of the page is known to be able to"
            monkeypatch.syspath_prepend(str(world.folder))
            try:
                hurry = page.python("async def hurry(")["hurry"]
                assert await hurry(client, "mail-1", "where is it") == await hurry(client, "mail-1", "where is it")
                assert (await hurry(client, "mail-1", "where is it")).startswith("late (angry, 0.000")
            finally:
                sys.modules.pop("agents", None)
            assert len(await client.runs()) == 2


async def test_schedules(make_world: MakeWorld) -> None:
    """Each command and the block of Python, in their order."""
    with Page("docs/howto/schedules.md") as page:
        async with ModelServer("conversations: [{replies: [{say: none}]}]") as models:
            world = await make_world(AGENTS, api_base=models.base_url)
            await world.worker()
            client = await world.client()
            terminal = Terminal(world, client)
            said = {}
            for line in lines(page.take("holdfast schedule add")):
                words = shlex.split(line)[1:]
                out = await terminal(*words)
                assert out.code == 0, out.err
                said[words[1]] = out.out + out.err

                async def listed(name: str = words[2] if words[1] == "add" else "late") -> bool:
                    return name in [view.name for view in await client.schedules.list()]

                await until(listed, "the schedule is listed")
            assert "never" in said["list"]
            assert "asks support, 0 7 * * mon-fri, Europe/Berlin" in said["show"]
            assert said["backfill"].startswith("5 fell due then")

            async def answered() -> ScheduleView | None:
                view = await client.schedules.get("late")
                return view if [run.state for run in view.recent] == ["done"] * 6 else None

            view: ScheduleView = await until(answered, "all six were answered")
            assert view.note == "resumed"
            assert view.recent[-1].thread == "late-20260109T060000Z"
            shown = json.loads((await terminal("schedule", "show", "late", "--json")).out)
            assert [run["state"] for run in shown["recent"]] == ["done"] * 6
            table = (await terminal("schedule", "list")).out
            assert "done" in table
            assert "Europe/Berlin" in table
            wrong = await terminal("schedule", "add", "late", "support", "again", "--every", "1h")
            assert (wrong.code, "already" in wrong.err) == (2, True)
            assert (await terminal("schedule", "show", "watch")).code == 2
            plan = page.python("async def plan(")["plan"]
            assert await plan(client) == ["weekly: hour=8 day_of_week=mon"]
            for name in ("late", "weekly"):
                assert (await terminal("schedule", "delete", name, "--json")).code == 0
            assert (await terminal("schedule", "delete", "late")).code == 2
