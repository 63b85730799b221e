"""README and quickstart work exactly so, for somebody with a folder, a shell and no key."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.server import read_stack
from tests.docs.user import HOLDFAST, User
from tests.kit import until
from tests.pages import ROOT, Page, lines, shell

pytestmark = pytest.mark.timeout(900)  # some forty commands and two demos

# What somebody types who has read the synopsis in the README; `…`: the rest is left to them.
SYNOPSIS = {
    "holdfast init my-agents": "holdfast init my-agents",
    "holdfast chat support": "echo 'Where is order 17?' | holdfast chat support",
    'holdfast run support "Where is order 17?"': 'holdfast run support "Where is order 17?" --json',
    "holdfast runs": "holdfast runs",
    "holdfast show RUN [STEP]": "holdfast show RUN 2",
    "holdfast ui RUN": "holdfast ui RUN",
    "holdfast approve RUN [CALL]": "holdfast approve RUN",
    "holdfast reject RUN [CALL] --reason …": "holdfast reject OTHER --reason 'only 20 were paid'",
    "holdfast stop RUN": "holdfast stop THIRD",
    "holdfast resolve RUN STEP …": "holdfast resolve RUN 1 --abandon",
    "holdfast schedule list": "holdfast schedule list",
    "holdfast schedule add NAME AGENT TEXT --cron …": "holdfast schedule add late support TEXT --cron '0 7 * * *'",
    "holdfast schedule show NAME": "holdfast schedule show late",
    "holdfast mcp list": "holdfast mcp list",
    "holdfast mcp diff SERVER [TOOL]": "holdfast mcp diff clock",
    "holdfast mcp accept SERVER [TOOL]": "holdfast mcp accept clock",
    "holdfast export RUN --out tests/run.json": "holdfast export RUN --out run.json",
    "holdfast plugins": "holdfast plugins",
    "holdfast worker": "holdfast worker",
    "holdfast doctor": "holdfast doctor",
    "holdfast down": "holdfast down",
}
TOLD = {  # what a command must at least say
    "holdfast init my-agents": "wrote ",
    "holdfast runs": "to approve",
    "holdfast show RUN [STEP]": ", verified",
    "holdfast approve RUN [CALL]": "approved step ",
    "holdfast reject RUN [CALL] --reason …": "rejected step ",
    "holdfast stop RUN": "stop",
    "holdfast schedule add NAME AGENT TEXT --cron …": "late",
    "holdfast schedule show NAME": "asks support",
    "holdfast export RUN --out tests/run.json": "wrote run ",
}
REFUSED = {  # and why, in this folder; the pages about production, effects and MCP servers run them with success
    "holdfast worker": "a worker needs a Temporal and a PostgreSQL server",
    "holdfast resolve RUN STEP …": "has no step 1 in the ledger",
    "holdfast mcp diff SERVER [TOOL]": "No worker has seen",
    "holdfast mcp accept SERVER [TOOL]": "No worker has seen",
}
HOUSE = "# House\n\nThe boiler was replaced by Anna Winter.\n"
REFUND = "Please refund 40 dollars for order 17"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a short path, as sockets in it need."""
    with tempfile.TemporaryDirectory(prefix="user-") as made:
        yield Path(made)


