"""Declared commands: what a model may fill in, what a program gets to know, and how it is ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigurationError, ToolArgumentsInvalid, ToolError
from holdfast.tools import Command, ToolContext, files, shell
from holdfast.tools.builtin.processes import run_process
from holdfast.tools.tool import AnyTool
from tests.kit import until

PYTHON = sys.executable


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the homes of commands out of the real cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def _one(argv: Any, root: Path, **given: Any) -> AnyTool:
    [tool] = shell({"run": argv}, root=root, **given)
    return tool


async def _call(tool: AnyTool, seconds: float = 60.0, **args: Any) -> str:
    ctx = ToolContext(
        idempotency_key="k", tenant="t", thread="c", run_id="r", step_no=1, deadline=time.monotonic() + seconds
    )
    result = tool(**tool.bind(tool.validate(args), ctx))
    told: str = await result if tool.is_async else result
    return told


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
    assert told.splitlines()[1] == str(["$(id); `id` && x | y > z '\" {n}", "--n=-3", "b", "./new/x.txt"])


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
        ({"file": "@x"}, ToolError),
        ({"file": ":x"}, ToolError),
        ({"file": "~x"}, ToolError),
        ({"file": "+x"}, ToolError),
        ({"file": "|x"}, ToolError),
        ({"file": "a\nb"}, ToolError),
        ({"file": "a\x1b[0m"}, ToolError),
        ({"file": "holdfast.toml"}, ToolError),
        ({"word": "@/etc/passwd"}, ToolError),
        ({"word": "+5"}, ToolError),
        ({"word": "~/x"}, ToolError),
        ({"word": ":/"}, ToolError),
        ({"word": "a\rb"}, ToolError),
        ({"word": "\ud800"}, ToolArgumentsInvalid),
        ({"joined": "@/etc/passwd"}, ToolError),
        ({"n": -9}, ToolError),
    ],
)
async def test_what_may_not_be_filled_in(tmp_path: Path, given: dict[str, Any], error: type[Exception]) -> None:
    """No option, no path out of the root, no other kind; nothing has run then."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    ran = root / "ran"
    argv = [PYTHON, "-c", f"open({str(ran)!r}, 'w')", "{word}", "{n:int}", "{kind:a|b}", "{file:path}", "--x={joined}"]
    tool = _one(argv, root)
    args: dict[str, Any] = {"word": "w", "n": 1, "kind": "a", "file": "f", "joined": "j", **given}
    with pytest.raises(error):
        await _call(tool, **args)
    assert not ran.exists()


SHOW = "import sys; print(sys.argv[1:])"


async def test_two_dashes_allow_nothing_by_themselves(tmp_path: Path) -> None:
    """They may be another program's, as in `env -- git`; where a value may begin with one, the author says so."""
    with pytest.raises(ToolError, match="for an option"):
        await _call(_one(["env", "--", PYTHON, "-c", SHOW, "{word}"], tmp_path), word="-rf")
    tool = _one([PYTHON, "-c", SHOW, "--", "{word:any}"], tmp_path)
    for word in ("-rf", "@home", "two\nlines"):
        assert repr(word) in await _call(tool, word=word)
    with pytest.raises(ToolError, match="control character"):
        await _call(tool, word="\x1b[2J")


READS_OPTIONS = """
import argparse
parser = argparse.ArgumentParser(fromfile_prefix_chars="@")
parser.add_argument("--output")
parser.add_argument("file", nargs="*")
given = parser.parse_args()
if given.output:
    open(given.output, "w").write("stolen")
print(given.file)
"""


async def test_a_file_of_options_is_only_a_file(tmp_path: Path) -> None:
    """Programs that read options from `@file` get `./@file`, so what a model wrote into it writes nothing outside."""
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    outside = tmp_path / "outside"
    for options in (root / "docs/notes.txt", root / "@notes.txt"):
        options.write_text(f"--output\n{outside}\n")
    tool = _one([PYTHON, "-c", READS_OPTIONS, "{file:path}"], root)
    for path in ("@docs/notes.txt", "@notes.txt"):
        with pytest.raises(ToolError, match="must not begin with '@'"):
            await _call(tool, file=path)
    assert "['./@notes.txt']" in await _call(tool, file="./@notes.txt")
    assert not outside.exists()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("file:/etc/passwd", "./file:/etc/passwd"),
        ("host:/etc/passwd", "./host:/etc/passwd"),
        ("docs//./a b.txt", "./docs/a b.txt"),
        ("inner.txt", "./docs/a b.txt"),
        ("docs", "./docs"),
        (".", "."),
    ],
)
async def test_a_path_is_passed_as_what_it_is(tmp_path: Path, path: str, shown: str) -> None:
    """Resolved and below the root, so that no program takes it for a URL, another machine or an option."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a b.txt").touch()
    (tmp_path / "inner.txt").symlink_to(tmp_path / "docs/a b.txt")
    tool = _one([PYTHON, "-c", SHOW, "{file:path}", "--from={file:path}", "-I{file:path}"], tmp_path)
    assert str([shown, f"--from={shown}", f"-I{shown}"]) in await _call(tool, file=path)


@pytest.mark.parametrize(
    "part", ["docs/{a:path}", "{a:path}.bak", "{a:path}/x", "x{a:path}", "{a}{b:path}", "--x{a:path}"]
)
def test_a_path_stands_alone(tmp_path: Path, part: str) -> None:
    """What is joined to it would make it another path than the one that was checked."""
    with pytest.raises(ConfigurationError, match="argument of its own"):
        _one(["ls", part], tmp_path)


async def test_no_command_is_let_at_what_workers_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `once` command may write where it is pointed at; one that only reads may be pointed there."""
    (tmp_path / "agents.py").write_text("import helpers\n")
    monkeypatch.setenv("HOLDFAST_AGENTS", str(tmp_path / "agents.py"))
    for path in ("agents.py", "./agents.py", "helpers.py", "docs/../agents.py", "json.py"):
        with pytest.raises(ToolError):
            await _call(_one(["touch", "{file:path}"], tmp_path), file=path)
    assert not (tmp_path / "json.py").exists()
    assert "agents.py" in await _call(_one(Command(["wc", "{file:path}"], effect="pure"), tmp_path), file="agents.py")


