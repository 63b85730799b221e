"""What scripts rely on: --json on every command, errors as JSON, a new project, and what Tab offers."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement

from holdfast.cli import complete
from holdfast.cli.app import app
from holdfast.cli.init import requirement, templates, write
from holdfast.errors import InvalidInput
from holdfast.settings import load_settings
from holdfast.tools.registry import load_agents
from tests.unit._command import run

pytestmark = pytest.mark.usefixtures("empty_folder")


def commands(group: Any, name: str = "") -> list[tuple[str, Any]]:
    """Return every command with its whole name."""
    if not hasattr(group, "commands"):
        return [(name, group)]
    return [pair for key, each in group.commands.items() for pair in commands(each, f"{name} {key}".strip())]


@pytest.mark.parametrize(("name", "command"), commands(typer.main.get_command(app)), ids=lambda each: str(each)[:20])
def test_every_command_writes_json(name: str, command: Any) -> None:
    """No command leaves a script to parse what was meant for a person."""
    assert "--json" in [option for parameter in command.params for option in parameter.opts]


@pytest.mark.parametrize(
    ("argv", "kind", "code"),
    [
        (["runs"], "StackNotRunning", 1),
        (["approve", "1a80a918", "--args", "{"], "InvalidInput", 2),
        (["run", "support", "hello"], "AgentsFileError", 2),
        (["chat", "support"], "AgentsFileError", 2),
        (["runs", "--limit", "many"], "UsageError", 2),
        (["show"], "UsageError", 2),
        (["runs", "--no-such-option"], "UsageError", 2),
        (["approve", "1a80a918", "--edit", "--args", "{}"], "UsageError", 2),
    ],
    ids=lambda each: str(each),
)
def test_an_error_is_one_line_of_json(
    argv: list[str], kind: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with the type, the message and the exit code; standard output stays empty."""
    assert run(*argv, "--json") == code
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    error = json.loads(line)["error"]
    assert (error["type"], error["exit_code"]) == (kind, code)
    assert error["message"]


def test_a_folder_without_a_stack_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`down` and `doctor` say as data what they say in words."""
    monkeypatch.setenv("HOLDFAST_AGENTS", "agents.py")
    assert run("down", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stopped"] is False
    assert run("doctor", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert {"name": "agents file", "ok": False}.items() <= next(
        check.items() for check in found["checks"] if check["name"] == "agents file"
    )


# ---------------------------------------------------------------------------------------------------------------- init


def test_a_new_project_loads_and_its_tests_pass(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Agents, tests and settings are good as they are written, by the house rules too."""
    assert run("init", "mine", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    project = empty_folder / "mine"
    assert (told["folder"], told["files"]) == (str(project), sorted(templates()))
    assert sorted(load_agents(project / "agents.py")) == ["assistant", "support"]
    effects = {tool.effect for tool in load_agents(project / "agents.py")["support"].definition.tools}
    assert effects == {"pure", "keyed", "once"}
    assert not any(agent.definition.memory for agent in load_agents(project / "agents.py").values())
    for command in (
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_agents.py"],
        [sys.executable, "-m", "ruff", "check", "--isolated", "."],
        [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "--check", "."],
    ):
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_settings_of_a_new_project_are_known(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of holdfast.toml, the ones with a # too, names a setting and has a value that it takes."""
    write(empty_folder)
    path = empty_folder / "holdfast.toml"
    lines = [line.removeprefix("# ") for line in path.read_text().splitlines() if " = " in line]
    path.write_text("\n".join(lines))
    settings = load_settings()
    assert {line.partition(" = ")[0] for line in lines} <= settings.model_fields_set


def test_a_new_project_depends_on_this_very_holdfast(empty_folder: Path) -> None:
    """By where it was installed from: under the bare name an index may have somebody else's package."""
    write(empty_folder)
    (wanted,) = tomllib.loads((empty_folder / "pyproject.toml").read_text())["project"]["dependencies"]
    assert wanted == requirement()
    assert Requirement(wanted).url == Path(__file__).parents[2].as_uri()
    assert "{{" not in "".join(path.read_text() for path in empty_folder.rglob("*") if path.is_file())


def test_init_overwrites_nothing(empty_folder: Path) -> None:
    """It names all that is in the way, also a dead link, and writes nothing."""
    (empty_folder / "README.md").write_text("mine")
    (empty_folder / "holdfast.toml").symlink_to("nowhere")
    with pytest.raises(InvalidInput, match=r"are already: README\.md, holdfast\.toml\. Nothing was written"):
        write(empty_folder)
    assert sorted(path.name for path in empty_folder.iterdir()) == ["README.md", "holdfast.toml"]
    with pytest.raises(InvalidInput, match="it is no folder"):
        write(empty_folder / "README.md")


# ----------------------------------------------------------------------------------------------------------------- Tab


def test_agents_are_offered_without_a_stack(empty_folder: Path) -> None:
    """They are read from the agents file, which is not run, and may be half written."""
    assert complete.agents("") == []
    write(empty_folder)
    assert complete.agents("s") == [("support", "")]
    (empty_folder / "agents.py").write_text("raise SystemExit\nAgent('first')\nx = Agent(name=f'{1}')")
    assert [name for name, _ in complete.agents("")] == ["first"]
    (empty_folder / "agents.py").write_text("Agent(")
    assert complete.agents("") == []


def test_nothing_is_offered_where_nobody_answers(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No error and no wait while a person types."""
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    assert complete.runs("") == complete.threads("") == []
    monkeypatch.delenv("HOLDFAST_DATABASE_URL")
    (empty_folder / ".holdfast").mkdir()
    (empty_folder / ".holdfast" / "stack.json").write_text("[]")
    assert complete.runs("") == []
    assert [name for name, _ in complete.states("d")] == ["done"]


def test_tab_is_answered_by_the_command_itself(empty_folder: Path) -> None:
    """The shell's own protocol, through the console script, in a process that loads no settings and no client."""
    write(empty_folder)
    code = (
        "import os, sys\n"
        "os.environ.update(_HOLDFAST_COMPLETE='complete_bash', COMP_WORDS='holdfast chat ', COMP_CWORD='2')\n"
        "from holdfast.cli import main\n"
        "try:\n    main([])\n"
        "finally:\n    sys.stdout.write(str([m for m in ('pydantic_settings', 'temporalio') if m in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["assistant", "support", "[]"], done.stderr