async def test_readme(folder: Path) -> None:
    """The agents, every command of the synopsis, the client, the demo with files of one's own."""
    user = User(folder)
    with Page("README.md") as page:
        (folder / "agents.py").write_text(page.take("support = Agent("), encoding="utf-8")
        shown = lines(page.take("holdfast init my-agents"))
        with user.beside(shown.pop(shown.index("holdfast dev agents.py"))):
            await until(lambda: read_stack(folder / ".holdfast"), "the stack is up")
        assert read_stack(folder / ".holdfast") is None
        assert set(shown) == set(SYNOPSIS)
        try:
            user.run(HOLDFAST, "run", "support", "Where is order 17?")
            words = {}
            for word in ("RUN", "OTHER", "THIRD"):
                user.holdfast("run", "support", REFUND, "--thread", word, "--detach", "--json")
                words[word] = await until(lambda word=word: user.waiting(word), "it waits")
            said = {}
            for line in shown[:-1]:
                done = await shell(SYNOPSIS[line], folder, user.environment, words)
                said[line] = done.out + done.err
                assert done.code == 2 if line in REFUSED else done.code == 0, said[line]
                assert REFUSED.get(line, "") in said[line]
                assert TOLD.get(line, "") in said[line]
            assert "delivered damaged" in said["holdfast chat support"]
            assert '"kind": "answer"' in said['holdfast run support "Where is order 17?"'].splitlines()[-1]
            assert said["holdfast ui RUN"].startswith(f"{user.stack.temporal_ui}/namespaces/default/workflows/")
            assert "✗" not in said["holdfast doctor"]
            approved = user.holdfast("show", words["RUN"], "--follow", "--json")[-1]
            assert "refunded 40.0 for 17" in approved["output"]
            client = "".join(f"    {line}\n" for line in page.take("from holdfast import Client").splitlines())
            script = f"import asyncio\nasync def main():\n{client}    print(answer.output)\nasyncio.run(main())\n"
            assert "delivered damaged" in user.run("python", "-c", script).stdout
        finally:
            done = await shell(shown[-1], folder, user.environment)
        assert read_stack(folder / ".holdfast") is None, done
        (folder / "notes").mkdir()
        (folder / "notes" / "house.md").write_text(HOUSE, encoding="utf-8")
        cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        home = {**user.environment, "HOME": str(folder), "XDG_CACHE_HOME": cache}
        assert "Anna Winter" in (await page.shell("./scripts/demo --files ~/notes", ROOT, home)).out


async def test_quickstart(folder: Path) -> None:
    """From `init` to a file that is searched, in the order of the page."""
    user = User(folder / "my-project")
    with Page("docs/quickstart.md") as page:
        begun = await page.shell(
            "holdfast init my-project", folder, user.environment, stdin=b"What does the README say about keys?\n"
        )
        try:
            assert "key" in begun.out
            (user.folder / "agents.py").write_text(page.take("support = Agent("), encoding="utf-8")
            asked = await page.shell('run support "Where is order 17?"\n', user.folder, user.environment)
            assert "delivered damaged" in asked.out
            with user.beside(page.take("holdfast dev agents.py")):
                supervisor = user.stack.supervisor.pid if read_stack(user.folder / ".holdfast") else 0
                await until(lambda: _other(user, supervisor), "it is in the foreground")
                await _decides(page, user)
                await _breaks(page, user)
                client = page.take("asyncio.run(main())")
                assert "delivered damaged" in user.run("python", "-c", client).stdout
            (user.folder / "agents.py").write_text(page.take("librarian = Agent("), encoding="utf-8")
            (user.folder / "house.md").write_text(HOUSE, encoding="utf-8")
            assert "house.md:3" in user.run(HOLDFAST, "run", "librarian", "Who replaced the boiler?").stdout
        finally:
            user.run(HOLDFAST, "down")


def _other(user: User, supervisor: int) -> bool:
    info = read_stack(user.folder / ".holdfast")
    return info is not None and info.supervisor.pid != supervisor


async def _decides(page: Page, user: User) -> None:
    """One refund is approved from another terminal, and the terminal that asked goes on; another is rejected."""
    with user.beside(page.take("--thread customer-42")) as asking:
        words = {"RUN": await until(lambda: user.waiting("customer-42"), "it waits")}
        *look, approve, reject = lines(page.take("holdfast approve RUN"))
        for line in (*look, approve):
            done = await shell(line, user.folder, user.environment, words)
            assert done.code == 0, done.err
        out, _ = asking.communicate(timeout=120)
        assert b"refunded 40.0 for 17" in out
    user.holdfast("run", "support", REFUND, "--thread", "second", "--detach", "--json")
    words = {"RUN": await until(lambda: user.waiting("second"), "it waits")}
    assert (await shell(reject, user.folder, user.environment, words)).code == 0


async def _breaks(page: Page, user: User) -> None:
    """A worker is killed while an approval is pending; the refund takes place once."""
    worker = next(child for child in user.stack.children if child.name.startswith("agents"))
    done = await page.shell("kill -9 PID", user.folder, user.environment, {"PID": str(worker.pid)})
    run = done.out.split()[0]
    assert str(worker.pid) in done.out
    await until(lambda: user.holdfast("show", run, "--json")[0]["state"] == "waiting", "it still waits")
    user.run(HOLDFAST, "approve", run)
    assert "refunded" in user.holdfast("show", run, "--follow", "--json")[-1]["output"]
    steps = user.holdfast("show", run, "--json")[0]["steps_taken"]
    assert [(step["state"], step["ledger"]["sends"]) for step in steps if step["tool"] == "refund"] == [("done", 1)]
