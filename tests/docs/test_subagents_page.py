"""The page about agents that ask agents does what it says: its agents run, its client code runs over what they did."""

from __future__ import annotations

import json
import shlex

import pytest

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import until
from tests.pages import Page
from tests.terminal import Terminal

SCRIPT = """
conversations:
  - when: {system: Write the article}
    replies:
      - call: [{researcher: {message: "What do we know of bees?"}}, {check: {claim: bees fly, since: 1990}}]
      - say: "{{last_tool}}"
  - when: {system: Find out what is asked}
    replies:
      - call: {search: {words: bees}}
      - say: "found {{last_tool}}"
  - when: {system: You are given a claim as JSON}
    replies:
      - say: "holds: {{user}}"
  - when: {system: Find out what it is about}
    replies:
      - call: {hand_off_to_billing: {note: it is about an invoice}}
      - say: never
  - when: {system: Answer questions about invoices}
    replies:
      - say: never
      - say: it is paid
"""


async def test_the_agents_of_the_page(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The editor has a question researched and a claim checked after an approval; triage hands over to billing."""
    with Page("docs/howto/sub-agents.md") as page:
        source = page.take("editor = Agent(") + "\n\n" + page.take("triage = Agent(")
        async with ModelServer(SCRIPT) as models:
            world = await make_world(source, api_base=models.base_url)
            await world.worker(OPENAI_API_KEY="none")
            client = await world.client()
            run = await client.start("editor", "Write about bees.", thread="article")
            await until(run.approvals, "the check is to be approved")
            await run.approve()
            answer = await run.result(timeout=60)
            assert answer.output == 'holds: {"claim":"bees fly","since":1990}'
            results = [str(message.body) for message in await run.messages() if message.role == "tool"]
            assert "found three papers about bees" in results[0]

            for name, value in world.environment().items():
                monkeypatch.setenv(name, value)
            await page.python("async def watch")["watch"](run.run_id)
            told = capsys.readouterr().out.splitlines()
            assert {f"{run.run_id[:8]} child_started", f"{run.run_id[:8]} child_ended"} <= set(told)
            assert [line.split()[:2] for line in told[-3:-1]] == [["researcher", "done"], ["checker", "done"]]
            assert float(told[-1]) > 0

            terminal = Terminal(world, client)
            block = page.take("holdfast show RUN --follow").replace("RUN", run.run_id)
            show, follow = [shlex.split(line)[1:] for line in block.splitlines()]
            assert "asked" in (await terminal(*show)).out
            shown = json.loads((await terminal(*show, "--json")).out)
            assert [child["agent"] for child in shown["children"]] == ["researcher", "checker"]
            assert "asked by" in (await terminal("show", shown["children"][0]["run_id"])).out
            followed = (await terminal(*follow, "--json")).out
            assert len({json.loads(line).get("run_id") for line in followed.splitlines()}) == 3

            moved = await client.start("triage", "Is my invoice paid?", thread="invoice")
            assert (await moved.result(timeout=60)).output == "it is paid"
