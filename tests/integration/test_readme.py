"""The first page of the README works exactly so, and with it the quickstart and the pages' `temporal` commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.server import StackInfo, read_stack
from holdfast.server.binary import find_binary
from holdfast.settings import load_settings
from tests.kit import PATIENCE
from tests.unit.test_docs import blocks, commands

HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
KEYS = ("_API_KEY", "_TOKEN")


class User:
    """Somebody with a folder, an agents file and a shell; no key, no settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HOLDFAST_", "TEMPORAL_")) and not name.endswith(KEYS)
        }
        scale = os.environ.get("HOLDFAST_TIME_SCALE")
        if scale is not None:
            self.environment["HOLDFAST_TIME_SCALE"] = scale

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder; it must succeed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        return done

    def holdfast(self, *words: str) -> list[dict[str, Any]]:
        """Run a holdfast command that writes JSON lines."""
        return [json.loads(line) for line in self.run(HOLDFAST, *words).stdout.splitlines()]

    @property
    def stack(self) -> StackInfo:
        """The stack of the folder."""
        info = read_stack(self.folder / ".holdfast")
        assert info is not None
        return info


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Give a user whose first question has started a stack."""
    with tempfile.TemporaryDirectory(prefix="user-") as made:
        folder = Path(made)
        source = next(block.text for block in blocks("python") if block.page == "README.md" and "Agent(" in block.text)
        (folder / "agents.py").write_text(source, encoding="utf-8")
        somebody = User(folder)
        try:
            yield somebody
        finally:
            somebody.run(HOLDFAST, "down")
        assert read_stack(folder / ".holdfast") is None


def test_the_first_question_starts_a_stack_and_is_answered(user: User) -> None:
    """`holdfast run` in a folder with agents.py: each event a line of JSON, the answer last, quoted from the tool."""
    lines = user.holdfast("run", "support", "Where is order 17?", "--json")
    assert [line["kind"] for line in lines][:2] == ["accepted", "started"]
    assert [line["seq"] for line in lines[:-1]] == list(range(1, len(lines)))
    assert lines[-1]["kind"] == "answer"
    assert "delivered damaged" in lines[-1]["output"]
    assert "offline/extractive" in lines[-1]["output"]


def test_a_refund_waits_for_approval_and_takes_place_once(user: User) -> None:
    """Detached, listed, shown, approved from another terminal, followed to its end."""
    asked = "Please refund 40 dollars for order 17"
    left = user.holdfast("run", "support", asked, "--thread", "customer-42", "--detach", "--json")[-1]
    run = left["run_id"]
    user.run(HOLDFAST, "show", run)
    shown: dict[str, Any] = {}
    for _ in range(200):
        shown = user.holdfast("show", run, "--json")[0]
        if shown["state"] == "waiting":
            break
    assert [approval["state"] for approval in shown["approvals_asked"]] == ["pending"]
    assert shown["approvals_asked"][0]["args"] == {"order_id": "17", "amount": 40.0}
    assert "1 to approve" in user.run(HOLDFAST, "runs").stdout or shown["approvals"] == 1
    user.run(HOLDFAST, "approve", run[:8])
    answer = user.holdfast("show", run, "--follow", "--json")[-1]
    assert "refunded 40.0 for 17" in answer["output"]
    steps = user.holdfast("show", run, "--json")[0]["steps_taken"]
    assert [(step["state"], step["sends"]) for step in steps if step["tool"] == "refund"] == [("done", 1)]
    assert user.run(HOLDFAST, "ui", run).stdout.startswith(f"{user.stack.temporal_ui}/namespaces/default/workflows/")


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("python") if "Client.connect" in block.text and "run_id: str" not in block.text],
    ids=str,
)
def test_the_client_of_the_pages_runs(user: User, block: Any) -> None:
    """The client code of README and quickstart runs in the folder as it stands."""
    script = block.text
    if "asyncio.run" not in script:
        body = "".join(f"    {line}\n" for line in script.splitlines())
        script = f"import asyncio\nasync def main():\n{body}    print(answer.output)\nasyncio.run(main())\n"
    assert "delivered damaged" in user.run(sys.executable, "-c", script).stdout


def test_the_temporal_commands_of_the_messages_page_run(user: User) -> None:
    """AskWorkflow, update-with-start, signal, query and schedule, in the order of the page, by the plain client."""
    binary = find_binary(load_settings())
    assert binary is not None
    said = {}
    for _, line in [pair for pair in commands() if pair[1].startswith("temporal ")]:
        words = shlex.split(line)[1:]
        done = user.run(str(binary), *words, "--address", user.stack.temporal_address)
        said[words[1]] = done.stdout
    assert "delivered damaged" in said["execute"]
    assert "run_id" in said["execute-update-with-start"]
    assert '"step_no"' in said["query"]


def test_doctor_finds_everything_in_its_place(user: User) -> None:
    """`holdfast doctor` beside a running stack has nothing to complain of."""
    assert "✗" not in user.run(HOLDFAST, "doctor").stdout