async def test_its_home_is_nobody_elses(tmp_path: Path, cache: Path) -> None:
    """Closed to other users, and no file tool gets at it, even one whose root holds it."""
    await _call(_one(["true"], tmp_path))
    [home] = (cache / "holdfast/homes").iterdir()
    assert [path.stat().st_mode & 0o777 for path in (cache / "holdfast", home)] == [0o700, 0o700]
    write = next(tool for tool in files(cache.parent, write=True) if tool.name == "write_file")
    with pytest.raises(ToolError, match="may not be written"):
        await _call(write, path=f"{cache.name}/holdfast/homes/{home.name}/.gitconfig", content="x")


async def test_it_gets_few_variables(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the worker's keys, but those that are named."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("MINE", "given")
    show = [PYTHON, "-c", "import os; print(sorted(os.environ.items()), os.getcwd())"]
    told = await _call(_one(show, tmp_path))
    assert "secret" not in told
    assert "given" not in told
    assert f"('HOME', '{cache}/holdfast/homes/" in told
    assert told.rstrip().endswith(str(tmp_path))
    assert "('MINE', 'given')" in await _call(_one(show, tmp_path, env=["MINE", "NOT_SET"]))
    assert "('A', 'b')" in await _call(_one(show, tmp_path, env={"A": "b"}))


async def test_a_file_that_a_model_may_write_configures_no_program(tmp_path: Path) -> None:
    """A .gitconfig at home makes git run what it names, a usercustomize.py any Python: so home is no such place."""
    await asyncio.to_thread(subprocess.run, ["git", "init", "-q", str(tmp_path)], check=True)
    pwned = tmp_path / "pwned"
    site = f".local/lib/python3.{sys.version_info.minor}/site-packages"
    (tmp_path / site).mkdir(parents=True)
    for home in (tmp_path, tmp_path / ".holdfast/home"):  # a checkout may bring the second one along
        home.mkdir(parents=True, exist_ok=True)
        (home / ".gitconfig").write_text(f'[core]\n\tfsmonitor = "touch {pwned}; false"\n')
    (tmp_path / site / "usercustomize.py").write_text(f"open({str(pwned)!r}, 'w')")
    assert (await _call(_one(["git", "status"], tmp_path))).startswith("exit code 0")
    assert (await _call(_one(["python3", "-c", "print(1)"], tmp_path))).startswith("exit code 0")
    assert not pwned.exists()
    home = Path(".holdfast/home/.gitconfig")
    [write] = [tool for tool in files(tmp_path, write=True) if tool.name == "write_file"]
    with pytest.raises(ToolError, match="may not be written"):
        await _call(write, path=str(home), content="x")


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


WORKER = f"""
import asyncio, sys
from holdfast.tools.builtin.processes import run_process
run = run_process([sys.executable, "-c", {FAMILY!r}], cwd=sys.argv[1], env={{}}, timeout=float(sys.argv[2]), most=100,
                  guarded=True)
asyncio.run(run)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
async def test_it_does_not_outlive_its_call(tmp_path: Path, end: signal.Signals) -> None:
    """A worker that is killed takes it along; under one that is frozen it ends in time: a person may then look."""
    seconds = "600" if end == signal.SIGKILL else "2"
    command, here = [PYTHON, "-c", WORKER, str(tmp_path), seconds], Path(__file__).parents[2]
    with await asyncio.to_thread(subprocess.Popen, command, cwd=here) as worker:
        pids = await until(lambda: _pids(tmp_path), "it has started")
        worker.send_signal(end)
        await until(lambda: not any(_alive(pid) for pid in pids), "both are gone")
        worker.kill()


async def test_it_ends_as_the_program_ended(tmp_path: Path) -> None:
    """By its exit code, or by the signal that ended it."""
    for code, head in (("sys.exit(7)", "exit code 7"), ("os.kill(os.getpid(), 15)", "ended by signal 15")):
        assert (await _call(_one([PYTHON, "-c", f"import os, sys; {code}"], tmp_path))).startswith(head)


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
