"""Renders the data of a campaign as docs/reference/conformance.md and README.md's figures; nothing else writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conformance import sections, sections_times, tables
from tests.conformance.processes import ROOT

__all__ = ["DATA", "PAGE", "README", "readme", "render", "shortfalls", "write"]

PAGE = ROOT / "docs" / "reference" / "conformance.md"
DATA = PAGE.with_suffix(".json")
README = ROOT / "README.md"
TEMPLATE = Path(__file__).with_name("page.md")
HOLE = re.compile(r"\{\{(\w+)\}\}")
MARKED = re.compile(r"(?<=<!-- conformance -->\n).*?(?=<!-- /conformance -->)", re.DOTALL)

# What a campaign must show. The page of one that shows less says so on top, and is published all the same.
SEEDS, FAULTS, EXPOSED, WAITING, DRAIN = 3, 140, 150, 200, 2.0
OUTAGES = {"postgres": 60, "memory": 60, "model": 60, "temporal": 30}  # seconds
STARVED = 0.05  # of the time of the drives, at most: faults on a machine that has no time prove little

Json = dict[str, Any]


def write(data: Json, folder: Path) -> None:
    """Write data and page into the folder; into the documents' own, the README's figures too."""
    (folder / DATA.name).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (folder / PAGE.name).write_text(render(data), encoding="utf-8")
    if folder == PAGE.parent:
        README.write_text(MARKED.sub(lambda _: readme(data), README.read_text(encoding="utf-8")), encoding="utf-8")


def shortfalls(data: Json) -> list[str]:
    """Return what a whole campaign that held shows, and this one does not."""
    if "withdrawn" in data:
        return [data["withdrawn"]]
    drives = data["drives"]
    short = [] if data["scale"] == "campaign" else [f"its plan is: {data['scale']}"]
    short += [
        f"{each['label']} does not hold: {each['error']}"
        for each in data["attempts"]
        if each["label"] in data["failed"]
    ]
    short += [f"{label} was not played" for label in data["not_played"]]
    faults, exposed = sections.fault_count(data), sections.exposure(data)
    counted = (
        ("seeds", len(data["seeds"]), SEEDS),
        ("faults", faults, FAULTS),
        ("calls in flight that a fault hit", exposed, EXPOSED),
    )
    short += [f"{found:,} {name} instead of {wanted:,}" for name, found, wanted in counted if found < wanted]
    short += [f"{kind}: planned, and never struck" for kind in data["planned"] if not drives["faults"].get(kind)]
    starved = sections.starved(data)
    if starved > STARVED:
        short.append(
            f"the machine was overloaded for {starved:.1%} of the drives' time; at most {STARVED:.0%} is allowed"
        )
    short += [
        f"{drives[name]} calls {word}"
        for name, word in (("twice", "took effect twice"), ("lost", "were lost"), ("unasked", "took effect unasked"))
        if drives.get(name)
    ]
    short += [
        f"({each['number']}) {each['name'].replace('_', ' ')}: {each['wrong']} violations"
        for each in data["assertions"]
        if each["wrong"]
    ]
    waited = max((each.get("runs", 0) for each in data["waiting"]), default=WAITING)
    short += [f"{waited:,} waiting runs instead of {WAITING:,}"] if waited < WAITING else []
    return short + _late(data["resume"]) + _undrained(data["outages"])


def _undrained(found: Sequence[Json]) -> list[str]:
    """Return which outages were shorter than they should be, or took too long to be made up for."""
    short: list[str] = []
    for each in found:
        what = each["label"].partition("-")[2]
        name, seconds = sections_times.OUTAGES[what], OUTAGES[what]
        if each.get("seconds", 0) < seconds:
            short.append(f"{name} gone for {each.get('seconds', 0):g} s instead of {seconds} s")
        if what != "temporal" and (each.get("ratio") or DRAIN + 1) > DRAIN:
            short.append(f"{name}: drained in {each.get('ratio')} times the outage instead of {DRAIN:g}")
    return short


def readme(data: Json) -> str:
    """Return the README's figures."""
    link = "[conformance suite](docs/reference/conformance.md)"
    if "withdrawn" in data:
        said = [
            f"The {link} kills, freezes and disconnects every part of the product under load, and an auditor that",
            "shares no code with the product checks the results. The tests run one seed of it.",
            f"**No campaign results are published.** {data['withdrawn']}",
            "`./scripts/conformance --campaign` runs one.",
        ]
    else:
        drives, short = data["drives"], shortfalls(data)
        said = [
            f"{'A trial' if data['scale'] != 'campaign' else 'The last campaign'} of the {link}",
            f"({data['date']}, commit `{data['commit'][:12]}`): {sections.fault_count(data):,} faults,",
            f"{sections.kill_count(data):,} of them kill -9, hit {sections.exposure(data):,} tool calls in flight.",
            f"**{drives['twice']} took effect twice, {drives['lost']} were lost**;",
            f"{sections.doubt_count(drives):,} were in doubt, and {sections.person_count(drives):,} of these were",
            "settled by the suite acting as a person, who looked each one up outside, as somebody has to in "
            "production.",
            *([f"**It did not meet {len(short)} of its criteria**, which its page lists."] if short else []),
            "`./scripts/conformance --campaign` repeats it.",
        ]
    return tables.wrapped(*said) + "\n"


