"""The pages about the command line and the chat, and the project of `holdfast init`, as a new user would use them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.cli import complete
from holdfast.server import read_stack
from tests.integration.test_readme import HOLDFAST, User
from tests.unit.test_docs import ROOT, blocks

WROTE = re.compile(r'"(\w+)"')


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Give a user in a new project, whose first question has started a stack."""
    with tempfile.TemporaryDirectory(prefix="user-") as made:
        User(Path(made)).run(HOLDFAST, "init", "my-agents")
        somebody = User(Path(made) / "my-agents")
        somebody.environment["PATH"] = f"{Path(HOLDFAST).parent}:{somebody.environment['PATH']}"
        somebody.run(sys.executable, "-m", "pytest", "-q")
        try:
            somebody.run(HOLDFAST, "run", "support", "Where is order 17?")
            yield somebody
        finally:
            somebody.run(HOLDFAST, "down")


@pytest.mark.parametrize("page", ["cli", "chat"])
def test_the_commands_of_the_page_run(user: User, page: str) -> None:
    """Each block that is marked so runs in a shell, and prints what the agent's tools say."""
    marked = [block for block in blocks("console") if block.page == f"docs/howto/{page}.md" and block.mark]
    assert marked
    for block in marked:
        done = user.run("bash", "-euc", f"set -o pipefail\n{block.text}")
        assert "delivered damaged" in done.stdout


def test_the_table_of_json_is_right(user: User) -> None:
    """Each command writes the fields that the page promises."""
    page = (ROOT / "docs/howto/cli.md").read_text(encoding="utf-8")
    rows = {
        row.split("|")[1].strip(): set(WROTE.findall(row.split("|")[2]))
        for row in page.splitlines()
        if row.startswith("| `") and "{" in row
    }
    left = user.holdfast("run", "support", "Please refund 40 dollars for order 17", "--detach", "--json")[-1]
    assert rows["`run --detach`"] - {"detached"} <= set(left)
    run = left["run_id"]
    while user.holdfast("show", run, "--json")[0]["state"] != "waiting":
        pass
    assert rows["`ui`"] <= set(user.holdfast("ui", run, "--json")[0])
    assert rows["`approve`, `reject`"] <= set(user.holdfast("approve", run, "--json")[0])
    answer = user.holdfast("show", run, "--follow", "--json")[-1]
    assert {"run_id", "thread", "state", "output", "usage", "cost_usd", "steps", "rounds"} <= set(answer)
    assert rows["`doctor`"] <= set(json.dumps(user.holdfast("doctor", "--json")[0]).split('"'))
    waits = user.holdfast("run", "support", "Please refund 40 dollars for order 17", "--detach", "--json")[-1]["run_id"]
    assert rows["`stop`"] <= set(user.holdfast("stop", waits, "--json")[0])


def test_tab_offers_what_there_is(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents, runs and threads, from the stack of the folder."""
    monkeypatch.chdir(user.folder)
    assert [name for name, _ in complete.agents("")] == ["assistant", "support"]
    runs = user.holdfast("runs", "--json")
    assert [name for name, _ in complete.runs("")] == [run["run_id"][:8] for run in runs]
    assert runs[0]["thread"] in [name for name, _ in complete.threads("t-")]


def test_what_was_saved_answers(user: User) -> None:
    """An agent added to the file is known to the very next command; a mistake is told, and costs nothing."""
    path = user.folder / "agents.py"
    source = path.read_text(encoding="utf-8")
    path.write_text(source + '\nextra = Agent(name="extra", model=MODEL, tools=[order_status])\n', encoding="utf-8")
    assert "delivered damaged" in user.run(HOLDFAST, "run", "extra", "Where is order 17?").stdout
    path.write_text(source + "\nextra = (\n", encoding="utf-8")
    done = user.run(HOLDFAST, "run", "extra", "Where is order 17?")
    assert f"agents.py:{source.count(chr(10)) + 2}: extra = (" in done.stderr
    assert "delivered damaged" in done.stdout
    info = read_stack(user.folder / ".holdfast")
    assert info is not None
    assert all(child.state == "ready" for child in info.children)


def test_a_stack_in_the_foreground_tells_a_script(tmp_path: Path) -> None:
    """`dev --json`: ready with its addresses, no password among them; stopped at the end."""
    user = User(tmp_path)
    user.run(HOLDFAST, "init", ".")
    command = [HOLDFAST, "dev", "--json", "--no-reload", "--workers", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=user.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["kind"], ready["agents"]) == ("ready", ["assistant", "support"])
        assert "postgres" not in json.dumps(ready)
        info = read_stack(tmp_path / ".holdfast")
        assert info is not None
        assert info.agents_version is None
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert [json.loads(line)["kind"] for line in out.splitlines()][-1] == "stopped"
        assert "error" not in err
    finally:
        process.kill()
        process.communicate()
        user.run(HOLDFAST, "down")
