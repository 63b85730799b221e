"""Wrongs for `audit_runs`: what may not be so of runs and of a person's word."""

from __future__ import annotations

import json
from datetime import timedelta

from tests.conformance.books import Books, payload
from tests.conformance.doctor import body_of, found_by, one, packed

__all__: list[str] = []  # they are found in `doctor.CHANGES`


@found_by("every_run_ends")
def an_open_run(books: Books) -> None:
    one(books["runs"], state="done").update(state="running", ended_at=None)


@found_by("every_run_ends")
def a_run_that_waits_for_nothing(books: Books) -> None:
    one(books["runs"], state="done").update(state="waiting", ended_at=None)


@found_by("every_run_ends")
def a_failed_run(books: Books) -> None:
    one(books["runs"], state="done").update(state="failed", error="the model did not answer")


@found_by("every_run_ends")
def an_accepted_message_without_a_run(books: Books) -> None:
    books["runs"].remove(one(books["runs"], state="refused", parent=None))


@found_by("every_run_ends")
def a_stored_message_lost_with_its_workflow(books: Books) -> None:
    run = one(books["runs"], state="refused", parent=None)
    books["runs"].remove(run)
    at, thread = run["created_at"], run["thread"]
    books["faults"].append({"kind": "Terminate", "at": at, "until": at, "pids": [], "threads": [thread], "note": ""})
    given = {"messages": [{"message_id": run["message_id"]}]}
    asked = {"activityType": {"name": "admit"}, "input": packed(given)}
    told = {"scheduledEventId": "5", "result": packed({})}
    events = [
        {"eventId": "5", "activityTaskScheduledEventAttributes": asked},
        {"eventId": "7", "activityTaskCompletedEventAttributes": told},
    ]
    about = {"workflow_id": f"{run['tenant']}:{thread}", "run_id": "x", "type": "AgentWorkflow"}
    books.histories.append({**about, "events": events})


@found_by("every_run_ends")
def a_run_that_nobody_sent(books: Books) -> None:
    run = one(books["runs"], state="done")["run"]
    books["sent"][:] = [sent for sent in books["sent"] if sent["run"] != run]


@found_by("every_run_ends")
def the_answer_of_another_run(books: Books) -> None:
    first, second = [run for run in books["runs"] if run["state"] == "done"][:2]
    for message in books["messages"]:
        if (message["thread"], message["seq"]) == (first["thread"], first["answer_seq"]):
            body_of(message, content=f"all done with {second['message_id']}")


@found_by("every_run_ends")
def a_run_that_ended_with_an_approval_pending(books: Books) -> None:
    one(books["approvals"], state="approved")["state"] = "pending"


@found_by("every_run_ends")
def a_message_that_joined_another_thread(books: Books) -> None:
    merged = one(books["runs"], state="merged")
    merged["merged_into"] = next(run["run"] for run in books["runs"] if run["thread"] != merged["thread"])


@found_by("every_run_ends")
def an_asker_without_a_result(books: Books) -> None:
    asked = one(books.histories, type="AskWorkflow")
    asked["events"][-1].pop("workflowExecutionCompletedEventAttributes")


@found_by("every_run_ends")
def an_asker_who_was_told_otherwise(books: Books) -> None:
    asked = one(books.histories, type="AskWorkflow")
    done = asked["events"][-1]["workflowExecutionCompletedEventAttributes"]
    other = next(each for each in books.histories if each["type"] == "AskWorkflow" and each is not asked)
    given = other["events"][-1]["workflowExecutionCompletedEventAttributes"]["result"]
    told = {**payload(done["result"]), "state": "failed" if payload(given)["state"] != "failed" else "done"}
    done["result"] = packed(told)


@found_by("one_message_one_run")
def two_runs_for_a_message(books: Books) -> None:
    books["runs"].append({**one(books["runs"], state="done"), "run": "another"})


@found_by("one_message_one_run")
def a_sender_told_of_two_runs(books: Books) -> None:
    books["sent"].append({**books["sent"][0], "run": books["sent"][1]["run"]})


@found_by("one_message_one_run")
def a_run_begun_twice(books: Books) -> None:
    books["events"].append({**one(books["events"], kind="started"), "seq": 99})


@found_by("one_message_one_run")
def a_long_text_cut_short(books: Books) -> None:
    run = next(run for run in books["runs"] if len(run["message"] or "") > 2048)
    run["message"] = json.dumps({"role": "user", "content": json.loads(run["message"])["content"][:2048]})


@found_by("one_message_one_run")
def a_message_twice_in_its_thread(books: Books) -> None:
    books["messages"].append({**one(books["messages"], role="user"), "seq": 999})


@found_by("decisions_are_audited")
def a_decision_without_an_audit_row(books: Books) -> None:
    about = one(books["approvals"], state="approved")["decision_id"]
    books["audit"].remove(one(books["audit"], decision_id=about))


@found_by("decisions_are_audited")
def a_rejection_audited_as_an_approval(books: Books) -> None:
    about = one(books["approvals"], state="rejected")["decision_id"]
    one(books["audit"], decision_id=about)["action"] = "approve"


@found_by("decisions_are_audited")
def a_call_claimed_before_its_decision_was_written_down(books: Books) -> None:
    begun = next(entry for entry in books["ledger"] if entry["tool"] == "once_approved")
    begun["at"] -= timedelta(hours=1)


@found_by("decisions_are_audited")
def a_call_begun_without_a_decision(books: Books) -> None:
    row = next(row for row in books["effects"] if row["tool"] == "once_approved")
    approval = one(books["approvals"], run=row["run"], step_no=row["step_no"])
    books["approvals"].remove(approval)


@found_by("decisions_are_audited")
def a_call_given_up_by_nobody(books: Books) -> None:
    doubt = one(books["ledger"], state="in_doubt")
    after = next(entry for entry in books["ledger"] if entry["key"] == doubt["key"] and entry["id"] > doubt["id"])
    after["state"] = "abandoned"
    books["audit"][:] = [row for row in books["audit"] if row["run"] != doubt["run"] or row["action"] != "resolve"]


@found_by("decisions_are_audited")
def a_word_that_counts_as_signed(books: Books) -> None:
    books["audit"][0]["verified"] = True


@found_by("words_are_kept")
def a_word_that_was_lost(books: Books) -> None:
    next(word for word in books["words"] if word["decision_id"] is not None)["decision_id"] = "lost"


@found_by("words_are_kept")
def a_word_turned_round(books: Books) -> None:
    rejected = one(books["approvals"], state="rejected")
    rejected["state"] = "approved"


@found_by("words_are_kept")
def other_arguments_than_a_person_gave(books: Books) -> None:
    edited = next(row for row in books["approvals"] if row["args"])
    edited["args"] = json.dumps({**json.loads(edited["args"]), "note": "as nobody wants it"})


@found_by("words_are_kept")
def an_approval_void_for_no_reason(books: Books) -> None:
    one(books["approvals"], state="approved")["state"] = "void"
