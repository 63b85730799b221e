"""The fixtures of the pytest plugin, on the real stack: crashes, doubts, sub-agents, recordings, other ways to test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from temporalio.client import WorkflowExecutionStatus

from holdfast.errors import InvalidInput, RunWaits
from holdfast.server import read_stack
from holdfast.testing import (
    Recording,
    RunAgent,
    ScriptedModels,
    Stack,
    assert_called,
    effects,
    record,
    replay,
    steps,
)
from tests.histories import connect
from tests.kit import PATIENCE, until

RUNNING = WorkflowExecutionStatus.RUNNING
AGENTS = "tests/integration/_kit_agents.py"

pytestmark = [
    pytest.mark.holdfast(agents=AGENTS, linger=0.5, roll_after_events=50),
    pytest.mark.timeout(900),
]


def test_a_call_that_died_with_its_worker_waits_for_a_word(run_agent: RunAgent, stack: Stack) -> None:
    """Kill -9 in a `once` tool: it is in doubt, the test is told so at once, decides, and the tool was called once."""
    before = {worker.pid for worker in stack.workers()}
    asked = run_agent.start("payer", "Pay Ann", replies=[{"call": {"pay": {"to": "Ann"}}}, "Paid."])
    asked.until_called("pay")
    assert set(stack.kill_workers()) == before
    stack.until_ready()
    assert before.isdisjoint(worker.pid for worker in stack.workers())
    asked.until("in_doubt", tool="pay")
    with pytest.raises(RunWaits, match=r"word on step \d+, pay.*\n.*\n.*\n.*pay\(to='Ann'\)  \[once, in_doubt\]"):
        asked.wait()
    [doubt] = effects(asked.look())
    asked.resolve(doubt.step, done="paid Ann, says the bank")
    run = asked.wait()
    assert run.answer == "Paid."
    [paid] = assert_called(run, "pay", to="Ann")
    assert (paid.result, paid.sends) == ("paid Ann, says the bank", 1)
    assert (stack.settings.home / "paid.txt").read_text() == "Ann\n"


def test_a_rolling_restart_interrupts_nothing(run_agent: RunAgent, stack: Stack) -> None:
    """The tool goes on to its end in the worker that drains."""
    asked = run_agent.start("payer", "Pay Bob", replies=[{"call": {"pay": {"to": "Bob"}}}, "Paid."])
    asked.until_called("pay")
    stack.restart_workers()
    run = asked.wait()
    [paid] = effects(run)
    assert (paid.state, paid.result, paid.sends) == ("done", "paid Bob", 1)
    assert steps(run) == ["model", "pay", "model"]


def test_agents_that_ask_agents_are_recorded_whole(
    run_agent: RunAgent, model_server: ScriptedModels, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs, their replies and histories are in the file, a secret is not; it replays, and plays again."""
    monkeypatch.setenv("ORDERS_API_KEY", "order-4711-secret")
    model_server.play(
        {
            "conversations": [
                {
                    "when": "look it up",
                    "replies": [{"call": {"look": {"order": "order-4711-secret"}}}, {"say": "Here."}],
                },
                {"replies": [{"call": {"helper": {"message": "look it up, please"}}}, {"say": "It is here."}]},
            ]
        }
    )
    asked = run_agent.start("boss", "Where is it?")
    assert asked.wait().answer == "It is here."
    recorded = stack.call(lambda _: record(asked.handle))
    path = tmp_path / "boss.json"
    recorded.save(path)
    assert "order-4711-secret" not in path.read_text()
    assert "order-4711-secret" in str(model_server.journal)
    read = Recording.load(path)
    assert [(run.agent, len(run.replies), bool(run.histories)) for run in read.runs] == [
        ("boss", 2, True),
        ("helper", 2, True),
    ]
    done = replay(path, AGENTS, strict=True)
    assert (done.rounds, done.calls) == (4, 2)
    model_server.reset()
    model_server.play(path)
    again = run_agent("boss", read.run.message)
    assert again.answer == "It is here."
    assert [call.tool for call in again.calls] == ["helper"]


async def test_a_recording_has_the_executions_of_its_run(run_agent: RunAgent, stack: Stack) -> None:
    """Those that continued one another, and not those of other runs on the same thread."""
    looks = [{"call": {"look": {"order": str(number)}}} for number in range(10)]
    first = run_agent.start("helper", "Look at all", thread="long", replies=[*looks, "All there."])
    assert first.wait().rounds == 11
    temporal = await connect(stack.settings)

    async def closed() -> bool:
        return (await temporal.get_workflow_handle(first.handle.workflow_id).describe()).status != RUNNING

    await until(closed, "the thread's workflow has closed")
    second = run_agent.start("helper", "And now?", thread="long", replies=["Still there."])
    second.wait()
    for running, least, most in ((first, 2, 5), (second, 1, 1)):
        recorded = stack.call(lambda _, one=running: record(one.handle))  # type: ignore[misc]
        assert least <= len(recorded.run.histories) <= most
        assert replay(recorded, AGENTS).histories == len(recorded.run.histories)


def test_a_corrected_answer_is_recorded_and_played_again(
    run_agent: RunAgent, model_server: ScriptedModels, stack: Stack
) -> None:
    """A correction comes as a message of a user, and does not set the script back to its first reply."""
    asked = run_agent.start("triage", "Help!", replies=['{"urgency": 9}', '{"urgency": 9}', '{"urgency": 3}'])
    assert asked.wait().answer == {"urgency": 3}
    recorded = stack.call(lambda _: record(asked.handle))
    model_server.reset()
    model_server.play(recorded)
    run = run_agent("triage", "Help!")
    assert (run.answer, run.rounds) == ({"urgency": 3}, 3)


