"""The assertions of the auditor, in the order of the promises they prove; each yields what is wrong in the books.

A new one is a function in an `audit_…` module, an entry here, and a change to good books in a `wrongs_…` module that it
must report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.conformance import (
    audit_effects,
    audit_everyday,
    audit_family,
    audit_processes,
    audit_records,
    audit_runs,
    audit_spending,
)
from tests.conformance.audit_effects import concerns, frozen_double, orphaned
from tests.conformance.audit_records import INTERRUPTED, REJECTED
from tests.conformance.books import Books

__all__ = ["ASSERTIONS", "INTERRUPTED", "REJECTED", "Assertion", "concerns", "frozen_double", "orphaned"]

Assertion = Callable[[Books], Iterator[str]]

ASSERTIONS: tuple[tuple[str, Assertion], ...] = (
    ("1", audit_effects.at_most_one_effect),
    ("2", audit_effects.completed_has_its_effect),
    ("3", audit_effects.given_up_has_none),
    ("3", audit_effects.doubts_have_a_cause),
    ("4", audit_runs.every_run_ends),
    ("5", audit_records.ledger_history_recorder_agree),
    ("5", audit_records.arguments_arrive),
    ("5", audit_records.results_reach_the_thread),
    ("6", audit_effects.fences_never_fall),
    ("6", audit_effects.rows_change_lawfully),
    ("7", audit_records.threads_are_whole),
    ("7", audit_records.events_are_gapless),
    ("7", audit_records.memory_without_duplicates),
    ("8", audit_records.histories_replay),
    ("9", audit_runs.one_message_one_run),
    ("10", audit_runs.decisions_are_audited),
    ("10", audit_runs.words_are_kept),
    ("11", audit_spending.recorded_calls_are_not_bought_again),
    ("12", audit_spending.budgets_hold),
    ("12", audit_family.trees_keep_their_budget),
    ("13", audit_family.children_are_accounted_for),
    ("13", audit_family.records_name_children),
    ("13", audit_family.nobody_works_for_who_has_ended),
    ("14", audit_family.hand_offs_are_whole),
    ("15", audit_everyday.occurrences_are_accounted_for),
    ("16", audit_everyday.suspended_tools_are_not_called),
    ("16", audit_everyday.no_process_is_left),
    ("17", audit_processes.exits_have_a_cause),
    ("18", audit_processes.nothing_is_unfinished),
)
