"""What the auditor counts: in good books nothing is twice or lost, and doctored ones are counted as they are."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta

import pytest

from tests.conformance.audit import excused, verdict
from tests.conformance.audit_spending import NO_TIME
from tests.conformance.bookkeeping import BOOK
from tests.conformance.books import GUARDED, Books, Row, class_of
from tests.conformance.doctor import one
from tests.conformance.figures import FROZEN, LOST, ONCE, TWICE, Figures, count, quantile
from tests.conformance.wrongs_spending import bought

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture(scope="module")
def good() -> Books:
    """Return the books of a small drive; nobody may change them."""
    return Books.load(BOOK)


@pytest.fixture
def books(good: Books) -> Books:
    """Return a copy to doctor."""
    return Books(copy.deepcopy(good.tables), copy.deepcopy(good.arrivals), copy.deepcopy(good.histories))


def _again(books: Books) -> Figures:
    return count(Books(books.tables, books.arrivals, books.histories))


def _excused(books: Books) -> dict[str, dict[str, int]]:
    again = Books(books.tables, books.arrivals, books.histories)
    verdict(again)
    return excused(again)


def _arrival(books: Books, effect: str) -> Row:
    """Return the arrival of a call that is done."""
    done = {row["key"] for row in books.guarded if row["state"] == "done"}
    return next(
        entry
        for entry in books.arrivals
        if class_of(entry["tool"]) == effect and entry["key"] in done and entry["kind"] == "effect"
    )


def _sent(books: Books, effect: str) -> tuple[Row, Row]:
    """Return the change by which a call was sent, and the one after it; no fault may have hit its worker."""
    last: dict[str, Row] = {}
    hit = {pid for fault in books["faults"] for pid in fault["pids"]}
    for entry in books["ledger"]:
        before, last[entry["key"]] = last.get(entry["key"]), entry
        if before is None or (before["class"], before["state"]) != (effect, "in_flight") or before["sent_at"] is None:
            continue
        if int(before["owner"].partition(".")[0]) not in hit:
            return before, entry
    raise AssertionError(f"the books have no {effect} call that nothing happened to")


def test_each_call_has_one_fate(good: Books) -> None:
    """The fates of all calls add up to the calls that were asked for, and none of them is one that may not be."""
    found = count(good)
    for name in GUARDED:
        assert sum(found.fates[name].values()) == found.asked[name]
        assert sum(found.in_doubt[name].values()) <= found.doubt_bound[name]
    assert (found.twice, found.lost, found.unasked) == (0, 0, 0)
    assert found.effects == sum(found.fates[name][ONCE] for name in GUARDED)


def test_a_second_arrival_is_twice(books: Books) -> None:
    """The recorder's word is enough: one call more took effect twice."""
    books.arrivals.append(_arrival(books, "once"))
    found = _again(books)
    assert (found.twice, found.lost) == (1, 0)
    assert found.fates["once"][TWICE] == 1


def test_a_key_that_served_two_calls_is_twice(books: Books) -> None:
    """Neither call took effect twice, and one of them did under the key of the other."""
    one, other = _arrival(books, "once"), _arrival(books, "keyed")
    other["key"] = one["key"]
    assert _again(books).twice == 1


def test_a_double_of_a_frozen_process_is_apart(books: Books) -> None:
    """It is excused only if a sender was frozen for longer than lease and settle, until it arrived, and once."""
    entry = _arrival(books, "verifiable")
    books.arrivals.append(entry)
    woke = datetime.fromtimestamp(entry["time"], UTC) - SECOND / 10
    frozen = {"kind": "SIGSTOP of a worker", "pids": [int(entry["pid"])], "threads": [], "note": ""}
    for at, until in ((woke - SECOND, woke), (woke - 99 * SECOND, woke - 9 * SECOND), (woke + SECOND, woke + MINUTE)):
        books["faults"].append({**frozen, "at": at, "until": until})
        assert _again(books).twice == 1, "frozen for too short a time, or long before, or after"
    books["faults"].append({**frozen, "at": woke - MINUTE, "until": woke})
    found = _again(books)
    assert found.twice == 0
    assert found.fates["verifiable"][FROZEN] == 1
    assert _excused(books)["`verifiable` call that took effect twice"] == {"SIGSTOP of a worker": 1}
    books.arrivals.append(entry)
    assert _again(books).twice == 1, "one freeze accounts for one repeat"


def test_what_was_bought_although_it_was_recorded_is_counted(books: Books) -> None:
    """Excused or not: the figure is measured, and no assertion decides it."""
    call = bought(books)
    before = count(books).model_again
    reply = books.spoken[call["run"], call["round"]]
    record = one(books["recorded"], key=books.model_keys[reply["run"], reply["step_no"]])
    again = {**call, "at": record["at"] + SECOND}
    books["model_calls"].append(again)
    books["given"].append({"at": record["at"] - SECOND, "key": record["key"], "owner": "1.1.1.other"})
    assert _again(books).model_again == before + 1
    assert "model call bought although another had just recorded it" not in _excused(books)
    books["starved"].append({"at": again["at"] - SECOND, "until": again["at"]})
    assert _again(books).model_again == before + 1
    assert NO_TIME in _excused(books)["model call bought although another had just recorded it"]


