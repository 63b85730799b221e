"""Commands where no stack runs: what they refuse, with which exit code, and how light their start is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.problems import explain, report
from holdfast.errors import ConfigurationError, HoldfastError, RunEnded, StackNotRunning, UnknownRun
from tests.unit._command import run

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["runs"], 1, "holdfast dev"),
        (["show", "1a80a918"], 1, "No Holdfast stack runs"),
        (["approve", "1a80a918"], 1, "No Holdfast stack runs"),
        (["approve", "1a80a918", "--args", "{"], 2, "not JSON"),
        (["approve", "1a80a918", "--args", "[1]"], 2, "JSON object"),
        (["run", "support", "hello"], 2, "no agents file"),
        (["run", "support", "hello", "--agents", "nope.py"], 2, "no agents file nope.py"),
        (["run", "support", "hello", "--steer"], 2, "--thread"),
        (["resolve", "1a80a918", "3"], 2, "exactly one"),
        (["resolve", "1a80a918", "3", "--abandon", "--not-done"], 2, "exactly one"),
        (["reject", "1a80a918"], 2, "--reason"),
        (["dev", "nope.py"], 2, "no agents file nope.py"),
        (["bogus"], 2, "bogus"),
    ],
)
def test_wrong_input_is_told_without_a_traceback(
    argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each refusal names what is wrong or what to do, on standard error, with its exit code."""
    assert run(*argv) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert "Traceback" not in said.err


def test_an_agents_file_with_a_syntax_error_is_named_with_its_line(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`dev` and `run` say file, line and text, and start nothing."""
    (empty_folder / "agents.py").write_text("x = 1\ny = 2 3\n")
    for argv in (["dev"], ["run", "support", "hello"]):
        assert run(*argv) == 2
        assert "agents.py:2: y = 2 3" in capsys.readouterr().err
    assert not (empty_folder / ".holdfast").exists()


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The message has the variable, its value and the form it must have."""
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", "mysql://x")
    assert run("runs") == 2
    said = capsys.readouterr().err
    assert "HOLDFAST_DATABASE_URL" in said
    assert "postgresql://" in said


def test_a_server_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nobody at the address, the message says which server and what to check."""
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    assert run("runs") == 1
    assert "PostgreSQL at" in capsys.readouterr().err


def test_down_without_a_stack_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to stop, and that is fine."""
    assert run("down") == 0
    assert "no stack runs" in capsys.readouterr().err


def test_doctor_fails_when_something_required_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside of a project no agents file is fine, with a hint; one that is named is missed: the exit code is 1."""
    monkeypatch.setenv("COLUMNS", "300")
    assert run("doctor") == 0
    said = capsys.readouterr().out
    assert "✗" not in said
    assert "`holdfast init`" in said
    monkeypatch.setenv("HOLDFAST_AGENTS", "agents.py")
    assert run("doctor") == 1
    assert "agents.py is not there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownRun(), 2),
        (ConfigurationError(), 2),
        (StackNotRunning(), 1),
        (RunEnded(state="failed"), 1),
        (HoldfastError("x"), 1),
        (OSError("disk full"), 1),
        (KeyError("a bug"), 1),
    ],
)
def test_every_error_has_a_message_and_a_code(error: Exception, code: int) -> None:
    """Input and settings give 2, the rest 1; no message is empty."""
    text, given = explain(error)
    assert given == code
    assert text.strip()


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """HOLDFAST_DEBUG=1 is for whoever must know where it comes from."""
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    with pytest.raises(HoldfastError) as raised:
        raise HoldfastError("here")
    assert report(raised.value) == 1
    assert "Traceback" in capsys.readouterr().err


def test_starting_loads_nothing_heavy() -> None:
    """Help, completion and refusals come at once: no client, no driver, no model library is imported for them."""
    code = (
        "import sys, holdfast.cli.app; "
        "print([m for m in ('temporalio', 'asyncpg', 'litellm', 'pydantic_settings', 'holdfast.client') "
        "if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_reading_loads_no_temporal() -> None:
    """`runs` and `show` need PostgreSQL alone: the Temporal client is half a second of import."""
    code = "import sys, holdfast.client; print('temporalio' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
