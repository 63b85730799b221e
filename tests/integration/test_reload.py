"""The agents file is edited while runs are under way: on the real stack, with real workers and a scripted model."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

from holdfast import Client, RunHandle
from holdfast.server import read_stack, start_detached, stop_stack
from holdfast.server.reload import file_hash
from holdfast.settings import Settings, load_settings
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE, until

SOURCE = '''
from pathlib import Path
from holdfast import Agent, ToolContext, tool

JOURNAL = Path(__file__).with_name("journal")

@tool(effect="once")
def mark(ctx: ToolContext, name: str) -> str:
    """Write a mark down."""
    with JOURNAL.open("a") as file:
        file.write(f"{ctx.idempotency_key}\\n")
    return f"marked {name} by version ONE"

@tool(effect="once", approval="always")
def pay(amount: float) -> str:
    """Pay."""
    return "paid"

agent = Agent(name="agent", model="openai/test", instructions="Version ONE.", tools=[mark, pay])
'''
SECOND = SOURCE.replace("ONE", "TWO").replace("tools=[mark, pay]", "tools=[mark]")
NEW_TOOL = SOURCE.replace("tools=[mark, pay]", "tools=[mark, pay, fresh]").replace(
    "agent = Agent",
    '@tool(effect="once")\ndef fresh(name: str) -> str:\n    """New."""\n    return "new"\n\nagent = Agent',
)

SCRIPT = """
conversations:
  - when: pay
    replies:
      - call: {pay: {amount: 5}}
      - say: "The tool said: {{last_tool}}"
  - when: fresh
    replies:
      - call: {fresh: {name: x}}
      - say: "The tool said: {{last_tool}}"
  - replies:
      - call: {mark: {name: a}}
        latency: 0.5
      - call: {mark: {name: b}}
        latency: 0.5
      - call: {mark: {name: c}}
        latency: 0.5
      - say: "Last: {{last_tool}}"
"""


async def test_a_call_waits_for_a_worker_that_has_its_tool(make_world: MakeWorld) -> None:
    """While old and new workers serve one queue, no run hears that a new tool is gone."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(SOURCE, api_base=models.base_url)
        await world.worker()
        world.agents.write_text(NEW_TOOL, encoding="utf-8")
        await world.worker()
        client = await world.client()
        runs = [await client.start("agent", "fresh please", thread=f"c{number}") for number in range(6)]
        answers = [await run.result(timeout=PATIENCE) for run in runs]
    assert {answer.output for answer in answers} == {"The tool said: new"}


async def test_an_edit_reaches_new_runs_and_loses_nothing(tmp_path: Path) -> None:
    """Runs under way keep their definition and finish, each effect once; a broken file changes nothing.

    A call that waits for approval, and whose tool is taken out meanwhile, becomes an error that the model reads.
    """
    agents = tmp_path / "agents.py"
    agents.write_text(SOURCE, encoding="utf-8")
    async with ModelServer(SCRIPT) as models:
        settings = load_settings(home=tmp_path / "home", agents=agents, api_base=models.base_url, workers=1)
        await asyncio.to_thread(start_detached, settings)
        try:
            async with await Client.connect(settings) as client:
                await _edited_under_way(client, agents, settings)
        finally:
            await asyncio.to_thread(stop_stack, settings.home)


async def _edited_under_way(client: Client, agents: Path, settings: Settings) -> None:
    waiting = await client.start("agent", "pay five", thread="waits")

    async def asked() -> bool:
        return any(found.state == "pending" for found in await waiting.approvals())

    await until(asked, "an approval is pending")
    broken = _save(agents, SOURCE + "\nx = (\n")
    await until(lambda: (info := read_stack(settings.home)) and info.agents_refused == broken, "the error is told")
    info = read_stack(settings.home)
    assert info is not None
    assert f"{agents}:{SOURCE.count(chr(10)) + 2}: x = (" in (info.agents_error or "")
    before = await client.start("agent", "mark", thread="broken")
    runs = [await client.start("agent", "mark", thread=f"c{number}") for number in range(4)]
    assert "Version ONE" in (await client.agents())["agent"].instructions
    wanted = _save(agents, SECOND)
    await until(lambda: (info := read_stack(settings.home)) and info.agents_version == wanted, "the workers have it")
    after = await client.start("agent", "mark", thread="after")
    for run in (before, *runs, after):
        assert (await run.result(timeout=PATIENCE)).output.startswith("Last: marked c by version")
    assert "TWO" in (await after.result()).output
    assert [await _instructions(run) for run in (before, after)] == ["Version ONE.", "Version TWO."]
    marks = Counter((agents.parent / "journal").read_text().splitlines())
    assert set(marks.values()) == {1}
    assert len(marks) == 3 * 6
    await waiting.approve()
    assert "pay is no longer there" in (await waiting.result(timeout=PATIENCE)).output


