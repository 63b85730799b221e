"""Renders the data of a campaign as docs/reference/conformance.md and README.md's figures; nothing else writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conformance import sections
from tests.conformance.processes import ROOT

__all__ = ["DATA", "PAGE", "README", "readme", "render", "shortfalls", "write"]

PAGE = ROOT / "docs" / "reference" / "conformance.md"
DATA = PAGE.with_suffix(".json")
README = ROOT / "README.md"
TEMPLATE = Path(__file__).with_name("page.md")
MARKED = re.compile(r"(?<=<!-- conformance -->\n).*?(?=<!-- /conformance -->)", re.DOTALL)

SEEDS, FAULTS, CALLS, WAITING, DRAIN = 5, 200, 2000, 1000, 2.0  # what a campaign must show
OUTAGES = {"postgres": 300, "memory": 300, "model": 300, "temporal": 60}  # seconds

Json = dict[str, Any]


def write(data: Json, folder: Path) -> None:
    """Write data and page into the folder; into the documents' own, the README's figures too."""
    (folder / DATA.name).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (folder / PAGE.name).write_text(render(data), encoding="utf-8")
    if folder == PAGE.parent:
        README.write_text(MARKED.sub(lambda _: readme(data), README.read_text(encoding="utf-8")), encoding="utf-8")


def shortfalls(data: Json) -> list[str]:
    """Return what a whole campaign shows and this one does not."""
    short = [] if data["scale"] == "campaign" else [f"its plan is: {data['scale']}"]
    short += [f"{label} does not hold" for label in data["failed"]]
    faults, calls = sections.fault_count(data), sections.call_count(data)
    counted = (("seeds", len(data["seeds"]), SEEDS), ("faults", faults, FAULTS), ("calls", calls, CALLS))
    short += [f"{found:,} {name} instead of {wanted:,}" for name, found, wanted in counted if found < wanted]
    short += [f"{name}: no result" for name in ("controls", "ledger", "resume", "waiting") if not data[name]]
    short += [
        f"{data['drives'][name]} calls {word}"
        for name, word in (("twice", "took effect twice"), ("lost", "were lost"), ("unasked", "took effect unasked"))
        if data["drives"].get(name)
    ]
    waited = max((each.get("runs", 0) for each in data["waiting"]), default=WAITING)
    short += [f"{waited:,} waiting runs instead of {WAITING:,}"] if waited < WAITING else []
    short += _late(data["resume"])
    outages = {each["label"].partition("-")[2]: each for each in data["outages"]}
    for what, seconds in OUTAGES.items():
        name = sections.OUTAGES[what]
        found = outages.get(what, {"seconds": 0})
        if found["seconds"] < seconds:
            short.append(f"{name} gone for {found['seconds']:g} s instead of {seconds} s")
        if what != "temporal" and (found.get("ratio") or DRAIN + 1) > DRAIN:
            short.append(f"{name}: drained in {found.get('ratio')} times the outage instead of {DRAIN:g}")
    return short


def readme(data: Json) -> str:
    """Return the README's figures."""
    drives, faults, calls = data["drives"], sections.fault_count(data), sections.call_count(data)
    kills = sections.kill_count(data)
    said = (
        f"{'A trial' if shortfalls(data) else 'The last campaign'} of the",
        "[conformance suite](docs/reference/conformance.md)",
        f"({data['date']}): {faults:,} faults, {kills:,} of them kill -9, against {calls:,}",
        f"tool calls that have an effect. **{drives['twice']} took effect twice, {drives['lost']} were lost**;",
        f"{sections.doubt_count(drives):,} came in doubt, of {sections.doubt_bound(drives):,} that could have.",
        "`./scripts/conformance --campaign` repeats it.",
    )
    return sections.wrapped(*said) + "\n"


def render(data: Json) -> str:
    """Return the page."""
    drives = data["drives"]
    holes = {
        "shortfalls": _short(data),
        "result": sections.result(data),
        "odds": sections.odds(data),
        **{name: str(value) for name, value in data["subject"].items()},
        "everyday": sections.everyday(data),
        "faults": sections.table(("fault", "times"), sorted(drives["faults"].items())),
        "missing": "".join(f"- not on this machine: {name}\n" for name in data["missing"]),
        "variety": sections.table(("", ""), list(drives["variety"].items())),
        "fates": sections.fates(drives),
        "doubts": sections.doubts(drives),
        "repeats": sections.repeats(data),
        "assertions": sections.assertions(data["assertions"]),
        "controls": sections.controls(data["controls"]),
        "ledger": sections.ledger(data["ledger"]),
        "resume": sections.resume(data["resume"]),
        "progress": sections.progress(drives),
        "outages": sections.outages(data["outages"]),
        "waiting": sections.waiting(data["waiting"]),
        "seed": str(data["seeds"][0]["seed"]),
        "seeds": sections.seeds(data["seeds"]),
        "circumstances": sections.circumstances(data),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda hole: holes[hole[1]], page)
    return re.sub(r"\n{3,}", "\n\n", page)


def _short(data: Json) -> str:
    lines = shortfalls(data)
    head = "**This is not a whole campaign, or not one that held:**"
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
