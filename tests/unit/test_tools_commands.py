"""Declared commands: what a model may fill in, what a program gets to know, and how it is ended."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigurationError, ToolArgumentsInvalid, ToolError
from holdfast.tools import Command, ToolContext, shell
from holdfast.tools.builtin.processes import run_process
from holdfast.tools.tool import AnyTool
from tests.kit import until

PYTHON = sys.executable


def _one(argv: Any, root: Path, **given: Any) -> AnyTool:
    [tool] = shell({"run": argv}, root=root, **given)
    return tool


async def _call(tool: AnyTool, seconds: float = 60.0, **args: Any) -> str:
    ctx = ToolContext(
        idempotency_key="k", tenant="t", thread="c", run_id="r", step_no=1, deadline=time.monotonic() + seconds
    )
    result: str = await tool(**tool.bind(tool.validate(args), ctx))
    return result


async def test_a_command_with_placeholders(tmp_path: Path) -> None:
    """One placeholder is one argument, whatever it holds; no shell ever reads it."""
    show = [
        PYTHON,
        "-c",
        "import sys; print({{1: sys.argv[1:]}}[1])",
        "{word}",
        "--n={n:int}",
        "{kind:a|b}",
        "{file:path}",
    ]
    tool = _one(show, tmp_path)
    assert tool.definition.effect == "once"
    assert tool.definition.parameters["properties"]["kind"]["enum"] == ["a", "b"]
    assert set(tool.definition.parameters["required"]) == {"word", "n", "kind", "file"}
    told = await _call(tool, word="$(id); `id` && x | y > z '\" {n}", n=-3, kind="b", file="new/x.txt")
    assert told.startswith("exit code 0")
    assert told.splitlines()[1] == str(["$(id); `id` && x | y > z '\" {n}", "--n=-3", "b", "new/x.txt"])


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"word": "--output=/etc/x"}, ToolError),
        ({"word": "-rf"}, ToolError),
        ({"word": "a\x00b"}, ToolError),
        ({"word": ""}, ToolArgumentsInvalid),
        ({"word": "x" * 1001}, ToolArgumentsInvalid),
        ({"n": "1; id"}, ToolArgumentsInvalid),
        ({"kind": "c"}, ToolArgumentsInvalid),
        ({"file": "../x"}, ToolError),
        ({"file": "/etc/passwd"}, ToolError),
        ({"file": "out/x"}, ToolError),
        ({"file": ".env"}, ToolError),
        ({"file": "-x"}, ToolError),
    ],
)
async def test_what_may_not_be_filled_in(tmp_path: Path, given: dict[str, Any], error: type[Exception]) -> None:
    """No option, no path out of the root, no other kind; nothing has run then."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    ran = root / "ran"
    tool = _one([PYTHON, "-c", f"open({str(ran)!r}, 'w')", "{word}", "{n:int}", "{kind:a|b}", "{file:path}"], root)
    args: dict[str, Any] = {"word": "w", "n": 1, "kind": "a", "file": "f", **given}
    with pytest.raises(error):
        await _call(tool, **args)
    assert not ran.exists()


async def test_after_two_dashes_nothing_is_an_option(tmp_path: Path) -> None:
    """So there a value may begin with one."""
    tool = _one([PYTHON, "-c", "import sys; print(sys.argv[1:])", "--", "{word}"], tmp_path)
    assert "-rf" in await _call(tool, word="-rf")


async def test_it_gets_few_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the worker's keys, but those that are named."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("MINE", "given")
    show = [PYTHON, "-c", "import os; print(sorted(os.environ.items()), os.getcwd())"]
    told = await _call(_one(show, tmp_path))
    assert "secret" not in told
    assert "given" not in told
    assert f"('HOME', '{tmp_path}')" in told
    assert told.rstrip().endswith(str(tmp_path))
    assert "('MINE', 'given')" in await _call(_one(show, tmp_path, env=["MINE", "NOT_SET"]))
    assert "('A', 'b')" in await _call(_one(show, tmp_path, env={"A": "b"}))


async def test_output_is_capped_and_both_streams_are_told(tmp_path: Path) -> None:
    """The program is read to its end, so that it never waits; what is too long is left out, and said to be."""
    code = "import sys; sys.stdout.write('o' * 300_000); sys.stderr.write('e' * 10); sys.exit(3)"
    told = await _call(_one([PYTHON, "-c", code], tmp_path, max_output=1000))
    assert told.startswith("exit code 3")
    assert "299,000 of 300,000 bytes left out" in told
    assert told.endswith("standard error:\neeeeeeeeee")
    assert told.count("o" * 1000) == 1


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids", "w").write(str(os.getpid()) + " " + str(child.pid))
time.sleep(600)
"""


def _pids(folder: Path) -> list[int]:
    path = folder / "pids"
    found = path.read_text().split() if path.exists() else []
    return [int(pid) for pid in found] if len(found) == 2 else []


async def test_a_time_out_ends_all_it_started(tmp_path: Path) -> None:
    """The program and its children; the model is told that it was killed."""
    tool = _one(Command([PYTHON, "-c", FAMILY], timeout=1.5, effect="pure"), tmp_path)
    assert tool.definition.effect == "pure"
    told = await _call(tool)
    assert told.startswith("killed after 1.5 s")
    pids = _pids(tmp_path)
    assert pids
    await until(lambda: not any(_alive(pid) for pid in pids), "both are gone")


async def test_a_cancel_ends_all_it_started(tmp_path: Path) -> None:
    """As when a run is stopped."""
    task = asyncio.create_task(_call(_one([PYTHON, "-c", FAMILY], tmp_path)))
    pids = await until(lambda: _pids(tmp_path), "it has started")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any(_alive(pid) for pid in pids), "both are gone")


async def test_what_holds_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    """A program that ends but leaves a child with its pipes does not keep the call."""
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print('x')"
    )
    began = time.monotonic()
    done = await run_process([PYTHON, "-c", code], cwd=tmp_path, env={}, timeout=30, most=100)
    assert (done.code, done.out) == (0, b"x\n")
    assert time.monotonic() - began < 20


async def test_no_such_program(tmp_path: Path) -> None:
    """Nothing has run, and the model is told so."""
    with pytest.raises(ToolError, match="Nothing was run"):
        await _call(_one(["no-such-program-at-all"], tmp_path))
    (tmp_path / "plain.txt").write_text("x")
    with pytest.raises(ToolError, match="Nothing was run"):
        await _call(_one(["./plain.txt"], tmp_path))


@pytest.mark.parametrize(
    "commands",
    [
        {},
        "ls -l",
        {"run": "ls -l"},
        {"run": []},
        {"run": ["{program}"]},
        {"run": ["ls", "{a:float}"]},
        {"run": ["ls", "{A}"]},
        {"run": ["ls", "{ctx}"]},
        {"run": ["ls", "{a:int}", "{a:path}"]},
        {"no name": ["ls"]},
        {"run": Command(["ls"], effect="keyed")},  # type: ignore[arg-type]
    ],
)
def test_declarations_that_are_wrong(commands: Any, tmp_path: Path) -> None:
    """Are refused when the agents file is read."""
    with pytest.raises(ConfigurationError):
        shell(commands, root=tmp_path)
    with pytest.raises(ConfigurationError):
        shell({"run": ["ls"]}, root=tmp_path / "none")
    with pytest.raises(ConfigurationError):
        shell({"run": ["ls"]}, root=tmp_path, env=os.defpath)
