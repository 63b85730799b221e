"""Makes a test run fail when a test was skipped or failed as expected, unless tests/allowed_skips.txt says why."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["allowed", "pytest_configure"]

ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def pytest_configure(config: pytest.Config) -> None:
    """Watch this run."""
    config.pluginmanager.register(_Watch(allowed()), "holdfast-skips")


def allowed() -> set[str]:
    """Return the test ids of the list.

    Raises:
        UsageError: a line has no reason.

    """
    found = set()
    for line in ALLOWED.read_text(encoding="utf-8").splitlines():
        name, _, reason = line.partition("  ")
        if not line.strip() or line.startswith("#"):
            continue
        if not reason.strip():
            raise pytest.UsageError(f"{ALLOWED.name}: {name!r} has no reason: write it after two spaces")
        found.add(name.strip())
    return found


class _Watch:
    def __init__(self, allowed: set[str]) -> None:
        self._allowed = allowed
        self._found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of a test that did not run, or was not expected to pass."""
        if report.skipped or hasattr(report, "wasxfail"):
            self._note(report.nodeid, getattr(report, "wasxfail", None) or report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Take note of a file that was skipped whole."""
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    def _note(self, name: str, why: object) -> None:
        if name.partition("[")[0] not in self._allowed:
            self._found[name] = str(why[2] if isinstance(why, tuple) else why).splitlines()[0]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run."""
        if self._found and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say why."""
        if self._found:
            terminalreporter.section("skipped without leave: the run fails", sep="=", red=True)
            for name, why in sorted(self._found.items()):
                terminalreporter.line(f"{name}: {why}")
            terminalreporter.line(f"Make them run, or list them with a reason in tests/{ALLOWED.name}.")
