"""Nobody serves the memory queue, as while the memory process is down: runs go on, and nothing promised is lost."""

from __future__ import annotations

from holdfast.testing import ModelServer
from tests import histories
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, until

AGENTS = """
from holdfast import Agent
from holdfast.tools import recall, remember

keeper = Agent(name="keeper", model="openai/test", instructions="Keep.", tools=[recall, remember])
"""

SCRIPT = """
conversations:
  - when: keep
    replies:
      - call: {remember: {text: The gate is blue.}}
      - say: "told: {{last_tool}}"
  - replies:
      - call: {recall: {query: gate}}
      - say: "told: {{last_tool}}"
"""


async def test_a_run_goes_on_without_a_memory_worker(make_world: MakeWorld) -> None:
    """A recall is a clear error after `memory_wait`; what is to be remembered is kept until a memory worker comes."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        kept = await client.start("keeper", "keep this", thread="a")
        assert "it will be stored" in (await kept.result(timeout=PATIENCE)).output
        asked = await client.start("keeper", "which colour?", thread="a")
        answer = (await asked.result(timeout=PATIENCE)).output
        assert "the memory worker does not answer" in answer
        assert f"task queue {world.settings.memory_queue}" in answer
        done = [event.data for event in await asked.recorded() if event.kind == "tool_done"]
        assert [(each["tool"], each["status"]) for each in done] == [("recall", "error")]
        assert "the memory worker does not answer" in done[0]["preview"]
        temporal = await histories.connect(world.settings)
        history = await temporal.get_workflow_handle(asked.workflow_id).fetch_history()
        shown = [event.user_metadata.summary.data for event in history.events]
        assert b'"recall: the memory worker does not answer"' in shown
        assert [row["text"] for row in await world.rows("select text from outbox")] == ["The gate is blue."]

        await world.worker("memory")

        async def drained() -> bool:
            return not await world.rows("select 1 from outbox")

        await until(drained, "what waited is remembered")
        later = await client.start("keeper", "which colour?", thread="a")
        assert "The gate is blue." in (await later.result(timeout=PATIENCE)).output
        assert await world.rows("select tool, state from effects where tool <> 'model' order by created_at") == [
            {"tool": "remember", "state": "done"},
            *2 * [{"tool": "recall", "state": "done"}],
        ]
