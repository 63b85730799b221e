"""Wrongs for `audit_records`: what ledger, histories, threads and recorder may not disagree in."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tests.conformance.books import Books, Row
from tests.conformance.doctor import body_of, found_by, one, replies, sent_once, slot

__all__: list[str] = []  # they are found in `doctor.CHANGES`


def steps(books: Books, name: str) -> Iterable[tuple[Row, Row, Row]]:
    """Yield (history, scheduled event, completed event) of every completed activity of this name."""
    for history in books.histories:
        asked: dict[str, Row] = {}
        for event in history["events"]:
            given = event.get("activityTaskScheduledEventAttributes")
            if given is not None and given["activityType"]["name"] == name:
                asked[event["eventId"]] = event
            done = event.get("activityTaskCompletedEventAttributes")
            if done is not None and done["scheduledEventId"] in asked:
                yield history, asked[done["scheduledEventId"]], event


@found_by("ledger_history_recorder_agree")
def a_call_missing_in_the_ledger(books: Books) -> None:
    books["effects"].remove(sent_once(books)[0])


@found_by("ledger_history_recorder_agree")
def a_call_missing_in_history(books: Books) -> None:
    history, asked, _ = next(iter(steps(books, "tool_step")))
    step = asked["activityTaskScheduledEventAttributes"]["input"]
    for each in books.histories:
        each["events"] = [
            event
            for event in each["events"]
            if event.get("activityTaskScheduledEventAttributes", {}).get("input") != step
        ]
    assert history in books.histories


@found_by("ledger_history_recorder_agree")
def a_call_done_in_history_and_failed_in_the_ledger(books: Books) -> None:
    row = sent_once(books)[0]
    row["result"] = json.dumps({"status": "error", "preview": "", "bytes": 3})


@found_by("ledger_history_recorder_agree")
def a_result_for_other_arguments(books: Books) -> None:
    sent_once(books)[0]["args_hash"] = "0" * 64


@found_by("ledger_history_recorder_agree")
def a_key_of_another_step(books: Books) -> None:
    sent_once(books)[0]["step_no"] += 100


@found_by("ledger_history_recorder_agree")
def a_reply_that_no_thread_has(books: Books) -> None:
    row = next(row for row in replies(books) if json.loads(row["result"]).get("calls"))
    row["result"] = json.dumps({**json.loads(row["result"]), "seq": 999})


@found_by("ledger_history_recorder_agree")
def a_call_of_another_class(books: Books) -> None:
    sent_once(books)[0]["class"] = "keyed"


@found_by("arguments_arrive")
def other_arguments_outside(books: Books) -> None:
    arrival = sent_once(books)[1]
    arrival["args"] = {**arrival["args"], "more": "money"}


@found_by("arguments_arrive")
def long_arguments_cut_short(books: Books) -> None:
    arrival = next(entry for entry in books.arrivals if entry["tool"] == "keyed_long")
    arrival["args"] = {**arrival["args"], "text": arrival["args"]["text"][:1024]}


@found_by("arguments_arrive")
def a_call_bound_to_other_arguments(books: Books) -> None:
    sent_once(books)[0]["args_hash"] = "0" * 64


@found_by("arguments_arrive")
def an_edit_that_did_not_arrive(books: Books) -> None:
    arrival = next(entry for entry in books.arrivals if "note" in entry["args"])
    arrival["args"] = {name: value for name, value in arrival["args"].items() if name != "note"}


@found_by("arguments_arrive")
def a_row_written_with_other_arguments(books: Books) -> None:
    books["notes"][0]["n"] = "7"


@found_by("results_reach_the_thread")
def another_result_in_the_thread(books: Books) -> None:
    body_of(slot(books), content="once_async #9999")


@found_by("results_reach_the_thread")
def a_call_interrupted_by_nobody(books: Books) -> None:
    message = next(
        one(books["messages"], thread=slot.thread, seq=slot.seq)
        for slot in books.slots
        if books.runs[slot.run]["state"] == "done"
    )
    body_of(message, content="interrupted: the run ended")


@found_by("results_reach_the_thread")
def a_call_rejected_by_nobody(books: Books) -> None:
    body_of(slot(books), content="rejected: a person did not allow this call. Reason: not today")


@found_by("results_reach_the_thread")
def a_rejected_call_with_a_result(books: Books) -> None:
    rejected = one(books["approvals"], state="rejected")
    message = one(books["messages"], run=rejected["run"], step_no=rejected["step_no"])
    body_of(message, content="once_approved #3")


@found_by("results_reach_the_thread")
def an_error_without_a_failure(books: Books) -> None:
    body_of(slot(books), content="error: no luck")


@found_by("results_reach_the_thread")
def a_large_result_cut_in_storage(books: Books) -> None:
    large = slot(books, "keyed_large")
    one(books["blobs"], id=large["blob"])["sha256"] = "0" * 64


@found_by("threads_are_whole")
def a_gap_in_a_thread(books: Books) -> None:
    books["messages"].remove(slot(books))


@found_by("threads_are_whole")
def a_message_twice_in_a_thread(books: Books) -> None:
    message = slot(books)
    books["messages"].insert(books["messages"].index(message), {**message})


@found_by("threads_are_whole")
def an_open_slot(books: Books) -> None:
    slot(books)["body"] = None


@found_by("threads_are_whole")
def a_result_after_the_next_message(books: Books) -> None:
    message = slot(books)
    messages = [each for each in books["messages"] if each["thread"] == message["thread"]]
    last = messages[-1]
    message["seq"], last["seq"] = last["seq"], message["seq"]
    books["messages"].sort(key=lambda each: (each["thread"], each["seq"]))


@found_by("threads_are_whole")
def calls_that_were_never_asked_for(books: Books) -> None:
    done = one(books["runs"], state="done")["message_id"]
    books["asked"].extend({"run": done, "tool": "once_async", "n": n} for n in ("1", "9"))


@found_by("threads_are_whole")
def a_call_asked_for_twice(books: Books) -> None:
    message = next(each for each in books["messages"] if "tool_calls" in str(each["body"]))
    calls = json.loads(message["body"])["tool_calls"]
    body_of(message, tool_calls=[*calls, {**calls[0], "id": "call_again"}])


@found_by("events_are_gapless")
def an_event_missing(books: Books) -> None:
    run = one(books["runs"], state="done")["run"]
    books["events"].remove(one(books["events"], run=run, seq=2))


@found_by("events_are_gapless")
def an_end_without_an_event(books: Books) -> None:
    run = one(books["runs"], state="done")["run"]
    books["events"].remove(one(books["events"], run=run, kind="ended"))


@found_by("events_are_gapless")
def a_watcher_who_missed_one(books: Books) -> None:
    books["watched"].remove(one(books["watched"], seq=2))


@found_by("events_are_gapless")
def a_watcher_who_saw_one_twice(books: Books) -> None:
    books["watched"].insert(0, {**books["watched"][0]})


@found_by("events_are_gapless")
def a_watcher_who_was_left_before_the_end(books: Books) -> None:
    watched = {row["run"] for row in books["watched"]}
    ended = next(run["run"] for run in books["runs"] if run["ended_at"] is not None and run["run"] in watched)
    books["watched"][:] = [row for row in books["watched"] if row["run"] != ended or row["seq"] == 1]


@found_by("memory_without_duplicates")
def an_answer_remembered_twice(books: Books) -> None:
    books["memories"].append({**books["memories"][0], "id": "another"})


@found_by("memory_without_duplicates")
def an_answer_forgotten(books: Books) -> None:
    books["memories"].clear()


@found_by("memory_without_duplicates")
def an_answer_that_waits_for_ever(books: Books) -> None:
    books["outbox"].append({"source_key": "run:1"})


@found_by("histories_replay")
def a_history_that_does_not_replay(books: Books) -> None:
    books["replays"][0]["error"] = "NondeterminismError"


@found_by("histories_replay")
def a_history_that_was_not_tried(books: Books) -> None:
    books["replays"].pop()


@found_by("histories_replay")
def a_thread_without_a_history(books: Books) -> None:
    thread = books["sent"][0]["thread"]
    books.histories[:] = [each for each in books.histories if not each["workflow_id"].endswith(f":{thread}")]