def _save(path: Path, source: str) -> str | None:
    path.write_text(source, encoding="utf-8")
    return file_hash(path)


async def _instructions(run: RunHandle) -> str:
    definition = await run.definition()
    assert definition is not None
    return definition.instructions


SLOW = "import asyncio\n" + SOURCE.replace(
    "agent = Agent",
    '''GATE = Path(__file__).with_name("gate")

@tool(effect="once", timeout=300)
async def slow(name: str) -> str:
    """Take as long as it takes."""
    Path(__file__).with_name("begun").touch()
    while not GATE.exists():
        await asyncio.sleep(0.05)
    return "slowly done by version ONE"

agent = Agent''',
).replace("tools=[mark, pay]", "tools=[mark, pay, slow]")
SLOW_SCRIPT = """
conversations:
  - when: slow
    replies:
      - call: {slow: {name: a}}
      - say: "The tool said: {{last_tool}}"
  - replies: [{call: {mark: {name: a}}}, {say: "{{last_tool}}"}]
"""
OLD_GRACE = 8.0  # seconds after which a worker that was replaced cut its calls off, before it waited for them


async def test_a_slow_call_outlives_the_worker_that_was_replaced(tmp_path: Path) -> None:
    """Saving the agents file leaves a `once` call in flight alone; new runs are answered by new code meanwhile."""
    agents = tmp_path / "agents.py"
    agents.write_text(SLOW, encoding="utf-8")
    async with ModelServer(SLOW_SCRIPT) as models:
        settings = load_settings(home=tmp_path / "home", agents=agents, api_base=models.base_url, workers=2)
        await asyncio.to_thread(start_detached, settings)
        try:
            async with await Client.connect(settings) as client:
                run = await client.start("agent", "slow please", thread="slow")
                await until((tmp_path / "begun").exists, "the call is in flight")
                saved = time.monotonic()
                wanted = _save(agents, SLOW.replace("ONE", "TWO"))
                await until(lambda: (at := read_stack(settings.home)) and at.agents_version == wanted, "it is loaded")
                for number in range(4):
                    after = await client.start("agent", "mark", thread=f"after{number}")
                    assert "TWO" in (await after.result(timeout=PATIENCE)).output
                await until(lambda: time.monotonic() > saved + OLD_GRACE + 3, "more than the old grace is over")
                info = read_stack(settings.home)
                assert info is not None
                assert "draining" in [child.state for child in info.children]
                (tmp_path / "gate").touch()
                assert (await run.result(timeout=PATIENCE)).output == "The tool said: slowly done by version ONE"
                assert [event.kind async for event in run.events() if event.kind == "in_doubt"] == []
                await until(lambda: _states(settings) == ["ready", "ready"], "the old workers are gone")
        finally:
            await asyncio.to_thread(stop_stack, settings.home)


def _states(settings: Settings) -> list[str]:
    info = read_stack(settings.home)
    return [child.state for child in info.children if child.name.startswith("agents-")] if info is not None else []


async def test_a_worker_that_is_told_to_stop_finishes_its_call(make_world: MakeWorld) -> None:
    """On SIGTERM it takes no more work and ends, in order, when the call in flight has ended."""
    async with ModelServer(SLOW_SCRIPT) as models:
        world = await make_world(SLOW, api_base=models.base_url)
        old = await world.worker()
        client = await world.client()
        run = await client.start("agent", "slow please", thread="slow")
        await until((world.folder / "begun").exists, "the call is in flight")
        old.signal(signal.SIGTERM)
        told = time.monotonic()
        await world.worker()
        await until(lambda: time.monotonic() > told + OLD_GRACE + 3, "more than the old grace is over")
        assert old.popen.poll() is None
        (world.folder / "gate").touch()
        assert "slowly done" in (await run.result(timeout=PATIENCE)).output
        assert await asyncio.to_thread(old.popen.wait) == 0
        assert (await world.rows("select sends from effects where tool = 'slow'")) == [{"sends": 1}]


