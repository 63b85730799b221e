"""One supervised child: readiness, back-off, refusal, restart, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from holdfast.errors import ConfigurationError, StackError
from holdfast.server.processes import ChildProcess, ProcessSpec
from holdfast.settings import Settings, load_settings

READY = "import os, pathlib, signal; pathlib.Path(os.environ['HOLDFAST_READY_FILE']).touch();"
Start = Callable[[str], ChildProcess]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings under which a child counts as healthy soon."""
    return load_settings(home=tmp_path, healthy_after=0.2, restart_delay_max=1.0)


@pytest.fixture
def said() -> list[str]:
    """Collect what is told to a person."""
    return []


@pytest.fixture
async def start(settings: Settings, said: list[str]) -> AsyncIterator[Start]:
    """Start children from one line of Python each; stop them with the test."""
    children: list[ChildProcess] = []

    def go(code: str) -> ChildProcess:
        spec = ProcessSpec("child", (sys.executable, "-S", "-c", code), dict(os.environ))
        child = ChildProcess(spec, settings, on_change=lambda: None, notify=said.append)
        children.append(child)
        child.start()
        return child

    yield go
    for child in children:
        await child.stop(timeout=0.5)


async def until(what: Callable[[], bool], *, within: float = 10.0) -> None:
    """Wait until *what* is true."""
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def pid_of(child: ChildProcess) -> int:
    """Return the present pid."""
    assert child.info is not None
    return child.info.pid


async def test_a_killed_child_is_restarted_at_once(start: Start, said: list[str]) -> None:
    """A child that was healthy comes back without a pause, under another pid."""
    child = start(f"{READY} signal.pause()")
    await child.wait_ready(timeout=5)
    old = pid_of(child)
    ready = time.monotonic()
    await until(lambda: time.monotonic() - ready > 0.25)  # a child counts as healthy only after so long
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)
    await until(lambda: pid_of(child) != old and child.state == "ready")
    assert time.monotonic() - began < 30
    assert said == ["child was killed by SIGKILL; restarting"]


async def test_a_child_that_keeps_dying_is_given_ever_more_time(start: Start, said: list[str]) -> None:
    """The first restart is at once, then the pauses grow up to the longest allowed."""
    start("raise SystemExit(1)")
    await until(lambda: len(said) >= 6)
    pauses = [float(line.rpartition(" in ")[2].removesuffix(" s")) for line in said[1:6]]
    assert said[0].endswith("restarting")
    assert pauses == [0.2, 0.4, 0.8, 1.0, 1.0]


async def test_dying_at_the_start_fails_the_start_with_the_log(start: Start) -> None:
    """Who waits for readiness gets the last lines of the log."""
    child = start("print('the disk is on fire', flush=True); raise SystemExit(1)")
    with pytest.raises(StackError, match="the disk is on fire"):
        await child.wait_ready(timeout=10)


async def test_never_ready_is_an_error(start: Start) -> None:
    """A child that only hangs does not hang its starter."""
    child = start("import signal; signal.pause()")
    with pytest.raises(StackError, match="not ready within"):
        await child.wait_ready(timeout=0.5)


async def test_a_refused_configuration_is_not_tried_again(start: Start, said: list[str]) -> None:
    """Exit code 3: failed for good, with the child's words."""
    child = start("print('agents.py line 3'); raise SystemExit(3)")
    with pytest.raises(ConfigurationError, match=r"agents\.py line 3"):
        await child.wait_ready(timeout=10)
    assert child.state == "failed"
    assert len(said) == 1


async def test_a_program_that_is_not_there(settings: Settings, said: list[str]) -> None:
    """It counts as a child that died, and its log says why."""
    spec = ProcessSpec("ghost", (str(settings.home / "ghost"),), dict(os.environ))
    child = ChildProcess(spec, settings, on_change=lambda: None, notify=said.append)
    child.start()
    with pytest.raises(StackError, match="could not be started"):
        await child.wait_ready(timeout=10)
    await child.stop(timeout=1)


async def test_stop_kills_the_stubborn_with_all_they_started(start: Start) -> None:
    """After the grace the child and its descendants are killed; nothing is left."""
    child = start(
        f"import subprocess, sys; {READY} signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.run([sys.executable, '-S', '-c', 'import signal; signal.pause()'], start_new_session=True)"
    )
    await child.wait_ready(timeout=5)
    await until(lambda: bool(psutil.Process(pid_of(child)).children()))
    family = [psutil.Process(pid_of(child)), *psutil.Process(pid_of(child)).children(recursive=True)]
    began = time.monotonic()
    await child.stop(timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 30
    await until(lambda: not any(each.is_running() and each.status() != "zombie" for each in family))


async def test_stop_during_the_start(start: Start) -> None:
    """A child that is asked to stop before it was even started ends all the same."""
    child = start(f"{READY} signal.pause()")
    await child.stop(timeout=2)
    assert child.state == "stopped"
    if child.info is not None:
        assert not psutil.pid_exists(child.info.pid)
