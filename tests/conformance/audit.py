"""The auditor: a program that judges a drive by the recorder's log, the database and exported histories alone.

    python -m tests.conformance.audit --recorder LOG --database URL --histories DIR

It shares no code with what it judges. Exit code 0: nothing is wrong. 1: something is, and the table says what.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

from tests.conformance.assertions import ASSERTIONS, frozen_double, orphaned
from tests.conformance.books import GUARDED, Books, class_of, read

SHOWN = 12  # findings of one assertion


def figures(books: Books) -> list[tuple[str, object]]:
    """Return what is counted and not judged."""
    asked = Counter(class_of(tool) for _, tool, _ in books.asked)
    doubts = {entry["key"]: entry for entry in books["ledger"] if entry["state"] == "in_doubt"}
    arrived = {entry["key"] for entry in books.arrivals}
    model = [call for call in books["model_calls"] if not call["fault"]]
    rolled = sum("workflowExecutionContinuedAsNewEventAttributes" in each["events"][-1] for each in books.histories)
    pure = sum(count for (_, tool, _), count in books.by_call.items() if class_of(tool) == "pure")
    return [
        ("faults", len(books["faults"])),
        *((f"  {kind}", count) for kind, count in sorted(Counter(row["kind"] for row in books["faults"]).items())),
        ("runs", _counted(Counter(row["state"] for row in books["runs"]))),
        ("workflow executions", f"{len(books.histories)}, {rolled} of them continued as new"),
        ("guarded calls asked for", sum(asked[name] for name in GUARDED)),
        *((f"  {name}", asked[name]) for name in GUARDED),
        ("effects", sum(books.by_key.values()) - pure),
        ("keyed repeats deduped by the remote", sum(entry["kind"] != "effect" for entry in books.arrivals)),
        (
            "verifiable doubled by a frozen process",
            sum(frozen_double(books, k) for k, n in books.by_key.items() if n > 1),
        ),
        (
            "keyed, verifiable in doubt after a Terminate",
            sum(entry["class"] != "once" and orphaned(books, entry) for entry in doubts.values()),
        ),
        ("guarded calls failed: proved not sent", sum(row["state"] == "failed" for row in books.guarded)),
        ("calls in doubt, their effect took place", len(doubts.keys() & arrived)),
        ("calls in doubt, never seen outside", len(doubts.keys() - arrived)),
        ("pure calls", f"{asked['pure']}, sent {pure} times"),
        ("model calls answered", f"{len(model)}, {len(model) - len({(c['run'], c['round']) for c in model})} repeats"),
        ("decisions and words in the audit", len(books["audit"])),
        ("progress after a kill: keyed, local_tx", _quantiles(_resumed(books, ("keyed", "local_tx")))),
        ("progress after a kill: once, verifiable", _quantiles(_resumed(books, ("once", "verifiable")))),
    ]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _resumed(books: Books, classes: tuple[str, ...]) -> list[float]:
    """Return the seconds from each kill -9 of a worker to the next change of each ledger row it held in flight."""
    spans: list[float] = []
    held: dict[str, list[tuple[datetime, str, int]]] = {}
    for entry in books["ledger"]:
        if entry["class"] in classes:
            pid = int(entry["owner"].partition(".")[0])
            held.setdefault(entry["key"], []).append((entry["at"], entry["state"], pid))
    for fault in books["faults"]:
        if fault["at"] != fault["until"] or not fault["pids"]:
            continue
        for changes in held.values():
            before = [change for change in changes if change[0] <= fault["at"]]
            after = [change for change in changes if change[0] > fault["at"]]
            if before and after and before[-1][1] == "in_flight" and before[-1][2] in fault["pids"]:
                spans.append((after[0][0] - fault["at"]).total_seconds())
    return spans


def _quantiles(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p50, p95 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.95))
    return f"p50 {p50:.1f} s, p95 {p95:.1f} s, most {ordered[-1]:.1f} s (of {len(ordered)})"


def judge(books: Books) -> tuple[bool, str]:
    """Return whether nothing is wrong, and the table."""
    rows = figures(books)
    wrong: list[str] = []
    for number, assertion in ASSERTIONS:
        findings = list(assertion(books))
        name = (assertion.__doc__ or "").strip().rstrip(".")
        rows.append((f"({number}) {name}", "holds" if not findings else f"WRONG: {len(findings)}"))
        if findings:
            wrong.append(f"({number}) {assertion.__name__}:")
            wrong += [f"    {finding}" for finding in findings[:SHOWN]]
            wrong += [f"    … and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
    wide = max(len(name) for name, _ in rows)
    return not wrong, "\n".join([*(f"  {name:<{wide}}  {value}" for name, value in rows), *wrong]) + "\n"


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Judge a drive of the conformance suite.")
    parser.add_argument("--recorder", type=Path, required=True, help="the recorder's log")
    parser.add_argument("--database", required=True, help="postgresql:// URL")
    parser.add_argument("--histories", type=Path, required=True, help="folder of exported workflow histories")
    parser.add_argument("--keep", type=Path, help="write all that was read there, if something is wrong")
    options = parser.parse_args()
    books = read(options.recorder, options.database, options.histories)
    holds, table = judge(books)
    sys.stdout.write(table)
    if options.keep is not None and not holds:
        kept = {"tables": books.tables, "arrivals": books.arrivals, "histories": books.histories}
        options.keep.write_text(json.dumps(kept, default=str), encoding="utf-8")
        sys.stdout.write(f"  all that was read is kept in {options.keep}\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