def render(data: Json) -> str:
    """Return the page."""
    holes = _withdrawn(data) if "withdrawn" in data else _holes(data)
    page = TEMPLATE.read_text(encoding="utf-8")
    page = HOLE.sub(lambda hole: holes[hole[1]], page)
    return re.sub(r"\n{3,}", "\n\n", page)


def _withdrawn(data: Json) -> dict[str, str]:
    holes = dict.fromkeys(HOLE.findall(TEMPLATE.read_text(encoding="utf-8")), "No figures yet.")
    holes |= dict.fromkeys(("missing", "missed", "odds", "started", "resolved", "seeds", "circumstances"), "")
    holes["short"] = "\n" + tables.wrapped("**No campaign is published.**", data["withdrawn"])
    return {**holes, **{name: str(value) for name, value in data["subject"].items()}, "seed": "7"}


def _holes(data: Json) -> dict[str, str]:
    drives = data["drives"]
    return {
        "short": _short(data),
        "result": sections.result(data),
        "odds": sections.odds(data),
        "kinds": str(data["subject"]["kinds"]),
        "at_once": str(data["subject"]["at_once"]),
        "started": sections.started(data),
        "faults": tables.table(("fault", "times"), sorted(drives["faults"].items())),
        "missed": sections.missed(drives),
        "missing": "".join(f"- not on this machine: {name}\n" for name in data["missing"]),
        "variety": tables.table(("", ""), list(drives["variety"].items())),
        "fates": sections.fates(drives),
        "doubts": sections.doubts(drives),
        "resolved": sections.resolved(drives),
        "repeats": sections.repeats(data),
        "excused": sections.excused(drives),
        "assertions": sections.assertions(data["assertions"]),
        "controls": sections.controls(data["controls"]),
        "ledger": sections.ledger(data["ledger"]),
        "resume": sections_times.resume(data["resume"]),
        "progress": sections_times.progress(drives),
        "outages": sections_times.outages(data["outages"]),
        "waiting": sections_times.waiting(data["waiting"]),
        "seed": str(data["seeds"][0]["seed"]),
        "seeds": sections.seeds(data["seeds"]),
        "attempts": sections.attempts(data),
        "circumstances": sections.circumstances(data),
    }


def _short(data: Json) -> str:
    lines = shortfalls(data)
    head = "**This is not a whole campaign, or not one in which everything held:**"
    return "\n".join(["", head, "", *(f"- {line}" for line in lines)]) if lines else ""


def _late(found: Sequence[Json]) -> list[str]:
    """Return where the promise was not kept on a quiet machine."""
    return [
        f"killed {where}: {name} {row[name]:.1f} s instead of {most:g} s"
        for each in found
        if not each["busy"] and "killed" in each
        for where, place in each["killed"]["places"].items()
        if place["promised"]
        for row in [place["step"]]
        for name, most in each["killed"]["promised"].items()
        if row[name] > most
    ]
