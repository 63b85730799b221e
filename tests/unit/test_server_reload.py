"""Watching the agents file: what is looked at, what counts as a change, what a trial by a real process says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdfast.server.reload import Reloader
from holdfast.server.state import settings_environment
from holdfast.server.trial import Verdict, try_agents
from holdfast.settings import load_settings
from holdfast.tools.imports import imported_files
from tests.kit import until

GOOD = """
from holdfast import Agent
from parts.words import INSTRUCTIONS

support = Agent(name="support", model="offline/extractive", instructions=INSTRUCTIONS)
"""


class Watched:
    """A project on the disk, watched; what the reloader says is kept."""

    def __init__(self, folder: Path) -> None:
        self.agents = folder / "agents.py"
        (folder / "parts").mkdir()
        self.words = folder / "parts" / "words.py"
        self.words.write_text('INSTRUCTIONS = "Help."\n')
        self.agents.write_text(GOOD)
        settings = load_settings(agents=self.agents, home=folder / "home")
        self.lines: list[str] = []
        self.told: list[str | None] = []
        self.rolls = 0
        self.tries = 0
        environment = {**os.environ, **settings_environment(settings)}
        self.reloader = Reloader(
            settings,
            lambda: environment,
            roll=self._roll,
            notify=self.lines.append,
            told=lambda _, why: self.told.append(why),
            attempt=self._attempt,
        )

    def _roll(self) -> None:
        self.rolls += 1

    async def _attempt(self, environment: dict[str, str], *, timeout: float) -> Verdict:
        self.tries += 1
        return await try_agents(environment, timeout=timeout)

    async def refused(self, words: str) -> None:
        """Wait until a trial fails with these words."""
        await until(lambda: bool(self.told) and words in (self.told[-1] or ""), f"{words} is told")


@pytest_asyncio.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    """Give a project that is being watched."""
    project = Watched(tmp_path)
    task = asyncio.create_task(project.reloader.watch())
    yield project
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_what_the_file_imports_from_its_folder_is_watched(tmp_path: Path) -> None:
    """Modules, packages, relative imports and modules that are not there yet; nothing of what is installed."""
    (tmp_path / "agents.py").write_text("import json, tools.mail\nfrom late import x\nif x:\n    import holdfast\n")
    package = tmp_path / "tools"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mail.py").write_text("from . import base\nfrom .lists import names\nimport broken\n")
    (package / "base.py").write_text("")
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "unused.py").write_text("")
    found = {path.relative_to(tmp_path).as_posix() for path in imported_files(tmp_path / "agents.py")}
    assert {"agents.py", "tools/__init__.py", "tools/mail.py", "tools/base.py", "tools/lists.py"} <= found
    assert {"late.py", "broken.py"} <= found
    assert "unused.py" not in found


async def test_a_change_of_an_imported_module_asks_for_new_workers(watched: Watched) -> None:
    """It is loaded first in a process of its own; touching a file without changing it does nothing."""
    os.utime(watched.agents)
    watched.words.write_text('INSTRUCTIONS = "Help well."\n')
    await until(lambda: watched.rolls, "new workers are asked for")
    assert (watched.tries, watched.rolls) == (1, 1)
    assert "words.py changed" in watched.lines[-1]
    assert watched.reloader.unchanged()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1\ny = 2 3\n", "agents.py:2: y = 2 3"),
        ("import nothing_of_this_name\n", "agents.py:1: import nothing_of_this_name"),
        ("from holdfast import Agent\na = Agent(name='a b', model='offline/extractive')\n", "agents.py:2:"),
        ("x = 1\n", "defines no agent"),
        ("from holdfast import Agent\na = Agent(name='a', model='offline/other')\n", "There is no model"),
        ("import os\nos._exit(7)\n", "ended the process (7)"),
    ],
    ids=["syntax", "import", "agent", "none", "model", "exit"],
)
async def test_what_does_not_load_is_told_and_changes_nothing(watched: Watched, source: str, words: str) -> None:
    """Syntax error, import error, invalid agent, a file that ends its process: file and line, and the workers stay."""
    watched.agents.write_text(source)
    await watched.refused(words)
    assert watched.rolls == 0
    assert not watched.reloader.unchanged()
    watched.agents.write_text(GOOD.replace("support", "help"))
    await until(lambda: watched.rolls, "new workers are asked for")
    assert watched.told[-1] is None


async def test_a_mistake_that_is_taken_back_replaces_nobody(watched: Watched) -> None:
    """The workers have that very code loaded."""
    watched.agents.write_text("x = (")
    await watched.refused("syntax error")
    watched.agents.write_text(GOOD)
    await until(lambda: "again what the workers have" in watched.lines[-1], "it is told")
    assert (watched.rolls, watched.told[-1], watched.reloader.unchanged()) == (0, None, True)


async def test_a_module_that_was_missing_is_seen_when_it_comes(watched: Watched) -> None:
    """The agents file did not load for want of it, and is not touched again."""
    watched.agents.write_text(GOOD.replace("parts.words", "fresh"))
    await watched.refused("No module named 'fresh'")
    (watched.agents.parent / "fresh.py").write_text('INSTRUCTIONS = "Help."\n')
    await until(lambda: watched.rolls, "new workers are asked for")


async def test_workers_that_were_not_replaced_are_tried_for_again(watched: Watched) -> None:
    """A restart that stopped half-way is done anew, though the file may be as it was."""
    for number, why in enumerate(("changed", "late", "late"), start=1):
        watched.reloader.not_loaded(why)  # type: ignore[arg-type]
        await until(lambda number=number: watched.rolls == number, "new workers are asked for")
    watched.reloader.not_loaded("late")
    assert not watched.reloader.unchanged()
    os.utime(watched.agents)
    await until(lambda: watched.rolls == 4, "new workers are asked for at the next save")


async def test_a_file_that_never_ends_loading_is_given_up(watched: Watched) -> None:
    """The trial has a time-out, and its process is gone after it."""
    watched.agents.write_text("import signal\nsignal.pause()\n")
    environment = {**os.environ, "HOLDFAST_AGENTS": str(watched.agents)}
    verdict = await try_agents(environment, timeout=3.0)
    assert "not loaded within 3 s" in (verdict.error or "")
