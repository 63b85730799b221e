"""A skipped test makes the run fail, unless the list gives a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SKIPS = Path(__file__).parents[1] / "skips.py"
TESTS = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="no such machine here")
def test_is_skipped():
    pass

@pytest.mark.xfail(reason="a known fault")
def test_fails_as_expected():
    assert False
"""
LISTED = "tests/test_one.py::test_is_skipped  needs a machine\ntests/test_one.py::test_fails_as_expected  a fault\n"


@pytest.mark.parametrize(
    ("listed", "code", "said"),
    [
        ("", 1, "test_is_skipped: Skipped: no such machine here"),
        (LISTED.splitlines()[0] + "\n", 1, "test_fails_as_expected: a known fault"),
        ("# all have a reason\n" + LISTED, 0, "1 passed"),
        ("tests/test_one.py::test_is_skipped\n", 4, "has no reason"),
    ],
)
def test_skips_need_a_reason(listed: str, code: int, said: str, tmp_path: Path) -> None:
    """Skips and expected failures fail the run; what is listed does not; the summary stays the last line."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "skips.py").write_text(SKIPS.read_text(encoding="utf-8"), encoding="utf-8")
    (tests / "allowed_skips.txt").write_text(listed, encoding="utf-8")
    (tests / "conftest.py").write_text("from tests.skips import pytest_configure\n", encoding="utf-8")
    (tests / "test_one.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\naddopts = --import-mode=importlib\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:asyncio", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    if code in (0, 1):
        assert done.stdout.splitlines()[-1].startswith("=")
        assert "1 passed" in done.stdout.splitlines()[-1]
