"""The figures of the conformance page: each function fills one hole of page.md. `report` calls them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.figures import FATES, FROZEN, OPEN

__all__ = [
    "OUTAGES",
    "assertions",
    "call_count",
    "circumstances",
    "controls",
    "doubt_bound",
    "doubt_count",
    "doubts",
    "everyday",
    "fates",
    "fault_count",
    "kill_count",
    "ledger",
    "odds",
    "outages",
    "progress",
    "repeats",
    "result",
    "resume",
    "seeds",
    "table",
    "waiting",
    "wrapped",
]

MISSING = "Not part of this campaign."
OUTAGES = {
    "postgres": "PostgreSQL",
    "memory": "memory process",
    "model": "model server",
    "temporal": "Temporal server",
}
_EVERYDAY = "runs asked for by other runs"  # of the variety; a campaign without this figure had none of its kind
CLASSES = ("once", "keyed", "verifiable", "local_tx")

Json = dict[str, Any]


def result(data: Json) -> str:
    """Return the result in one table."""
    drives = data["drives"]
    return table(
        ("", ""),
        [
            ("drives, each from a seed of its own", len(data["seeds"])),
            ("faults", f"{fault_count(data):,} of {len(drives['faults'])} kinds, one every {_pace(data):.1f} s"),
            ("of these kill -9", f"{kill_count(data):,}"),
            ("guarded tool calls", f"{call_count(data):,} in {sum(drives['runs'].values()):,} runs"),
            ("took effect twice", f"**{drives['twice']}**"),
            ("lost", f"**{drives['lost']}**"),
            ("effects that no call asked for", drives["unasked"]),
            (
                "came in doubt",
                f"{doubt_count(drives):,}, of {doubt_bound(drives):,} that could have; [which](#in-doubt)",
            ),
            ("still in doubt at the end", sum(each[OPEN] for each in drives["fates"].values())),
            ("runs that ended otherwise than they should", _wrong(data, "4")),
            ("histories that replay", f"{drives['replayed']:,} of {drives['executions']:,}"),
        ],
    )


def everyday(data: Json) -> str:
    """Return what is said of the kinds that joined the suite later: of a campaign without them, that it had none."""
    what = "sub-agents, side by side and below one another; hand-offs; schedules; tools of MCP servers"
    if _EVERYDAY in data["drives"]["variety"]:
        said = "These also, with workers killed amid them: {}, whose processes are killed as well, and which change."
        return wrapped(said.format(what))
    return wrapped(
        f"**Not in this campaign**, which is older: {what}. The kinds of conversations for these, their faults and",
        "their assertions are part of every smoke drive, and will be of the next campaign.",
    )


def odds(data: Json) -> str:
    """Return what none of n tells: by the rule of three, 95 % confidence that the chance is below 3 / n."""
    drives, calls = data["drives"], max(1, call_count(data))
    if drives["twice"] or drives["lost"]:
        return ""
    return wrapped(
        f"None of {calls:,} is not never. If each call went wrong by the same chance, independently of the others,",
        f"that chance would be below {3 / calls:.2%} with 95 % confidence,",
        f"where a fault strikes every {_pace(data):.1f} s.",
    )


def fates(drives: Json) -> str:
    """Return what became of each call."""
    rows: list[Sequence[object]] = [
        (fate, *_each({name: drives["fates"][name][fate] for name in CLASSES})) for fate in FATES
    ]
    return table(("", *(f"`{name}`" for name in CLASSES), "all"), [*rows, ("**asked for**", *_each(drives["asked"]))])


def doubts(drives: Json) -> str:
    """Return what came in doubt, and what could have."""
    rows: list[Sequence[object]] = [("could have: sent, not completed, hit by a fault", *_each(drives["doubt_bound"]))]
    for what, words in (
        ("took place", "the effect had taken place"),
        ("never seen outside", "the request never arrived"),
    ):
        found = {name: drives["in_doubt"][name][what] for name in CLASSES}
        rows.append((f"came in doubt, {words}", *_each(found)))
    return table(("calls", *(f"`{name}`" for name in CLASSES), "all"), rows)


def _each(counts: Mapping[str, int]) -> list[str]:
    return [f"{counts[name]:,}" for name in CLASSES] + [f"{sum(counts.values()):,}"]


def repeats(data: Json) -> str:
    """Return what was repeated, and may be."""
    drives = data["drives"]
    frozen = sum(fates[FROZEN] for fates in drives["fates"].values())
    pure = drives["pure_sent"] - drives["pure_asked"]
    return table(
        ("", "times"),
        [
            ("`keyed` requests sent again, which the remote knew by their key", drives["keyed_repeats"]),
            ("`verifiable` calls doubled by a process frozen beyond lease and settle", frozen),
            ("`pure` calls sent again", f"{pure:,} of {drives['pure_asked']:,}"),
            (
                "model calls bought again before they were recorded",
                f"{drives['model_repeats']:,} of {drives['model_calls']:,}",
            ),
            ("model calls bought again although they were recorded", "see (11)" if _wrong(data, "11") else 0),
        ],
    )


def assertions(found: Sequence[Json]) -> str:
    """Return what was checked."""
    rows = [(each["number"], each["name"].replace("_", " "), each["says"], each["wrong"] or "none") for each in found]
    return table(("", "assertion", "what must hold", "violations"), rows)


def controls(found: Sequence[Json]) -> str:
    """Return what was found with each guard off and on."""
    rows = [
        (
            f"`{each['guard']}`: {each['says']}",
            _names(each["must_find"]),
            _names([name for name in each["off"] if name not in each["must_find"]]),
            _names(each.get("on", [])),
            "yes" if each["right"] else "**no**",
        )
        for each in found
    ]
    head = ("taken out", "has to be broken", "broken as well", "broken with the guard in place", "as it must")
    return table(head, rows) if rows else MISSING


def _names(assertions: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in assertions) or "nothing"


def ledger(found: Sequence[Json]) -> str:
    """Return what the state machine played."""
    if not found:
        return MISSING
    (one,) = found
    counts, wrong = one["counts"], one["failures"] + one["errors"]
    played = f"{counts.get('cases', 0):,} cases with {counts.get('calls', 0):,} calls in {one['seconds']:,.0f} s"
    return f"**{played}: {wrong or 'no'} violations.**"


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
            *(each[name] for name in ("twice", "lost", "in_doubt")),
            f"{each['load']:.1f}",
        )
        for each in sorted(found, key=lambda each: list(OUTAGES).index(each["label"].partition("-")[2]))
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
        "load",
    )
    return table(head, rows) if rows else MISSING


def waiting(found: Sequence[Json]) -> str:
    """Return what came of the runs that waited."""
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


def seeds(found: Sequence[Json]) -> str:
    """Return a line for each drive."""
    rows = [
        (
            *(each[name] for name in ("seed", "faults", "calls")),
            f"{each['seconds']:.0f} s",
            each["load"],
            "yes" if each["holds"] else "**no**",
        )
        for each in found
    ]
    return table(("seed", "faults", "guarded calls", "took", "load at its end", "all held"), rows)


def circumstances(data: Json) -> str:
    """Return when and on what all this was."""
    machine = data["machine"]
    rows = [
        ("date", f"{data['date']}, {data['minutes']} minutes in all"),
        ("machine", f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}"),
        *data["versions"].items(),
    ]
    return table(("", ""), rows)


# ---------------------------------------------------------------------------------------- small things


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _seconds(row: Json, *names: str) -> str:
    return ", ".join(f"{row[name]:.1f} s" for name in names)


def wrapped(*said: str) -> str:
    """Return a paragraph."""
    return textwrap.fill(" ".join(said), 120, break_long_words=False, break_on_hyphens=False)


def fault_count(data: Json) -> int:
    """Return how many faults struck."""
    return sum(data["drives"].get("faults", {}).values())


def kill_count(data: Json) -> int:
    """Return how many of them were kill -9, of whatever process."""
    return sum(times for kind, times in data["drives"]["faults"].items() if kind.startswith("kill -9"))


def call_count(data: Json) -> int:
    """Return how many guarded calls were asked for."""
    return sum(data["drives"].get("asked", {}).values())


def doubt_bound(drives: Json) -> int:
    """Return how many calls could have come in doubt."""
    return sum(drives["doubt_bound"].values())


def doubt_count(drives: Json) -> int:
    """Return how many did."""
    return sum(sum(each.values()) for each in drives["in_doubt"].values())


def _wrong(data: Json, number: str) -> int:
    return sum(int(each["wrong"]) for each in data["assertions"] if each["number"] == number)


def _pace(data: Json) -> float:
    """Return the seconds from one fault to the next."""
    return float(data["drives"].get("seconds", 0.0)) / max(1, fault_count(data))
