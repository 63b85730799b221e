"""The page of Temporal messages: a plain Temporal client sends each example as it stands, and what comes back fits."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import Any

import jsonschema
from temporalio.client import Client as Temporal
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WithStartWorkflowOperation,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy

from holdfast.server.binary import find_binary
from holdfast.settings import load_settings
from holdfast.testing import ModelServer
from scripts.reference import FOLDER
from scripts.reference.kinds import check
from tests.conftest import MakeWorld
from tests.docs.desk import AGENTS, SCRIPT, answered
from tests.kit import World, until
from tests.pages import Page, lines, shell


class Plain:
    """A client in another language: the server's address, the page, and JSON."""

    def __init__(self, temporal: Temporal, schema: dict[str, Any]) -> None:
        self.temporal = temporal
        self.schema = schema

    def fits(self, name: str, value: Any) -> Any:
        """Check what came back, or is about to be sent, against messages.json."""
        jsonschema.validate(value, {**self.schema, "$ref": f"#/$defs/{name}"})
        return value

    async def ask(self, workflow_id: str, question: Any) -> Any:
        """Start AskWorkflow and wait for its result."""
        self.fits("Ask", question)
        given = await self.temporal.execute_workflow("AskWorkflow", question, id=workflow_id, task_queue="holdfast")
        return self.fits("AskResult", given)

    async def message(self, thread: str, message: Any) -> Any:
        """Send a message by update-with-start."""
        self.fits("Message", message)
        start: Any = WithStartWorkflowOperation(
            "AgentWorkflow",
            {},
            id=f"default:{thread}",
            task_queue="holdfast",
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        return self.fits(
            "Accepted",
            await self.temporal.execute_update_with_start_workflow("message", message, start_workflow_operation=start),
        )

    async def waiting(self, thread: str, text: str, state: str) -> tuple[WorkflowHandle[Any, Any], Any]:
        """Send a message whose seventh step comes to wait; return its workflow, and the call as `state` shows it."""
        await self.message(thread, {"message_id": f"to-{thread}-{text}", "agent": "support", "text": text})
        handle = self.temporal.get_workflow_handle(f"default:{thread}")

        async def look() -> Any:
            found = self.fits("ThreadState", await handle.query("state"))
            return [call for call in (found.get("current") or {}).get("calls", []) if call.get("state") == state]

        [call] = await until(look, f"{text} waits")
        return handle, call


async def test_the_messages_of_the_page(make_world: MakeWorld) -> None:
    """Every example, in the order of the page, and every `temporal` command; the `Web UI` sends the same."""
    with Page("docs/reference/messages.md") as page:
        given: dict[str, list[Any]] = {}
        for block in list(page.left):
            if block.mark.startswith("json: "):
                given.setdefault(block.mark.removeprefix("json: "), []).append(json.loads(page.take(block.text)))
        async with ModelServer(SCRIPT) as models:
            world = await make_world(
                AGENTS,
                api_base=models.base_url,
                tenant="default",
                task_queue="holdfast",
                memory_queue="holdfast-memory",
            )
            await asyncio.gather(world.worker(), world.worker("memory"))
            temporal = await Temporal.connect(world.settings.temporal_address or "")
            schema = json.loads((FOLDER / "messages.json").read_text(encoding="utf-8"))
            plain = Plain(temporal, schema)
            for name, examples in given.items():
                assert [plain.fits(name, example) for example in examples] == schema["$defs"][name]["examples"]
            await _asks(plain, given["Ask"])
            await _talks(plain, world, given, page)
            await _decides(plain, world, given)
            hits = await temporal.execute_workflow(
                "MemoryWorkflow", given["MemoryQuestion"][0], id="question", task_queue="holdfast-memory"
            )
            plain.fits("MemoryAnswer", hits)


async def _asks(plain: Plain, questions: list[Any]) -> None:
    """AskWorkflow: a thread of its own, a named one, a Schedule's template."""
    first, named, recurring = questions
    answer = await plain.ask("ask-0", first)
    assert (answer["state"], answer["answer"]) == ("done", "It was delivered damaged.")
    answer = await plain.ask("ask-0-again", named)
    assert (answer["thread"], answer["state"]) == ("customer-42", "done")
    action = ScheduleActionStartWorkflow("AskWorkflow", recurring, id="late", task_queue="holdfast")
    schedule = await plain.temporal.create_schedule("late", Schedule(action=action, spec=ScheduleSpec()))
    try:
        await schedule.trigger()

        async def fired() -> Any:
            return (await schedule.describe()).info.recent_actions

        [occurrence] = await until(fired, "the schedule has fired")
        handle = plain.temporal.get_workflow_handle(occurrence.action.workflow_id)
        answer = plain.fits("AskResult", await handle.result())
        assert (answer["state"], answer["thread"][:5]) == ("done", "late-")
    finally:
        await schedule.delete()


async def _talks(plain: Plain, world: World, given: dict[str, list[Any]], page: Page) -> None:
    """The update `message`, and each `temporal` command of the page where it belongs."""
    binary = find_binary(load_settings())
    assert binary is not None
    environment = {**world.environment(), "PATH": "/usr/bin:/bin", "HOME": str(world.folder)}
    address = f" --address {shlex.quote(world.settings.temporal_address or '')}"

    async def command(part: str) -> str:
        [line] = lines(page.take(part))
        done = await shell(
            shlex.quote(str(binary)) + line.removeprefix("temporal") + address, world.folder, environment
        )
        assert done.code == 0, done.err
        return done.out

    assert "delivered damaged" in await command("workflow execute --type AskWorkflow")
    await command("schedule create")
    await plain.temporal.get_schedule_handle("morning").delete()
    accepted = await plain.message("customer-42", given["Message"][0])
    assert accepted["run_id"] in await command("execute-update-with-start")
    _, call = await plain.waiting("customer-42", "refund order 17", "approval")
    assert call["tool"] == "refund"
    assert '"step_no"' in await command("workflow query")
    await command("workflow signal")
    await answered(world, "customer-42", "refunded 40.0 for 17")


async def _decides(plain: Plain, world: World, given: dict[str, list[Any]]) -> None:
    """The updates `decide`, `resolve` and `stop`, and as signals."""
    yes, no, less = (plain.fits("Decision", example) for example in given["Decision"])
    handle, call = await plain.waiting("a", "refund", "approval")
    assert call["step_no"] == 7
    plain.fits("Receipt", await handle.execute_update("decide", no))
    await answered(world, "a", "only 20 were paid")
    handle, _ = await plain.waiting("b", "refund", "approval")
    receipt = plain.fits("Receipt", await handle.execute_update("decide", less))
    assert (receipt["decision_id"], receipt["step_no"]) == (less["decision_id"], 7)
    await answered(world, "b", "refunded 20.0 for 17")
    handle, _ = await plain.waiting("c", "refund", "approval")
    await handle.signal("decide", yes)
    await answered(world, "c", "refunded 40.0 for 17")

    done, not_done = (plain.fits("Resolution", example) for example in given["Resolution"])
    handle, _ = await plain.waiting("d", "letter to ann", "in_doubt")
    plain.fits("Receipt", await handle.execute_update("resolve", done))
    await answered(world, "d", "refunded 40.0 for 17")
    handle, _ = await plain.waiting("e", "letter to bob", "in_doubt")

    async def taken() -> bool:  # too soon, the word is refused: the request may still be under way
        await handle.signal("resolve", not_done)
        return bool(await world.rows("select from audit where action = 'resolve' and accepted offset 1"))

    await until(taken, "the word is taken")
    await answered(world, "e", "posted")

    stop = plain.fits("StopRequest", given["StopRequest"][0])
    handle, _ = await plain.waiting("f", "refund", "approval")
    receipt = plain.fits("Receipt", await handle.execute_update("stop", stop))
    rows = await until(
        lambda: world.rows("select error from runs where run_id = $1 and state = 'stopped'", receipt["run_id"]),
        "the run has stopped",
    )
    assert rows == [{"error": "stopped by ann: not needed any more"}]
    handle, _ = await plain.waiting("g", "refund", "approval")
    await handle.signal("stop", stop)
    await until(lambda: world.rows("select from runs where state = 'stopped' offset 1"), "that one, too")


def test_the_event_of_the_page() -> None:
    """The example is an event as the page of events describes it."""
    with Page("docs/reference/events.md") as page:
        event = json.loads(page.take('"seq"'))
        check(event["kind"], json.dumps(event["data"]))