def test_what_would_not_be_scripted_is_refused(run_agent: RunAgent) -> None:
    """An agent with a server of its own would be asked for real, and might cost money."""
    with pytest.raises(InvalidInput, match=r"api_base http://127\.0\.0\.1:1/v1, so the scripted model server is not"):
        run_agent("elsewhere", "hello")
    with pytest.raises(InvalidInput, match="the model offline/extractive"):
        run_agent("quoting", "hello")


def test_a_run_that_takes_too_long_tells_its_story(run_agent: RunAgent) -> None:
    """What the model was asked, what holds it up, where the logs are; and it is stopped with its test."""
    asked = run_agent.start("payer", "Hello", replies=[{"fault": {"status": 503, "times": "always"}, "say": "never"}])
    assert "model_step, attempt" in asked.until_trouble()[0]
    with pytest.raises(TimeoutError, match=r"(?s)has not ended within .*Run .* of payer, running .*Workers log to"):
        asked.wait(timeout=0.2)
    with pytest.raises(TimeoutError, match="has not come to tool_done of pay"):
        asked.until("tool_done", tool="pay", timeout=0.1)
    run_agent.close()
    assert asked.look().state == "stopped"


async def test_an_async_test_uses_the_same_fixture(run_agent: RunAgent) -> None:
    """Its own loop is not needed, so nothing meets on it."""
    assert run_agent("payer", "Hello", replies=["Hello."]).answer == "Hello."


# ------------------------------------------------------------------------------------------------- other pytest runs

OTHERS = """
import asyncio, os, pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

def used(run_agent, stack):
    assert run_agent("helper", "Hello", replies=["Hello."]).answer == "Hello."
    with open("used.txt", "a") as file:
        file.write(f"{os.getpid()} {stack.settings.home} {stack.info.temporal_address}\\n")

@pytest.mark.parametrize("n", range(2))
def test_plain(run_agent, stack, n):
    used(run_agent, stack)

@pytest.mark.asyncio
async def test_asyncio_strict(run_agent, stack):
    await asyncio.to_thread(used, run_agent, stack)

@pytest.mark.anyio
async def test_anyio(run_agent, stack):
    used(run_agent, stack)

@pytest.mark.holdfast(model="own")
def test_own(run_agent):
    run = run_agent("quoting", "Look up order 17")
    assert "offline/extractive" in run.answer
"""

ALONE = """
import os, signal, subprocess, threading

def test_it(stack, run_agent):
    asked = run_agent.start("payer", "Hello", replies=[{"fault": {"status": 503, "times": "always"}, "say": "never"}])
    print(stack.settings.home, flush=True)
    ENDING
"""
HELD = """
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    held = subprocess.Popen(["sleep", "1000"], pass_fds=[stack._guard.stdin.fileno()], **quiet)
    print("held by", held.pid, flush=True)
"""
KILLED = "os.kill(os.getpid(), 9)"
INTERRUPTED = f"""{HELD}    signal.signal(2, signal.default_int_handler)  # shells have it ignored in the background
    threading.Timer(1, os.kill, (os.getpid(), 2)).start()
    asked.wait()"""


def start_pytest(folder: Path, test: str, *options: str) -> subprocess.Popen[str]:
    """Start pytest in a project of its own with the agents of this module."""
    folder.mkdir()
    (folder / "agents.py").write_text(Path(AGENTS).read_text())
    (folder / "test_it.py").write_text(test)
    plugins = (
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-W", "error", *plugins, *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_parallel_workers_and_all_kinds_of_tests(tmp_path: Path) -> None:
    """Two xdist workers have a stack each; sync, asyncio in strict mode and anyio take turns on them."""
    process = start_pytest(tmp_path / "project", OTHERS, "-n", "2", "--dist", "load", "-q")
    said, _ = process.communicate(timeout=10 * PATIENCE)
    assert re.search(r"\b5 passed", said), said
    used = {tuple(line.split()) for line in (tmp_path / "project" / "used.txt").read_text().splitlines()}
    assert len(used) == len({home for _, home, _ in used}) == len({address for *_, address in used})
    assert all(read_stack(Path(home)) is None for _, home, _ in used), "each is stopped"
    assert all(os.listdir(home) for _, home, _ in used)  # noqa: PTH208
    assert all({"logs"} >= {each.name for each in Path(home).iterdir() if each.is_dir()} for _, home, _ in used)


@pytest.mark.parametrize(("ending", "code"), [(KILLED, -signal.SIGKILL), (INTERRUPTED, pytest.ExitCode.INTERRUPTED)])
async def test_a_stack_whose_pytest_is_ended_amid_a_run_ends_too(tmp_path: Path, ending: str, code: int) -> None:
    """By kill -9, when nobody can clean up, or by Ctrl-C, also when a child of the test holds the guard's pipe."""
    process = start_pytest(tmp_path / "a project", ALONE.replace("ENDING", ending), "-q", "-s")
    said, _ = process.communicate(timeout=10 * PATIENCE)
    for held in re.findall(r"held by (\d+)", said):
        os.kill(int(held), signal.SIGKILL)
    assert process.returncode == code, said
    [home] = re.findall(r"\S+/home$", said, flags=re.M)

    def gone() -> bool:
        marks = [p.info["environ"] or {} for p in psutil.process_iter(["environ"])]
        return not any(mark.get("HOLDFAST_READY_FILE", "").startswith(f"{home}/") for mark in marks)

    await until(gone, "everything of the stack has ended", 2 * PATIENCE)
    assert read_stack(Path(home)) is None