def test_a_call_that_a_fault_hit_is_exposed(books: Books) -> None:
    """In flight in a worker that is killed: without the kill it is no evidence."""
    before, after = _sent(books, "keyed")
    books.tables["ledger"] = [row for row in books["ledger"] if row["key"] == before["key"]]
    books.tables["faults"] = []
    kill = {"kind": "kill -9 of a worker", "threads": [], "note": ""}
    pid = int(before["owner"].partition(".")[0])
    for at in (before["at"] - timedelta(hours=1), after["at"] + timedelta(hours=1)):
        books["faults"].append({**kill, "at": at, "until": at, "pids": [pid]})
    books["faults"].append({**kill, "at": before["at"], "until": before["at"], "pids": [-1]})
    assert not any(_again(books).exposed.values())
    books["faults"].append({**kill, "at": before["at"], "until": before["at"], "pids": [pid]})
    assert _again(books).exposed["keyed"] == 1


def test_an_exit_while_a_server_is_away_is_excused_and_counted(books: Books) -> None:
    """Tied to the fault that took it away."""
    at = books["ledger"][0]["at"]
    row = {"pid": 1, "role": "agents", "serving": False, "code": 1, "word": "PostgreSQL does not answer"}
    books["exits"].append({**row, "at": at})
    books["faults"].append({"kind": "PostgreSQL gone", "at": at, "until": at, "pids": [], "threads": [], "note": ""})
    assert _again(books).exits == {"starting": 1}
    assert _excused(books)["process ended by itself, starting"] == {"PostgreSQL gone": 1}


def test_a_call_reported_done_without_an_arrival_is_lost(books: Books) -> None:
    """The ledger's word is not enough."""
    books.arrivals.remove(_arrival(books, "once"))
    found = _again(books)
    assert (found.twice, found.lost) == (0, 1)
    assert found.fates["once"][LOST] == 1


def test_a_call_that_nobody_answered_is_lost(books: Books) -> None:
    """A call that the model asked for and that is nowhere else counts too."""
    entry = _arrival(books, "keyed")
    books.arrivals.remove(entry)
    books.tables["effects"] = [row for row in books["effects"] if row["key"] != entry["key"]]
    assert _again(books).lost == 1


def test_an_effect_that_nobody_asked_for_is_counted(books: Books) -> None:
    """It is neither twice nor lost."""
    entry = copy.deepcopy(_arrival(books, "once"))
    entry["args"]["n"], entry["key"] = "99", "another"
    books.arrivals.append(entry)
    found = _again(books)
    assert (found.twice, found.lost, found.unasked) == (0, 0, 1)


@pytest.mark.parametrize("effect", ["once", "keyed"])
def test_the_bound_counts_what_a_fault_hit_between_send_and_end(books: Books, effect: str) -> None:
    """A fault before or after does not count, and what does not hit the run does not bring a `keyed` call in doubt."""
    before, after = _sent(books, effect)
    bound = count(books).doubt_bound[effect]
    fault = {"kind": "kill -9 of a worker", "pids": [int(before["owner"].partition(".")[0])], "threads": [], "note": ""}
    for at in (before["sent_at"] - timedelta(hours=1), after["at"] + timedelta(hours=1)):
        books["faults"].append({**fault, "at": at, "until": at})
    assert _again(books).doubt_bound[effect] == bound
    books["faults"].append({**fault, "at": before["sent_at"], "until": after["at"]})
    hit = _again(books).doubt_bound[effect]
    assert hit > bound if effect == "once" else hit == bound


def test_progress_is_from_the_kill_to_the_next_change(books: Books) -> None:
    """A kill while a call is in hand gives one span, up to what happened next to it."""
    before, after = _sent(books, "keyed")
    books.tables["faults"] = []
    assert not any(_again(books).progress_s.values())
    pid = int(before["owner"].partition(".")[0])
    kill = {"kind": "kill -9 of a worker", "pids": [pid], "threads": [], "note": ""}
    books["faults"].append({**kill, "at": before["at"], "until": before["at"]})
    assert round((after["at"] - before["at"]).total_seconds(), 3) in _again(books).progress_s["keyed, local_tx"]


def test_a_quantile_is_a_value_that_was_seen() -> None:
    """The smallest that at least the share does not exceed."""
    assert quantile([4.0, 1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([4.0, 1.0, 2.0, 3.0], 0.95) == 4.0
    assert quantile([7.0], 0.5) == 7.0