KEEPER = SOURCE.replace(
    "agent = Agent", 'keeper = Agent(name="keeper", model="openai/test", memory=True)\n\nagent = Agent'
)
GUARDED = (
    KEEPER
    + '''
from holdfast import Plugin, Refused

class Guard(Plugin):
    """Lets nothing be remembered."""
    required = True

    def before_tool(self, at, call) -> None:
        if call.tool == "remember":
            raise Refused("nothing is to be kept")

plugins = [Guard()]
'''
)
MEMORY_SCRIPT = """
conversations:
  - when: keep
    replies: [{call: {remember: {text: The gate is blue.}}}, {say: "{{last_tool}}"}]
  - when: colour
    replies: [{call: {recall: {query: gate}}}, {say: "{{last_tool}}"}]
"""
AT_ONCE = 20.0 * (PATIENCE / 60.0)  # seconds; what the memory process did not know failed after 74


async def test_an_agent_that_an_edit_adds_has_memory_at_once(tmp_path: Path) -> None:
    """The memory process carries out what new agents remember, under the plugins that the file lists by now."""
    agents = tmp_path / "agents.py"
    agents.write_text(SOURCE, encoding="utf-8")
    async with ModelServer(MEMORY_SCRIPT) as models:
        settings = load_settings(home=tmp_path / "home", agents=agents, api_base=models.base_url, workers=1)
        await asyncio.to_thread(start_detached, settings)
        try:
            async with await Client.connect(settings) as client:
                wanted = _save(agents, KEEPER)
                await until(lambda: (at := read_stack(settings.home)) and at.agents_version == wanted, "it is loaded")
                answer = await client.run("keeper", "keep it", thread="a", timeout=AT_ONCE)
                assert answer.output == "remembered"
                answer = await client.run("keeper", "which colour?", thread="a", timeout=AT_ONCE)
                assert "The gate is blue." in answer.output
                wanted = _save(agents, GUARDED)
                await until(lambda: (at := read_stack(settings.home)) and at.agents_version == wanted, "it is loaded")
                answer = await client.run("keeper", "keep it", thread="b", timeout=AT_ONCE)
                assert "nothing is to be kept" in answer.output
        finally:
            await asyncio.to_thread(stop_stack, settings.home)


AWAY = """
import sys
from holdfast import Plugin
from holdfast.plugins import At

class Vault(Plugin):
    '''Cannot start in some processes.'''

    def message(self, at: At, text: str) -> None: ...

    def start(self) -> None:
        if sys.argv[-1] in {WHERE}:
            raise ConnectionError("the vault is away")

plugins = [Vault()]
"""
AWAY_EVERYWHERE = KEEPER + AWAY.replace("{WHERE}", '("agents", "memory")')
AWAY_IN_MEMORY = KEEPER + AWAY.replace("{WHERE}", '("memory",)')


def _memory(settings: Settings) -> tuple[int, str]:
    info = read_stack(settings.home)
    assert info is not None
    return next((child.pid, child.state) for child in info.children if child.name == "memory")


async def test_a_reload_that_is_refused_leaves_the_memory_process_as_it_is(tmp_path: Path) -> None:
    """A memory process that refuses a plugin is not started again, so the agent workers try the plugin first."""
    agents = tmp_path / "agents.py"
    agents.write_text(KEEPER, encoding="utf-8")
    async with ModelServer(MEMORY_SCRIPT) as models:
        settings = load_settings(home=tmp_path / "home", agents=agents, api_base=models.base_url, workers=1)
        await asyncio.to_thread(start_detached, settings)
        try:
            async with await Client.connect(settings) as client:
                await _memory_survives(client, settings, agents)
        finally:
            await asyncio.to_thread(stop_stack, settings.home)


async def _memory_survives(client: Client, settings: Settings, agents: Path) -> None:
    log = settings.home / "logs" / "supervisor.log"
    before = _memory(settings)
    _save(agents, AWAY_EVERYWHERE)
    await until(
        lambda: "rolling restart ended, agents-1 keep running" in log.read_text(), "a new worker has refused it"
    )
    assert _memory(settings) == (before[0], "ready")
    answer = await client.run("keeper", "keep it", thread="a", timeout=AT_ONCE)
    assert answer.output == "remembered"
    _save(agents, AWAY_IN_MEMORY)
    await until(lambda: "the memory process is down" in log.read_text(), "it is told that memory is down")
    assert _memory(settings)[1] == "failed"
    assert "Vault is required and cannot start: ConnectionError: the vault is away" in log.read_text()
    wanted = _save(agents, GUARDED)
    await until(lambda: (at := read_stack(settings.home)) and at.agents_version == wanted, "it is loaded")
    answer = await client.run("keeper", "keep it", thread="b", timeout=AT_ONCE)
    assert "nothing is to be kept" in answer.output
