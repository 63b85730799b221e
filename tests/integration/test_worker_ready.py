"""The file by which engines and supervisors know that a worker polls: new while it does, gone otherwise."""

from __future__ import annotations

import signal

from tests.conftest import MakeWorld
from tests.kit import until

AGENTS = 'from holdfast import Agent\nagent = Agent("a", instructions="x", model="offline/extractive")\n'


async def test_the_file_is_there_only_while_a_worker_polls(make_world: MakeWorld) -> None:
    """A killed worker's is removed by the next one, which keeps its own new and takes it away as it drains."""
    world = await make_world(AGENTS)
    process = world.start()
    ready = world.folder / f"{process.name}.ready"
    ready.touch()  # what a killed worker leaves in a container that is started again: this one is still importing
    await until(lambda: not ready.exists(), "the old file is removed")
    await process.ready()
    ready.unlink()
    await until(ready.exists, "it is touched again")
    process.signal(signal.SIGTERM)
    await until(lambda: not ready.exists(), "the worker that drains takes it away")
    assert await process.end() == 0
