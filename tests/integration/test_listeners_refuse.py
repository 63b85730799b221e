"""A required listener that never takes one event: it is set aside, loudly, and all others are told."""

from __future__ import annotations

import json

from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, World, until

AGENTS = '''
import json, pathlib
from holdfast import Agent, Event, Plugin

HERE = pathlib.Path(__file__).parent

class Audit(Plugin):
    """Writes down what happens; away, nothing; never the message "poison"."""
    required = True

    def event(self, event: Event) -> None:
        if (HERE / "away").exists():
            raise ConnectionError("the audit's server is away")
        if event.data.get("message_id") == "poison":
            raise ValueError("this event cannot be written")
        with (HERE / "heard").open("a") as file:
            file.write(json.dumps([event.run_id, event.seq]) + "\\n")

plugins = [Audit()]
agent = Agent("agent", "openai/test", "Help.")
'''


def heard(world: World) -> list[tuple[str, int]]:
    """Return what the listener has taken: run and number of each event."""
    path = world.folder / "heard"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


async def test_an_event_that_is_refused_for_good_is_set_aside(make_world: MakeWorld) -> None:
    """After a bounded number of tries in which others were taken; none is lost while the listener takes nothing."""
    async with ModelServer("conversations: [{replies: [{say: hello}]}]") as models:
        world = await make_world(AGENTS, api_base=models.base_url, sweep_every=0.2, event_tries=3, event_pause_max=0.5)
        away = world.folder / "away"
        away.touch()
        worker = await world.worker()
        client = await world.client()
        runs = [await client.start("agent", "hi", thread=name, message_id=name) for name in ("poison", "other")]
        for run in runs:
            await run.result(timeout=PATIENCE)

        async def tried() -> bool:
            rows = await world.rows("select tries from heard")
            return len(rows) == 2 and all(row["tries"] > 4 for row in rows)

        await until(tried, "both were refused again and again")
        assert await world.rows("select 1 from unheard") == [], "it takes nothing: its own server is away"
        away.unlink()
        expected = {(run.run_id, event.seq) for run in runs for event in await run.recorded()}
        lost = (runs[0].run_id, 1)
        await until(lambda: set(heard(world)) == expected - {lost}, "all others are told")
        [row] = await world.rows("select plugin, run_id::text as run_id, seq, error from unheard")
        assert (row["run_id"], row["seq"]) == lost
        assert row["error"] == "ValueError: this event cannot be written"
        assert "it is set aside in the table unheard" in worker.log.read_text()
        for run in runs:
            told = [seq for run_id, seq in heard(world) if run_id == run.run_id]
            assert told == sorted(set(told)), "in order, each once"

        async def whole() -> bool:
            return await world.rows("select 1 from heard where pending") == []

        await until(whole, "no run is looked up any more")
