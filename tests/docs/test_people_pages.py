"""The pages about people and runs: approvals, calls in doubt, looking inside; each block on the real servers."""

from __future__ import annotations

import json
import time

from holdfast import ToolContext
from holdfast.memory.database import connect
from holdfast.tools.runner import ToolRunner
from tests.docs.desk import Desk, answered
from tests.docs.promised import fits
from tests.kit import until
from tests.pages import Page, lines, shell


async def test_approvals(desk: Desk) -> None:
    """Other arguments, from a terminal and from Python."""
    world, client, terminal = desk
    with Page("docs/howto/approvals.md") as page:
        run = await desk.in_state("refund order 17", "a", "waiting")
        await page.shell("holdfast approve RUN 7 --args", world.folder, terminal.environment(), {"RUN": run.run_id})
        await answered(world, "a", "refunded 20.0 for 17")
        run = await desk.in_state("refund order 17", "b", "waiting")
        await page.python("async def approve_less(")["approve_less"](run.run_id)
        await answered(world, "b", "refunded 20.0 for 17")
        [approval] = await (await client.get(run.run_id)).approvals()
        assert (approval.actor, approval.edited) == ("ann", True)


async def test_effects(desk: Desk) -> None:
    """The tool is called; each word about a call in doubt does what the page says."""
    world, client, terminal = desk
    with Page("docs/howto/effects.md") as page:
        tool = page.python("def ship(")["ship"]
        assert (tool.definition.effect, tool.definition.settle) == ("verifiable", 5.0)
        assert page.python("def order_taxi(")["order_taxi"].definition.single_request
        ctx = ToolContext(
            idempotency_key="key", tenant="t", thread="c", run_id="r", step_no=1, deadline=time.monotonic() + 60
        )
        async with ToolRunner() as runner:
            assert await runner.look_up(tool, {"item": "lamp"}, ctx, deadline=ctx.deadline) is None, "it is sent then"
        sent = await client.start("support", "send the parcel")
        assert (await sent.result(timeout=120)).output.startswith("sent with key ")
        commands = lines(page.take("holdfast resolve RUN STEP --done"))
        assert [command.rpartition("--")[2].split()[0] for command in commands[2:]] == ["done", "not-done", "abandon"]
        ends = {"ann": "the letter is in the post", "bob": "posted", "eve": "abandoned"}
        for command, (person, end) in zip(commands[2:], ends.items(), strict=True):
            run = await desk.in_state(f"letter to {person}", person, "waiting")
            words = {"RUN": run.run_id, "STEP": "7"}
            for look in commands[:2]:
                done = await shell(look, world.folder, terminal.environment(), words)
                assert (done.code, "in doubt" in done.out) == (0, True), done

            async def taken(command: str = command, words: dict[str, str] = words) -> bool:
                done = await shell(f"{command} --json", world.folder, terminal.environment(), words)
                assert done.code == 0 or "not-done" in command, done.err
                if done.code == 0:
                    fits("resolve", 0, json.loads(done.out))
                return done.code == 0

            await until(taken, f"{command} is taken")
            await answered(world, person, end)


async def test_look_inside(desk: Desk) -> None:
    """The queries give what the page says, of a run that was paid, one in doubt, one that was decided."""
    world, client, _ = desk
    await (await client.start("support", "Where is order 17?")).result(timeout=120)
    await desk.in_state("letter to ann", "ann", "waiting")
    run = await desk.in_state("refund order 17", "c", "waiting")
    await run.approve(actor="ann")
    await run.result(timeout=120)
    with Page("docs/howto/look-inside.md") as page:
        queries = [query for query in page.take("from holdfast.runs r").split(";") if query.strip()]
        conn = await connect(world.settings.database_url or "")
        try:
            spent, doubtful, audit = [[dict(row) for row in await conn.fetch(query)] for query in queries]
        finally:
            await conn.close()
        assert {row["state"] for row in spent} == {"done", "waiting"}
        assert [row["tool"] for row in doubtful] == ["letter"]
        assert [(row["action"], row["actor"], row["accepted"]) for row in audit] == [("approve", "ann", True)]
