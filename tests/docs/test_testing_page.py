"""The page about testing does what it says: its tests run in a new project, by a pytest of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.promised import fits
from tests.docs.user import HOLDFAST, User
from tests.kit import PATIENCE
from tests.pages import Page, blocks
from tests.skips import allowed

PAGE = "docs/howto/testing.md"
CRASHING = "teller = Agent("

pytestmark = pytest.mark.timeout(900)


def page_blocks() -> list[str]:
    """Return the blocks of Python that are tests, in order."""
    return [block.text for block in blocks("python") if block.page == PAGE and CRASHING not in block.text]


def run_pytest(user: User, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the project's tests, whatever comes of them."""
    plugins = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-W", "error")
    command = [sys.executable, "-m", "pytest", "-ra", "--timeout=300", *plugins, *options]
    settings = "asyncio_default_fixture_loop_scope=function"
    return subprocess.run(
        [*command, "-o", settings],
        cwd=user.folder,
        env=user.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )


def skipped_tests(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the skipped tests of a run with -v, as tests/allowed_skips.txt names them."""
    return {f"{PAGE}::{name}" for name in re.findall(r"::(\w+) SKIPPED", done.stdout)}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Give a user in a new project with a run recorded as the page says, whose settings name servers not there."""
    User(tmp_path_factory.mktemp("user")).run(HOLDFAST, "init", str(folder := tmp_path_factory.mktemp("mine") / "my"))
    somebody = User(folder)
    with Page("docs/howto/testing.md") as page:
        try:
            run_id = somebody.holdfast("run", "support", "Where is order 17?", "--json")[-1]["run_id"]
            command = page.take("holdfast export").strip()
            assert command == "holdfast export RUN --out tests/order-17.json"
            told = somebody.holdfast("export", run_id[:8], "--out", "tests/order-17.json", "--json")
            fits("export", 1, told[0])
            assert (told[0]["run_id"], told[0]["histories"]) == (run_id, 1)
            whole = json.loads(somebody.run(HOLDFAST, "export", run_id).stdout)
            fits("export", 0, whole)
            [again] = whole["runs"]
            [first] = json.loads((folder / "tests/order-17.json").read_text())["runs"]
            assert {**again, "histories": []} == {**first, "histories": []}, "and a workflow that lingers may go on"
        finally:
            somebody.run(HOLDFAST, "down")
        (folder / "tests/crash_agents.py").write_text(page.take(CRASHING))
        (folder / "tests/test_page.py").write_text("\n\n".join(page.take(text) for text in page_blocks()))
        # Whoever has these in the shell or in .env has servers that no test may touch.
        somebody.environment["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
        (folder / ".env").write_text("HOLDFAST_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none\nHOLDFAST_WORKERS=5\n")
        yield somebody  # whose tests run the blocks


def test_the_tests_of_the_page_pass(user: User) -> None:
    """All of them, as they stand on the page, with those of `holdfast init`; time is skipped, or it says why."""
    done = run_pytest(user, "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert skipped_tests(done) <= allowed(), "skipped, and tests/allowed_skips.txt does not say why"
    tests = sum(text.count("\ndef test_") for text in ["\n" + "\n".join(page_blocks())])
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])  # type: ignore[index]
    skipped = re.findall(r"SKIPPED.*: (.*)", done.stdout)
    assert passed + len(skipped) == tests + 6
    assert all(reason.startswith("time cannot be skipped here: ") for reason in skipped)
    assert not (user.folder / ".holdfast/stack.json").exists(), "the user's own stack was not started"


def test_a_skipped_test_of_the_page_is_known_by_name(user: User) -> None:
    """So that one that no list allows is found; without a test server there is one, and it is listed."""
    done = run_pytest(user, "-v", "-k", "half_an_hour or lowers_the_amount", "-o", "holdfast_test_server=/not/there")
    assert done.returncode == 0, done.stdout + done.stderr
    assert skipped_tests(done) == {f"{PAGE}::test_a_model_that_is_busy_for_half_an_hour"}


def test_a_failure_reads_as_on_the_page(user: User) -> None:
    """What did happen, and why the nearest call does not count; a changed tool with both versions."""
    wrong = user.folder / "tests" / "test_wrong.py"
    wrong.write_text(
        page_blocks()[0].partition("def test_")[0]
        + "from holdfast.testing import replay\n\n"
        + "def test_amount(run_agent):\n"
        + "    run = run_agent('support', 'My money back for order 17, please.',"
        + " replies=[LOOK, PAY, 'You get 40 dollars.'], approve=True)\n"
        + "    assert_called(run, 'refund', amount=20.0)\n\n"
        + "def test_changed():\n    replay('tests/order-17.json', 'changed.py')\n"
    )
    agents = (user.folder / "agents.py").read_text()
    changed = agents.replace('@tool(effect="pure")  # changes', "@tool  # changes").replace(
        "order_id: str) -> dict", "order: str) -> dict"
    )
    (user.folder / "changed.py").write_text(
        changed.replace("ORDERS.get(order_id", "ORDERS.get(order").replace("{order_id}", "{order}", 1)
    )
    try:
        done = run_pytest(user, "tests/test_wrong.py")
    finally:
        wrong.unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    page = Path(PAGE).read_text()
    said = re.sub(r"^E   ? ?", "", done.stdout, flags=re.M)
    for text in re.findall(r"```text\n(.*?)```", page, flags=re.S):
        for line in text.splitlines():
            shown = line.removeprefix("AssertionError: ").removesuffix("…").strip()
            shown = re.sub(r"[0-9a-f]{8} of support, .*", "", shown)
            assert shown in said, f"{shown!r} is not in:\n{said}"
    assert "holdfast/testing" not in said, "a failure points at the user's own line"
