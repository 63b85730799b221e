"""The figures of the conformance page that are times: after a kill, after an outage, after everything was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.tables import MISSING, table, wrapped

__all__ = ["OUTAGES", "measured", "outages", "progress", "resume", "waiting"]

OUTAGES = {
    "postgres": "PostgreSQL",
    "memory": "memory process",
    "model": "model server",
    "temporal": "Temporal server",
}

Json = dict[str, Any]


def resume(found: Sequence[Json]) -> str:
    """Return the times after a kill, and what came of the runs."""
    measured = [each for each in found if "killed" in each]
    if not measured:
        return MISSING
    beside = [f"{each['busy']} busy" for each in measured]
    loads = ", ".join(f"{each['load_of_others']:.1f} at {each['busy']} busy" for each in measured)
    places = dict.fromkeys(where for each in measured for where in each["killed"]["places"])
    lines = []
    for where in places:
        found_there = [each["killed"]["places"].get(where, {}) for each in measured]
        first = [_spans(place.get("step") or place.get("asked")) for place in found_there]
        replies = [_spans(place.get("reply")) for place in found_there]
        asked = any("asked" in place for place in found_there)
        lines.append((where + (": a person is asked" if asked else ""), *first, *replies))
    counts = [
        (what, *(each[part]["count"][name] for each in measured))
        for part, name, what in (
            ("killed", "runs", "runs whose worker was killed"),
            ("killed", "finished", "of these finished"),
            ("killed", "twice", "calls that took effect twice"),
            ("killed", "lost", "calls lost"),
            ("killed", "needless_doubts", "calls in doubt that need not have been"),
            ("unharmed", "runs", "runs that nobody harmed"),
            ("unharmed", "finished", "of these finished"),
            ("unharmed", "needless_doubts", "calls in doubt that need not have been"),
        )
    ]
    head = ("killed", *(f"step done, {each}" for each in beside), *(f"then the reply, {each}" for each in beside))
    legend = wrapped(
        "Each cell: median, 95th percentile, longest, and how many. Busy: so many processes that do nothing but",
        f"compute, beside the stack, from a second before each kill. Load of the machine before it began: {loads}.",
    )
    return f"{table(head, lines)}\n\n{legend}\n\n{table(('', *beside), counts)}"


def progress(drives: Json) -> str:
    """Return the times after a kill amid other faults."""
    return table(("class", "time"), [(name, _spans(row)) for name, row in drives["progress_s"].items()])


def _spans(row: Mapping[str, float] | None) -> str:
    if row is None:
        return "-"
    return ", ".join(f"{row[name]:.1f}" for name in ("p50", "p95", "max")) + f" s ({row['n']:,})"


def outages(found: Sequence[Json]) -> str:
    """Return a line for each outage."""
    rows = [
        (
            OUTAGES[each["label"].partition("-")[2]],
            f"{each['seconds']:g} s",
            each["offered"],
            each["backlog"],
            "never" if each["drained_after"] is None else f"{each['drained_after']:.0f} s",
            "-" if each["ratio"] is None else f"{each['ratio']:.2f}",
            each["failed"],
            *(each[name] for name in ("twice", "lost", "in_doubt", "exits")),
            f"{each['starved_s']:.0f} s",
        )
        for each in sorted(measured(found), key=lambda each: list(OUTAGES).index(each["label"].partition("-")[2]))
    ]
    head = (
        "gone",
        "for",
        "messages",
        "backlog",
        "drained in",
        "of the outage",
        "runs failed",
        "twice",
        "lost",
        "in doubt",
        "processes ended",
        "machine without time",
    )
    return table(head, rows) if rows else MISSING


def measured(found: Sequence[Json]) -> list[Json]:
    """Return those that left figures; of the others the list of programs tells."""
    return [each for each in found if "twice" in each]


def waiting(found: Sequence[Json]) -> str:
    """Return what came of the runs that waited."""
    found = measured(found)
    if not found:
        return MISSING
    (one,) = found
    words = ", ".join(f"{times:,} {word}" for word, times in sorted(one["words"].items()))
    waiting, decided = (max(one[name].values(), default=0) for name in ("memory_waiting", "memory_decided"))
    return table(
        ("", ""),
        [
            ("runs that waited", f"{one['runs']:,}, all of them after {one['started_after']:.0f} s"),
            ("held for them: PostgreSQL, Temporal", f"{_mib(one['postgres_bytes'])}, {_mib(one['temporal_bytes'])}"),
            ("largest process, while they wait and after", f"{_mib(waiting)}, {_mib(decided)}"),
            ("processes killed at once", one["killed"]),
            ("from the kill until the stack was ready again", f"{one['answers_after']:.1f} s"),
            ("decisions", words),
            (
                "of these on their way at the kill, or made while it was down",
                one["decided_before"] + one["decided_down"],
            ),
            (
                "from then until the first run ended, and the last",
                _seconds(one, "first_ended_after", "all_ended_after"),
            ),
            ("runs that ended as decided", f"{one['ended']:,}"),
            ("effects of approved calls", f"{one['effects']:,}"),
            ("twice, lost, in doubt", f"{one['twice']}, {one['lost']}, {one['in_doubt']}"),
        ],
    )


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _seconds(row: Json, *names: str) -> str:
    return ", ".join(f"{row[name]:.1f} s" for name in names)
