"""Wrongs for `audit_effects`: what may not be so of effects and of the ledger's rows."""

from __future__ import annotations

from datetime import timedelta

from tests.conformance.books import Books, Row
from tests.conformance.doctor import SECOND, found_by, one, sent_once

__all__: list[str] = []  # they are found in `doctor.CHANGES`


@found_by("at_most_one_effect")
def an_effect_twice(books: Books) -> None:
    books.arrivals.append({**sent_once(books)[1]})


@found_by("at_most_one_effect")
def a_call_under_a_second_key(books: Books) -> None:
    books.arrivals.append({**sent_once(books, "keyed")[1], "key": "0" * 64})


@found_by("at_most_one_effect")
def a_verifiable_effect_twice_and_nobody_was_frozen(books: Books) -> None:
    books.arrivals.append({**sent_once(books, "verifiable")[1]})


@found_by("at_most_one_effect")
def a_row_written_twice(books: Books) -> None:
    books["notes"].append({**books["notes"][0], "id": 9999})


@found_by("completed_has_its_effect")
def an_effect_lost(books: Books) -> None:
    books.arrivals.remove(sent_once(books)[1])


@found_by("completed_has_its_effect")
def a_written_row_lost(books: Books) -> None:
    books["notes"].pop()


@found_by("completed_has_its_effect")
def an_effect_under_an_unknown_key(books: Books) -> None:
    sent_once(books)[1]["key"] = "0" * 64


@found_by("completed_has_its_effect")
def an_effect_that_nobody_asked_for(books: Books) -> None:
    arrival = sent_once(books)[1]
    arrival["args"] = {**arrival["args"], "n": "99"}


@found_by("given_up_has_none")
def a_failed_call_took_effect(books: Books) -> None:
    row = sent_once(books)[0]
    row.update(state="failed", error="could not be sent")


@found_by("given_up_has_none")
def a_call_left_in_flight(books: Books) -> None:
    sent_once(books)[0]["state"] = "in_flight"


@found_by("given_up_has_none")
def a_call_left_in_doubt(books: Books) -> None:
    sent_once(books)[0].update(state="in_doubt", error="its worker was lost")


@found_by("given_up_has_none")
def a_call_abandoned_without_a_reason(books: Books) -> None:
    sent_once(books)[0].update(state="abandoned", error=None)


@found_by("doubts_have_a_cause")
def a_doubt_and_no_fault(books: Books) -> None:
    books["faults"].clear()
    books["words"][:] = [word for word in books["words"] if word["word"] != "stop"]


@found_by("doubts_have_a_cause")
def a_fault_that_was_over_before_the_call_was_sent(books: Books) -> None:
    a_doubt_and_no_fault(books)
    doubt = one(books["ledger"], state="in_doubt")
    over = doubt["sent_at"] - SECOND
    books["faults"].append({"kind": "kill -9 of a worker", "at": over, "until": over, "pids": [1], "threads": []})


def killed_before(books: Books, span: timedelta) -> None:
    """Have the worker of a call in doubt killed *span* before the call was sent."""
    a_doubt_and_no_fault(books)
    doubt = one(books["ledger"], state="in_doubt")
    at, pid = doubt["sent_at"] - span, int(doubt["owner"].partition(".")[0])
    books["faults"].append({"kind": "kill -9 of a worker", "at": at, "until": at, "pids": [pid], "threads": []})


def terminated(books: Books, *, stopped: bool) -> None:
    """Have a workflow terminated a second before a call was sent that is in doubt, and its run *stopped* since."""
    a_doubt_and_no_fault(books)
    doubt = one(books["ledger"], state="in_doubt")
    run, at = one(books["runs"], run=doubt["run"]), doubt["sent_at"] - SECOND
    run.update({"state": "stopped" if stopped else "done", "ended_at": doubt["at"]})
    fault = {"kind": "Terminate through Temporal", "at": at, "until": at, "pids": [], "threads": [run["thread"]]}
    books["faults"].append(fault)


@found_by("doubts_have_a_cause")
def a_terminate_that_stopped_no_run(books: Books) -> None:
    terminated(books, stopped=False)


@found_by("doubts_have_a_cause")
def a_doubt_between_a_terminate_and_the_stop_of_its_run(books: Books) -> None:
    terminated(books, stopped=True)
    doubt = one(books["ledger"], state="in_doubt")
    one(books["runs"], run=doubt["run"])["ended_at"] = doubt["at"] + SECOND


@found_by("doubts_have_a_cause")
def a_terminate_before_the_run_was_there(books: Books) -> None:
    terminated(books, stopped=True)
    run = one(books["runs"], run=one(books["ledger"], state="in_doubt")["run"])
    run["created_at"] = books["faults"][-1]["until"] + SECOND / 2


@found_by("doubts_have_a_cause")
def a_keyed_call_in_doubt(books: Books) -> None:
    one(books["ledger"], state="in_doubt").update({"class": "keyed", "error": "no telling"})


@found_by("doubts_have_a_cause")
def a_doubt_about_what_was_never_sent(books: Books) -> None:
    one(books["ledger"], state="in_doubt")["sent_at"] = None


def claims(books: Books) -> list[Row]:
    """Return the changes of a call that was taken over: at least two claims."""
    taken = next(entry for entry in books["ledger"] if entry["fence"] == 2)
    return [entry for entry in books["ledger"] if entry["key"] == taken["key"]]


@found_by("fences_never_fall")
def a_fence_falls(books: Books) -> None:
    changes = claims(books)
    changes[-1]["fence"] = changes[-1]["fence"] - 1


@found_by("fences_never_fall")
def a_new_owner_under_the_old_fence(books: Books) -> None:
    for entry in claims(books):
        entry["fence"] = 1


@found_by("fences_never_fall")
def a_row_that_changed_unseen(books: Books) -> None:
    sent_once(books)[0]["fence"] += 1


@found_by("rows_change_lawfully")
def a_call_begun_again_after_it_was_done(books: Books) -> None:
    key = sent_once(books)[0]["key"]
    last = [entry for entry in books["ledger"] if entry["key"] == key][-1]
    books["ledger"].append({**last, "state": "in_flight", "fence": last["fence"] + 1, "owner": "1.x"})


@found_by("rows_change_lawfully")
def a_call_that_failed_out_of_doubt_and_was_tried_again(books: Books) -> None:
    doubt = one(books["ledger"], state="in_doubt")
    after = next(entry for entry in books["ledger"] if entry["key"] == doubt["key"] and entry["id"] > doubt["id"])
    after["state"] = "failed"
    books["ledger"].append({**after, "state": "in_flight", "fence": after["fence"] + 1, "owner": "1.x"})
