"""The pages about the command line and the chat, and the project of `holdfast init`, as a new user would use them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.cli import complete
from holdfast.server import read_stack
from scripts.reference.shapes import SHAPES
from tests.docs.desk import Desk
from tests.docs.promised import fits
from tests.docs.user import HOLDFAST, User
from tests.kit import PATIENCE
from tests.pages import Page, lines, shell
from tests.terminal import on_a_terminal

REFUND = "Please refund 40 dollars for order 17"


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Give a user in a new project, whose first question has started a stack."""
    with tempfile.TemporaryDirectory(prefix="user-") as made:
        User(Path(made)).run(HOLDFAST, "init", "my-agents")
        somebody = User(Path(made) / "my-agents")
        somebody.run(sys.executable, "-m", "pytest", "-q")
        try:
            somebody.run(HOLDFAST, "run", "support", "Where is order 17?")
            yield somebody
        finally:
            somebody.run(HOLDFAST, "down")


async def test_cli(user: User, tmp_path: Path) -> None:
    """A project is begun; the script runs twice, and there is one run."""
    with Page("docs/howto/cli.md") as page:
        await page.shell("holdfast init", tmp_path, user.environment)
        script = page.take("--message-id")
        for _ in range(2):
            done = await shell(script, user.folder, user.environment)
            assert done.code == 0, done.err
            lines = [json.loads(line) for line in done.out.splitlines()]
            assert ["delivered damaged" in line["output"] for line in lines if line.get("kind") == "answer"] == [True]
            assert len([line for line in lines if "kind" not in line]) == 1


async def test_chat(desk: Desk) -> None:
    """A conversation in a terminal, another on a named thread, the editor for an approval, two lines on a pipe."""
    with Page("docs/howto/chat.md") as page:
        for line in lines(page.take("holdfast chat support --thread customer-42")):
            steps = [("/help tells", b"Where is order 17?\r"), ("tokens · $?\x1b", b"\x04")]
            code, seen = await on_a_terminal(desk.terminal, shlex.split(line)[1:], list(steps))
            assert (code, "It was delivered damaged." in seen) == (0, True)
        assert await desk.client.history("customer-42")
        run = await desk.in_state("refund order 17", "edited", "waiting")
        desk.terminal.extra = {"VISUAL": "sed -i s/40/20/"}
        [line] = lines(page.take("holdfast approve RUN --edit").replace("RUN", run.run_id))
        code, _ = await on_a_terminal(desk.terminal, shlex.split(line)[1:], [("send this?", b"y\n")])
        assert (code, (await run.result(timeout=PATIENCE)).output.splitlines()[-1]) == (0, "refunded 20.0 for 17")
        piped = await page.shell("printf", desk.world.folder, desk.terminal.environment())
        assert piped.out == "It was delivered damaged.\n" * 2
        assert len(await desk.client.runs(thread="both")) == 2


def test_the_json_of_the_reference(user: User) -> None:
    """Each command writes the fields that the page promises, and no others."""
    left = user.holdfast("run", "support", REFUND, "--detach", "--json")[-1]
    run = left["run_id"]
    fits("run", 2, left)
    while user.holdfast("show", run, "--json")[0]["state"] != "waiting":
        pass
    fits("ui", 0, user.holdfast("ui", run, "--json")[0])
    fits("approve", 0, user.holdfast("approve", run, "--json")[0])
    *events, answer = user.holdfast("show", run, "--follow", "--json")
    for event in events:
        fits("show", 1, event)
    fits("show", 2, answer)
    fits("run", 1, answer)
    shown = user.holdfast("show", run, "--json")[0]
    fits("show", 0, shown)
    fits("show", 3, user.holdfast("show", run, str(shown["steps_taken"][0]["step_no"]), "--json")[0])
    for part in ("steps_taken", "approvals_asked"):
        assert "{" + ", ".join(shown[part][0]) + "}" in SHAPES["show"][0].fields[part]
    fits("doctor", 0, user.holdfast("doctor", "--json")[0])
    waits = user.holdfast("run", "support", REFUND, "--detach", "--json")[-1]["run_id"]
    fits("stop", 0, user.holdfast("stop", waits, "--json")[0])
    other = user.holdfast("run", "support", REFUND, "--thread", "other", "--detach", "--json")[-1]["run_id"]
    while not user.waiting("other"):
        pass
    fits("reject", 0, user.holdfast("reject", other, "--reason", "no", "--json")[0])
    stopped = subprocess.run(
        [HOLDFAST, "show", waits, "--follow", "--json"],
        cwd=user.folder,
        env=user.environment,
        capture_output=True,
        check=False,
        timeout=2 * PATIENCE,
    )
    assert stopped.returncode == 1
    fits("show", 2, json.loads(stopped.stdout.splitlines()[-1]))
    for listed in user.holdfast("runs", "--json"):
        fits("runs", 0, listed)
    added = user.holdfast("schedule", "add", "late", "support", "TEXT", "--every", "30d", "--json")[0]
    fits("schedule add", 0, added)
    fits("schedule show", 0, user.holdfast("schedule", "show", "late", "--json")[0])
    for word in ("pause", "resume", "trigger"):
        fits(f"schedule {word}", 0, user.holdfast("schedule", word, "late", "--json")[0])
    due = user.holdfast("schedule", "backfill", "late", "2026-01-01T00:00", "2026-01-02T00:00", "--json")[0]
    fits("schedule backfill", 0, due)
    for listed in user.holdfast("schedule", "list", "--json"):
        fits("schedule list", 0, listed)
    fits("schedule delete", 0, user.holdfast("schedule", "delete", "late", "--json")[0])
    assert user.holdfast("mcp", "list", "--json") == []


def test_tab_offers_what_there_is(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents, runs and threads, from the stack of the folder."""
    monkeypatch.chdir(user.folder)
    assert [name for name, _ in complete.agents("")] == ["assistant", "support"]
    runs = user.holdfast("runs", "--json")
    assert [name for name, _ in complete.runs("")] == [run["run_id"][:8] for run in runs]
    assert runs[0]["thread"] in [name for name, _ in complete.threads(runs[0]["thread"][:2])]


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
    fits("init", 0, user.holdfast("init", ".", "--json")[0])
    command = [HOLDFAST, "dev", "--json", "--no-reload", "--workers", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=user.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        fits("dev", 0, ready)
        assert ready["agents"] == ["assistant", "support"]
        assert "postgres" not in json.dumps(ready)
        info = read_stack(tmp_path / ".holdfast")
        assert info is not None
        assert info.agents_version is None
        process.terminate()
        out, err = process.communicate(timeout=60)
        *notices, stopped = map(json.loads, out.splitlines())
        for notice in notices:
            fits("dev", 1, notice)
        fits("dev", 2, stopped)
        assert "error" not in err
    finally:
        process.kill()
        process.communicate()
        fits("down", 0, user.holdfast("down", "--json")[0])
