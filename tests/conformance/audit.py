"""The auditor: a program that judges a drive by the recorder's log, the database and exported histories alone.

    python -m tests.conformance.audit --recorder LOG --database URL --histories DIR [--json FILE]

It shares no code with what it judges. Exit code 0: nothing is wrong. 1: something is, and the table says what.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conformance.assertions import ASSERTIONS
from tests.conformance.books import GUARDED, Books, read
from tests.conformance.figures import FATES, Figures, count, quantile

__all__ = ["Finding", "excused", "judge", "verdict"]

SHOWN = 12  # findings of one assertion


@dataclass(frozen=True)
class Finding:
    """What one assertion found wrong: nothing, if it holds."""

    number: str  # of the promise it belongs to
    name: str
    says: str
    wrong: tuple[str, ...]


def verdict(books: Books) -> list[Finding]:
    """Put every assertion to the books."""
    return [
        Finding(number, assertion.__name__, _says(assertion.__doc__), tuple(assertion(books)))
        for number, assertion in ASSERTIONS
    ]


def judge(books: Books) -> tuple[bool, str]:
    """Return whether nothing is wrong, and the table."""
    findings = verdict(books)
    return not any(finding.wrong for finding in findings), table(count(books), findings)


def table(figures: Figures, findings: Sequence[Finding]) -> str:
    """Return figures and findings for a person."""
    rows = [*_rows(figures), *((f"({each.number}) {each.says}", _holds(each)) for each in findings)]
    wrong: list[str] = []
    for each in findings:
        if each.wrong:
            wrong.append(f"({each.number}) {each.name}:")
            wrong += [f"    {finding}" for finding in each.wrong[:SHOWN]]
            wrong += [f"    … and {len(each.wrong) - SHOWN} more"] if len(each.wrong) > SHOWN else []
    wide = max(len(name) for name, _ in rows)
    return "\n".join([*(f"  {name:<{wide}}  {value}" for name, value in rows), *wrong]) + "\n"


def _says(words: str | None) -> str:
    return (words or "").strip().partition("\n")[0].rstrip(".")


def _holds(finding: Finding) -> str:
    return f"WRONG: {len(finding.wrong)}" if finding.wrong else "holds"


def excused(books: Books) -> dict[str, dict[str, int]]:
    """Return how often each thing was let pass, by the fault that accounts for it; the assertions noted it."""
    found: dict[str, dict[str, int]] = {}
    for (what, _), because in books.excused.items():
        causes = found.setdefault(what, {})
        causes[because] = causes.get(because, 0) + 1
    return found


def _rows(found: Figures) -> list[tuple[str, object]]:
    bound, doubts = found.doubt_bound, found.in_doubt
    return [
        ("faults", sum(found.faults.values())),
        *((f"  {kind}", times) for kind, times in sorted(found.faults.items())),
        ("runs", ", ".join(f"{times} {state}" for state, times in sorted(found.runs.items()))),
        ("workflow executions", f"{found.executions}, {found.rolled_over} of them continued as new"),
        ("histories replayed", found.replayed),
        ("guarded calls asked for", f"{sum(found.asked.values())}: {_by_class(found.asked)}"),
        *((f"  {fate}", _by_class(_of(found.fates, fate))) for fate in FATES),
        ("effects", found.effects),
        ("effects that nobody asked for", found.unasked),
        ("TWICE", found.twice),
        ("LOST", found.lost),
        ("could have come in doubt: sent, not completed, hit by a fault", _by_class(bound)),
        ("came in doubt, their effect had taken place", _by_class(_of(doubts, "took place"))),
        ("came in doubt, never seen outside", _by_class(_of(doubts, "never seen outside"))),
        ("  of these because the end of their run left nobody to ask", found.orphaned),
        ("in flight when a fault hit their worker or run", _by_class(found.exposed)),
        ("went on in another worker", f"{found.taken_over} times"),
        ("came out of doubt", ", ".join(f"{times} {how}" for how, times in found.resolved.items()) or "0"),
        ("processes that ended by themselves", ", ".join(f"{n} {when}" for when, n in found.exits.items()) or "0"),
        ("seconds in which the machine had no time", found.starved_s),
        ("keyed repeats deduped by the remote", found.keyed_repeats),
        ("pure calls", f"{found.pure_asked}, sent {found.pure_sent} times"),
        (
            "model calls answered",
            f"{found.model_calls}, {found.model_repeats} of them repeats, {found.model_again} although recorded",
        ),
        ("decisions and words in the audit", found.audited),
        *found.variety.items(),
        *((f"progress after a kill: {classes}", _quantiles(spans)) for classes, spans in found.progress_s.items()),
    ]


def _of(by_class: Mapping[str, Mapping[str, int]], name: str) -> dict[str, int]:
    return {effect: counts[name] for effect, counts in by_class.items()}


def _by_class(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in GUARDED if counts[name]) or "0"


def _quantiles(spans: Sequence[float]) -> str:
    if not spans:
        return "-"
    p50, p95 = quantile(spans, 0.5), quantile(spans, 0.95)
    return f"p50 {p50:.1f} s, p95 {p95:.1f} s, most {max(spans):.1f} s (of {len(spans)})"


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Judge a drive of the conformance suite.")
    parser.add_argument("--recorder", type=Path, required=True, help="the recorder's log")
    parser.add_argument("--database", required=True, help="postgresql:// URL")
    parser.add_argument("--histories", type=Path, required=True, help="folder of exported workflow histories")
    parser.add_argument("--json", type=Path, help="write the figures there, and what each assertion found")
    parser.add_argument("--keep", type=Path, help="write all that was read there, if something is wrong")
    options = parser.parse_args()
    books = read(options.recorder, options.database, options.histories)
    figures, findings = count(books), verdict(books)
    holds = not any(finding.wrong for finding in findings)
    sys.stdout.write(table(figures, findings))
    if options.json is not None:
        said = {
            "holds": holds,
            **asdict(figures),
            "excused": excused(books),
            "assertions": [asdict(finding) for finding in findings],
        }
        options.json.write_text(json.dumps(said, indent=1), encoding="utf-8")
    if options.keep is not None and not holds:
        kept = {"tables": books.tables, "arrivals": books.arrivals, "histories": books.histories}
        options.keep.write_text(json.dumps(kept, default=str), encoding="utf-8")
        sys.stdout.write(f"  all that was read is kept in {options.keep}\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
