"""The test of a page fails where a block was only read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import pages
from tests.pages import Block, Page, shell

MADE_UP = "a.md"  # a name beside `Page(` would count as a page that is run
SHOWN = [
    Block(MADE_UP, 1, "python", "", "x = 1\n", ""),
    Block(MADE_UP, 5, "console", "", "holdfast --version\n", ""),
    Block(MADE_UP, 9, "json", "", '{"a": 1}\n', ""),
]


@pytest.fixture(autouse=True)
def one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one page with a block of each kind."""
    monkeypatch.setattr(pages, "blocks", lambda: SHOWN)


def take(page: Page) -> tuple[str, str]:
    """Take all blocks; return the code and the console text."""
    page.take('"a"')
    return page.take("x = 1"), page.take("holdfast")


async def test_what_was_taken_and_run_counts(tmp_path: Path) -> None:
    """Executed code, wherever; a command in a process of its own."""
    with Page(MADE_UP) as page:
        code, console = take(page)
        exec(compile(code, "a.md", "exec"), {})
        assert (await shell(console, tmp_path, os.environ)).code == 0


async def test_code_that_was_only_read_is_not_run(tmp_path: Path) -> None:
    """To look at it, to compile it or to write it to a file is not to run it."""
    page = Page(MADE_UP)
    code, console = take(page)
    compile(code, "a.md", "exec")
    (tmp_path / "agents.py").write_text(code)
    await shell(console, tmp_path, os.environ)
    with pytest.raises(AssertionError, match=r"a\.md:1: its code was never executed to its end"):
        page.__exit__(None, None, None)


def test_a_command_that_was_only_read_is_not_run() -> None:
    """It was not started as a process."""
    page = Page(MADE_UP)
    code, _ = take(page)
    exec(compile(code, "a.md", "exec"), {})
    with pytest.raises(AssertionError, match=r"a\.md:5: --version was started 0 times of 1"):
        page.__exit__(None, None, None)


def test_a_block_that_nobody_took_is_found() -> None:
    """Each is named."""
    page = Page(MADE_UP)
    page.take('"a"')
    with pytest.raises(AssertionError, match=r"nothing took a\.md:1, a\.md:5"):
        page.__exit__(None, None, None)
