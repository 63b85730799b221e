"""Wrongs for `audit_spending`: what may not be so of model calls and budgets."""

from __future__ import annotations

import json
from datetime import timedelta

from tests.conformance.books import Books, Row
from tests.conformance.doctor import SECOND, found_by, one

__all__: list[str] = []  # they are found in `doctor.CHANGES`


def bought(books: Books) -> Row:
    """Return a model call that was answered, recorded and hit by nothing."""
    done = {run["message_id"] for run in books["runs"] if run["state"] == "done"}
    books["faults"].clear()
    books["starved"].clear()
    return next(call for call in books["model_calls"] if not call["fault"] and call["run"] in done)


@found_by("recorded_calls_are_not_bought_again")
def a_model_call_bought_twice_for_no_reason(books: Books) -> None:
    call = bought(books)
    books["model_calls"].append({**call, "at": call["at"] + SECOND / 1000})


@found_by("recorded_calls_are_not_bought_again")
def a_recorded_model_call_bought_again(books: Books) -> None:
    call = bought(books)
    again = call["at"] + timedelta(hours=1)
    books["model_calls"].append({**call, "at": again})
    books["faults"].append(
        {"kind": "kill -9 of a worker", "at": call["at"], "until": again, "pids": [1], "threads": [], "note": ""}
    )


def late(books: Books, *, given: timedelta) -> tuple[Row, Row, Row]:
    """Have a model call bought two seconds after its record by another, who was *given* it so long after the record.

    Return who recorded it, the other, and a fault that froze the first of them from before the record until it.
    """
    call = bought(books)
    reply = books.spoken[call["run"], call["round"]]
    record = one(books["recorded"], key=books.model_keys[reply["run"], reply["step_no"]])
    other = {"at": record["at"] + given, "key": record["key"], "owner": "1.1.1.other"}
    books["given"].append(other)
    books["model_calls"].append({**call, "at": record["at"] + 2 * SECOND})
    fault = {"kind": "SIGSTOP of a worker", "at": call["at"], "until": record["at"], "threads": [], "note": ""}
    fault["pids"] = [int(record["owner"].partition(".")[0])]
    books["faults"].append(fault)
    return record, other, fault


@found_by("recorded_calls_are_not_bought_again")
def bought_by_one_who_could_have_seen_the_record(books: Books) -> None:
    late(books, given=SECOND / 1000)


@found_by("recorded_calls_are_not_bought_again")
def bought_after_the_record_and_nobody_was_held_up(books: Books) -> None:
    _, _, fault = late(books, given=-SECOND / 1000)
    fault["pids"] = [2]


@found_by("recorded_calls_are_not_bought_again")
def bought_twice_after_the_record_by_one_buyer(books: Books) -> None:
    late(books, given=-SECOND / 1000)
    again = books["model_calls"][-1]
    books["model_calls"].append({**again, "at": again["at"] + SECOND})
    books["faults"].append({**books["faults"][-1]})


@found_by("recorded_calls_are_not_bought_again")
def a_reply_that_the_ledger_did_not_record(books: Books) -> None:
    books["recorded"].clear()


@found_by("recorded_calls_are_not_bought_again")
def a_repeat_with_a_kill_of_another_worker(books: Books) -> None:
    call = bought(books)
    again = call["at"] + SECOND / 1000
    books["model_calls"].append({**call, "at": again})
    books["faults"].append(
        {"kind": "kill -9 of a worker", "at": again, "until": again, "pids": [1], "threads": [], "note": ""}
    )


@found_by("recorded_calls_are_not_bought_again")
def more_repeats_than_kills(books: Books) -> None:
    call = bought(books)
    books["model_calls"].extend({**call, "at": call["at"] + SECOND / 1000 * n} for n in (1, 2))
    at = call["at"] + SECOND / 2000
    books["faults"].append(
        {"kind": "kill -9 of a worker", "at": at, "until": at, "pids": [1], "threads": [], "note": ""}
    )


@found_by("recorded_calls_are_not_bought_again")
def a_reply_that_no_model_gave(books: Books) -> None:
    books["model_calls"].remove(bought(books))


@found_by("budgets_hold")
def a_round_beyond_the_budget(books: Books) -> None:
    run = next(run for run in books["runs"] if run["rounds"] > 1)
    run["budget"] = json.dumps({"rounds": run["rounds"] - 1})


@found_by("budgets_hold")
def tokens_beyond_the_budget(books: Books) -> None:
    run = next(run for run in books["runs"] if run["rounds"] > 1)
    run["budget"] = json.dumps({"rounds": 50, "tokens": 1})


@found_by("budgets_hold")
def a_run_that_ended_before_its_budget(books: Books) -> None:
    one(books["runs"], state="over_budget")["budget"] = json.dumps({"rounds": 50, "tokens": 10**9})


@found_by("budgets_hold")
def tokens_that_nobody_counted(books: Books) -> None:
    one(books["runs"], state="done")["tokens"] -= 1
