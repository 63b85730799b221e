"""Wrongs for `audit_family`: what may not be so of agents that ask one another, and of hand-offs."""

from __future__ import annotations

import json
from datetime import timedelta

from tests.conformance.books import Books, Row
from tests.conformance.doctor import SECOND, body_of, found_by, one

__all__: list[str] = []  # they are found in `doctor.CHANGES`


def child(books: Books, state: str = "done") -> Row:
    """Return a run that another one asked for."""
    return next(run for run in books["runs"] if run["parent"] is not None and run["state"] == state)


def told(books: Books, kind: str) -> tuple[Row, Row]:
    """Return an event of this kind, and what it says."""
    event = one(books["events"], kind=kind)
    return event, json.loads(event["data"])


@found_by("children_are_accounted_for")
def a_child_that_nobody_asked_for(books: Books) -> None:
    books["offspring"].clear()


@found_by("children_are_accounted_for")
def a_child_asked_twice(books: Books) -> None:
    books["runs"].append({**child(books), "run": "another", "thread": "another"})


@found_by("children_are_accounted_for")
def a_question_to_another_agent(books: Books) -> None:
    run = child(books)
    one(books["offspring"], name=books.names[run["run"]])["agent"] = "somebody"


@found_by("children_are_accounted_for")
def a_child_of_another_step(books: Books) -> None:
    run = child(books)
    run["message_id"] = run["scope"] = "0" * 64


@found_by("children_are_accounted_for")
def a_child_with_a_scope_of_its_own(books: Books) -> None:
    child(books)["scope"] = None


@found_by("children_are_accounted_for")
def effects_outside_the_scope_of_their_thread(books: Books) -> None:
    run = child(books)
    one(books["effects"], run=run["run"])["scope"] += "x"


@found_by("children_are_accounted_for")
def a_child_that_stopped_for_no_reason(books: Books) -> None:
    books["words"][:] = [word for word in books["words"] if word["word"] != "stop"]
    child(books).update(state="stopped", error="it had enough")


@found_by("children_are_accounted_for")
def a_child_that_never_ended(books: Books) -> None:
    child(books).update(state="running", ended_at=None)


@found_by("children_are_accounted_for")
def an_asker_who_read_another_answer(books: Books) -> None:
    asked = next(slot for slot in books.slots if "message" in slot.args and str(slot.said).startswith("all done"))
    body_of(one(books["messages"], thread=asked.thread, seq=asked.seq), content="all done with nothing")


@found_by("children_are_accounted_for")
def a_failure_read_as_an_answer(books: Books) -> None:
    asked = next(slot for slot in books.slots if "message" in slot.args and str(slot.said).startswith("error: "))
    body_of(one(books["messages"], thread=asked.thread, seq=asked.seq), content=f"all done with {asked.call[1]}")


@found_by("records_name_children")
def a_child_that_no_record_names(books: Books) -> None:
    books["events"].remove(told(books, "child_started")[0])


@found_by("records_name_children")
def a_child_that_began_twice(books: Books) -> None:
    books["events"].append({**told(books, "child_started")[0], "seq": 99})


@found_by("records_name_children")
def a_child_in_the_record_of_another(books: Books) -> None:
    event, _ = told(books, "child_started")
    event["run"] = next(run["run"] for run in books["runs"] if run["run"] != event["run"])


@found_by("records_name_children")
def a_record_without_the_end_of_a_child(books: Books) -> None:
    ended = [event for event in books["events"] if event["kind"] == "child_ended"]
    books["events"].remove(next(event for event in ended if json.loads(event["data"])["state"] == "done"))


@found_by("records_name_children")
def another_end_in_the_record(books: Books) -> None:
    for event in books["events"]:
        if event["kind"] == "child_ended":
            event["data"] = json.dumps({**json.loads(event["data"]), "state": "lost"})


@found_by("nobody_works_for_who_has_ended")
def a_child_at_work_for_nobody(books: Books) -> None:
    child(books).update(state="running", ended_at=None)


@found_by("nobody_works_for_who_has_ended")
def a_model_called_for_who_had_ended(books: Books) -> None:
    run = child(books)
    over = books.runs[run["parent"]]["ended_at"]
    books["faults"].clear()
    books["starved"].clear()
    call = one(books["model_calls"], run=books.names[run["run"]])
    books["model_calls"].append({**call, "at": over + timedelta(seconds=10)})


@found_by("trees_keep_their_budget")
def tokens_of_a_child_that_nobody_counted(books: Books) -> None:
    books.runs[child(books)["parent"]]["tokens_below"] -= 1


@found_by("trees_keep_their_budget")
def tokens_counted_twice_above(books: Books) -> None:
    next(run for run in books["runs"] if run["depth"] == 0 and run["tokens_below"])["tokens_below"] += 10


@found_by("trees_keep_their_budget")
def a_model_called_when_the_tree_had_used_it_all(books: Books) -> None:
    run = child(books)
    top = books.runs[run["parent"]]
    top["budget"] = json.dumps({"tokens": 1})
    books["faults"].clear()
    books["starved"].clear()
    call = one(books["model_calls"], run=books.names[top["run"]])
    books["model_calls"].append({**call, "run": books.names[run["run"]], "at": top["ended_at"] + 10 * SECOND})


@found_by("hand_offs_are_whole")
def a_hand_off_without_a_record(books: Books) -> None:
    books["events"].remove(told(books, "handed_off")[0])


@found_by("hand_offs_are_whole")
def a_hand_off_twice(books: Books) -> None:
    books["events"].append({**told(books, "handed_off")[0], "seq": 99})


@found_by("hand_offs_are_whole")
def a_thread_that_stayed_behind(books: Books) -> None:
    event, said = told(books, "handed_off")
    books.runs[event["run"]]["owner"] = said["before"]


@found_by("hand_offs_are_whole")
def the_first_agent_speaks_on(books: Books) -> None:
    event, said = told(books, "handed_off")
    calls = [call for call in books["model_calls"] if call["run"] == books.names[event["run"]]]
    calls[-1]["agent"] = said["before"]


@found_by("hand_offs_are_whole")
def another_agent_speaks(books: Books) -> None:
    one(books["model_calls"], agent="leaf")["agent"] = "chief"
