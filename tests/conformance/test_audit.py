"""The auditor is able to fail: good books hold, and each of many small changes to them is reported."""

from __future__ import annotations

import copy
import subprocess
import sys
from datetime import timedelta

import pytest

from tests.conformance import (
    wrongs_effects,
    wrongs_everyday,
    wrongs_family,
    wrongs_processes,
    wrongs_records,
    wrongs_runs,
    wrongs_spending,
)
from tests.conformance.assertions import ASSERTIONS
from tests.conformance.audit import excused, judge, verdict
from tests.conformance.bookkeeping import BOOK
from tests.conformance.books import Books
from tests.conformance.doctor import CHANGES, SECOND, Change

LOADED = (
    wrongs_effects,
    wrongs_everyday,
    wrongs_family,
    wrongs_processes,
    wrongs_records,
    wrongs_runs,
    wrongs_spending,
)  # each enters its changes
WRONGS = [(assertion, change) for assertion, changes in CHANGES.items() for change in changes]


@pytest.fixture(scope="module")
def good() -> Books:
    """Return the books of a small drive; nobody may change them."""
    return Books.load(BOOK)


def test_good_books_hold(good: Books) -> None:
    """The books of a drive that went well, with a kill in it, have nothing wrong."""
    holds, table = judge(good)
    assert holds, table


@pytest.mark.parametrize(("assertion", "change"), WRONGS, ids=[change.__name__ for _, change in WRONGS])
def test_a_wrong_is_reported(good: Books, assertion: str, change: Change) -> None:
    """Each change is reported by the assertion that is there for it."""
    books = Books(copy.deepcopy(good.tables), copy.deepcopy(good.arrivals), copy.deepcopy(good.histories))
    change(books)
    findings = verdict(Books(books.tables, books.arrivals, books.histories))
    assert assertion in {finding.name for finding in findings if finding.wrong}


def test_a_terminate_harms_calls_when_its_run_is_stopped(good: Books) -> None:
    """A sweeper stops the run seconds later: a call that was sent meanwhile is cut off then, and may be in doubt."""
    books = Books(copy.deepcopy(good.tables), copy.deepcopy(good.arrivals), copy.deepcopy(good.histories))
    wrongs_effects.terminated(books, stopped=True)
    assert [each.wrong for each in verdict(books) if each.name == "doubts_have_a_cause"] == [()]
    assert excused(books)["`once` call in doubt"] == {"Terminate through Temporal": 1}


@pytest.mark.parametrize(("span", "harmed"), [(SECOND / 1000, True), (3 * SECOND, False)])
def test_a_killed_workers_last_statement_is_carried_out(good: Books, span: timedelta, harmed: bool) -> None:
    """PostgreSQL has it already: the call counts as sent a moment after its worker was killed, and may be in doubt."""
    books = Books(copy.deepcopy(good.tables), copy.deepcopy(good.arrivals), copy.deepcopy(good.histories))
    wrongs_effects.killed_before(books, span)
    [wrong] = [each.wrong for each in verdict(books) if each.name == "doubts_have_a_cause"]
    assert any(each.startswith("once") for each in wrong) != harmed


def test_a_call_bought_while_its_record_was_held_up_is_no_wrong(good: Books) -> None:
    """A frozen worker lost its lease, and another had looked before the record came: it is let pass, and counted."""
    books = Books(copy.deepcopy(good.tables), copy.deepcopy(good.arrivals), copy.deepcopy(good.histories))
    wrongs_spending.late(books, given=-SECOND / 1000)
    assert [finding.wrong for finding in verdict(books) if finding.number == "11"] == [()]
    assert excused(books)["model call bought although another had just recorded it"] == {"SIGSTOP of a worker": 1}


def test_a_reply_is_recorded_when_its_transaction_commits(good: Books) -> None:
    """Rows of a worker frozen in its commit are older than it: what is bought before the commit is not bought again."""
    books = Books(copy.deepcopy(good.tables), copy.deepcopy(good.arrivals), copy.deepcopy(good.histories))
    record, _, _ = wrongs_spending.late(books, given=-SECOND / 1000)
    record["at"] += 3 * SECOND
    assert [finding.wrong for finding in verdict(books) if finding.number == "11"] == [()]
    assert "model call bought although another had just recorded it" not in excused(books)


def test_every_assertion_has_been_seen_to_fail() -> None:
    """There is at least one change for each assertion, and none for an assertion that is no more."""
    assert CHANGES.keys() == {assertion.__name__ for _, assertion in ASSERTIONS}


def test_the_auditor_shares_no_code_with_what_it_judges() -> None:
    """Loaded as a program, it has imported nothing of the product nor of what drives it."""
    code = (
        "import sys, tests.conformance.audit; "
        "sys.exit(' '.join(name for name in sys.modules if name.partition('.')[0] in ('holdfast', 'temporalio')) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, f"the auditor imports {found.stderr}"
