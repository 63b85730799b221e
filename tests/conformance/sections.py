"""The figures of the conformance page: each function fills one hole of page.md. `report` calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.figures import FATES, FROZEN, OPEN
from tests.conformance.tables import MISSING, table, wrapped

__all__ = [
    "assertions",
    "attempts",
    "call_count",
    "circumstances",
    "controls",
    "doubt_bound",
    "doubt_count",
    "doubts",
    "excused",
    "exposure",
    "fates",
    "fault_count",
    "kill_count",
    "ledger",
    "odds",
    "repeats",
    "result",
    "seeds",
]

_DOUBLED = "doubled, "  # begins the name of each count of the ledger machine that says why a repeat was excused
CLASSES = ("once", "keyed", "verifiable", "local_tx")

Json = dict[str, Any]


def result(data: Json) -> str:
    """Return the result in one table."""
    drives = data["drives"]
    hits = drives["variety"]["kills and freezes that hit a guarded call in flight"]
    return table(
        ("", ""),
        [
            ("commit", f"`{data['commit']}`, without local changes"),
            ("programs that were run, each once", f"{len(data['attempts'])}; {len(data['failed'])} did not hold"),
            ("drives, each with a seed derived from the commit", len(data["seeds"])),
            ("faults", f"{fault_count(data):,} of {len(drives['faults'])} kinds, one every {_pace(data):.1f} s"),
            ("of these kill -9", f"{kill_count(data):,}"),
            ("kills and freezes of a worker with a guarded call in flight", f"{hits:,}"),
            ("guarded tool calls in flight that a fault hit", f"**{exposure(data):,}**"),
            ("times that another worker took over a call", f"{drives['taken_over']:,}"),
            ("guarded tool calls in all", f"{call_count(data):,} in {sum(drives['runs'].values()):,} runs"),
            ("took effect twice", f"**{drives['twice']}**"),
            ("lost", f"**{drives['lost']}**"),
            ("effects that no call asked for", drives["unasked"]),
            (
                "came in doubt",
                f"{doubt_count(drives):,}, of {doubt_bound(drives):,} that could have; [which](#in-doubt)",
            ),
            ("still in doubt at the end", sum(each[OPEN] for each in drives["fates"].values())),
            ("runs that ended otherwise than they should", _wrong(data, "4")),
            ("runs that had not ended when the client's timeout expired", _wrong(data, "18")),
            ("histories that replay", f"{drives['replayed']:,} of {drives['executions']:,}"),
            ("replays that hung, and were tried once more", drives["replay_hangs"]),
            (
                "processes that ended by themselves, and were started again",
                ", ".join(f"{times:,} {when}" for when, times in sorted(drives["exits"].items())) or "0",
            ),
            (
                "time in which the machine was overloaded",
                f"{drives['starved_s']:.0f} s, {starved(data):.1%} of the drives'",
            ),
        ],
    )


def started(data: Json) -> str:
    """Return how workers were started."""
    if data["subject"]["fork"]:
        return wrapped(
            "Workers were forked from a process that had imported everything, which spares seconds of start; what they",
            "run is the same. They are started again as by the product's supervisor, with its pauses.",
        )
    return wrapped(
        "Workers are started as the product's supervisor starts them, each as a new process, and started again when",
        "they end, with its pauses.",
    )


def missed(drives: Json) -> str:
    """Return which faults found nobody to strike."""
    rows = sorted(drives["missed"].items())
    return table(("fault that found no target and was tried again", "times"), rows) if rows else ""


def odds(data: Json) -> str:
    """Return what none of n tells: by the rule of three, 95 % confidence that the chance is below 3 / n."""
    drives, hit = data["drives"], max(1, exposure(data))
    if drives["twice"] or drives["lost"]:
        return ""
    return wrapped(
        f"None of {hit:,} does not mean never. If each call in flight that a fault hits goes wrong with the same "
        "probability,",
        f"independently of the others, that probability is below {3 / hit:.1%} with 95 % confidence. Calls that no "
        "fault hit",
        "say nothing about this and are not counted here.",
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


def resolved(drives: Json) -> str:
    """Return how calls came out of doubt, and who said so."""
    rows = sorted(drives["resolved"].items())
    return table(("how a doubt was settled", "times"), rows) if rows else ""


def excused(drives: Json) -> str:
    """Return what the assertions let pass, each tied to the fault that accounts for it."""
    found: Mapping[str, Mapping[str, int]] = drives["excused"]
    rows = [(what, cause, times) for what, causes in sorted(found.items()) for cause, times in sorted(causes.items())]
    return table(("what", "accounted for by", "times"), rows) if rows else "Nothing."


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
                "model calls made again",
                f"{drives['model_repeats']:,} of {drives['model_calls']:,}",
            ),
            ("of these although they were recorded", drives["model_again"]),
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
    found = [each for each in found if "counts" in each]
    if not found:
        return MISSING
    (one,) = found
    counts, wrong = one["counts"], one["failures"] + one["errors"]
    played = f"{counts.get('cases', 0):,} cases with {counts.get('calls', 0):,} calls in {one['seconds']:,.0f} s"
    doubled = [
        (name.removeprefix(_DOUBLED), times) for name, times in sorted(counts.items()) if name.startswith(_DOUBLED)
    ]
    said = f"**{played}: {wrong or 'no'} violations; {sum(times for _, times in doubled)} calls doubled and excused.**"
    return f"{said}\n\n{table(('took effect twice, and the sender was', 'calls'), doubled)}" if doubled else said


def seeds(found: Sequence[Json]) -> str:
    """Return a line for each drive."""
    rows = [
        (
            *(each[name] for name in ("seed", "faults", "exposed", "calls")),
            f"{each['seconds']:.0f} s",
            f"{each['starved_s']:.0f} s",
            "yes" if each["holds"] else "**no**",
        )
        for each in found
    ]
    head = ("seed", "faults", "calls in flight that were hit", "guarded calls", "took", "without time", "all held")
    return table(head, rows)


def attempts(data: Json) -> str:
    """Return a line for each program that was run, whatever came of it, and what was not."""
    rows: list[Sequence[object]] = [
        (
            each["label"],
            each["at"].replace("+00:00", "Z"),
            f"{each['seconds']:.0f} s",
            f"{each['load_before']}, {'-' if each['load_after'] is None else each['load_after']}",
            "yes" if each["holds"] else f"**no**: {each['error']}",
        )
        for each in data["attempts"]
    ]
    rows += [(label, "not played", "", "", "") for label in data["not_played"]]
    return table(("program", "began", "took", "load before, after", "all held"), rows)


def circumstances(data: Json) -> str:
    """Return when and on what all this was."""
    machine = data["machine"]
    rows = [
        ("commit", data["commit"]),
        ("date", f"{data['date']}, {data['minutes']} minutes in all"),
        ("machine", f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}"),
        *data["versions"].items(),
    ]
    return table(("", ""), rows)


# ---------------------------------------------------------------------------------------- single figures


def fault_count(data: Json) -> int:
    """Return how many faults struck."""
    return sum(data["drives"].get("faults", {}).values())


def kill_count(data: Json) -> int:
    """Return how many of them were kill -9, of whatever process."""
    return sum(times for kind, times in data["drives"]["faults"].items() if kind.startswith("kill -9"))


def call_count(data: Json) -> int:
    """Return how many guarded calls were asked for."""
    return sum(data["drives"].get("asked", {}).values())


def exposure(data: Json) -> int:
    """Return how many guarded calls were in flight when a fault hit them."""
    return sum(data["drives"].get("exposed", {}).values())


def starved(data: Json) -> float:
    """Return the share of the drives' time in which the machine had none."""
    return float(data["drives"].get("starved_s", 0.0)) / max(1.0, float(data["drives"].get("seconds", 0.0)))


def person_count(drives: Json) -> int:
    """Return how many doubts the person of the suite settled."""
    return sum(int(times) for how, times in drives["resolved"].items() if how.endswith("by a person"))


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
