"""The page about wrong answers leads from a run to the tool that returned wrong data; each of its blocks is run."""

from __future__ import annotations

import json

import pytest

from tests.docs.desk import Desk
from tests.docs.promised import fits
from tests.kit import PATIENCE
from tests.pages import Page, lines, shell


async def test_debug(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has the run, its steps what came of each, a step what was sent; client and JSON have the same, whole."""
    world, client, terminal = desk
    run = await client.start("support", "Where is order 17?")
    assert (await run.result(timeout=PATIENCE)).output == "It was delivered damaged."
    first, call, _ = await run.trace()
    environment = terminal.environment()
    with Page("docs/howto/debug.md") as page:
        found, steps = lines(page.take("holdfast runs"))
        assert run.run_id[:8] in (await shell(found, world.folder, environment)).out
        under = (await shell(steps, world.folder, environment, {"RUN": run.run_id})).out.splitlines()
        at = next(number for number, line in enumerate(under) if 'order_status(order_id="17")' in line)
        assert under[at + 1].strip() == "delivered damaged"

        one = page.take("holdfast show RUN STEP\n")
        words = {"RUN": run.run_id, "STEP": str(call.step_no)}
        assert "delivered damaged" in (await shell(one, world.folder, environment, words)).out
        asked = await shell(one, world.folder, environment, {**words, "STEP": str(first.step_no)})
        assert "Look up one order." in asked.out
        assert ", verified" in asked.out

        await page.python("async def debug(")["debug"](run.run_id)
        told = capsys.readouterr().out.splitlines()
        assert f"{call.step_no} order_status done {{'order_id': '17'}} delivered damaged" in told
        assert "user Where is order 17?" in told
        assert any(line.startswith("openai/test ") and line.endswith(" True") for line in told)

        whole, step = lines(page.take("holdfast show RUN --json"))
        detail = json.loads((await shell(whole, world.folder, environment, words)).out)
        fits("show", 0, detail)
        assert [each["result"] for each in detail["steps_taken"]] == [None, "delivered damaged", None]
        shown = json.loads((await shell(step, world.folder, environment, words)).out)
        fits("show", 3, shown)
        assert (shown["args"], shown["state"], shown["ledger"]["state"]) == ({"order_id": "17"}, "done", "done")

        export = page.take("holdfast export RUN --out")
        assert (await shell(export, world.folder, environment, words)).code == 0
        recording = json.loads((world.folder / "run.json").read_text(encoding="utf-8"))
        assert recording["runs"][0]["replies"][0]["calls"][0]["tool"] == "order_status"
