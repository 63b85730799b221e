"""Sums the results in a campaign's folder up into the data of the report: small, and without a path or a name in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.conformance import commit
from tests.conformance.figures import quantile

__all__ = ["gather"]

Json = dict[str, Any]


def gather(folder: Path) -> Json:
    """Return the data of the report from all results in the folder."""
    about = commit.read(folder)
    if about is None:
        raise SystemExit(f"{folder} is no campaign's: scripts/conformance --campaign --out {folder} makes one")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    found = {each["label"]: each for each in results if "label" in each}  # the report's own data has no label
    strange = [label for label, each in found.items() if each["commit"] != about["commit"]]
    if strange:
        raise SystemExit(f"{', '.join(strange)} in {folder} is of another commit than {about['commit']}")
    parts: dict[str, list[Json]] = {}
    for each in found.values():
        parts.setdefault(each["part"], []).append(each)
    # A drive whose auditor failed, or that left nothing, has no figures: it is among the attempts, as failed.
    seeds = [each for each in parts.get("seeds", []) if "assertions" in each["figures"]]
    if not seeds:
        raise SystemExit(f"there is no drive in {folder}: scripts/conformance --campaign --part seeds --out {folder}")
    attempts = sorted(found.values(), key=lambda each: str(each["at"]))
    last = attempts[-1]
    return {
        "commit": about["commit"],
        "scale": about["scale"],
        "date": about["began"][:10],
        "attempts": [_attempt(each) for each in attempts],
        "not_played": [label for label in about["planned"] if label not in found],
        "minutes": round(sum(each["seconds"] for each in found.values()) / 60),
        "machine": last["machine"],
        "versions": seeds[-1]["figures"]["versions"],
        "failed": [each["label"] for each in attempts if not each["holds"]],
        "subject": seeds[-1]["figures"]["subject"],
        "missing": sorted({name for each in seeds for name in each["figures"]["missing"]}),
        "planned": sorted({name for each in seeds for name in each["figures"]["planned"]}),
        "seeds": [_seed(each) for each in seeds],
        "drives": _drives([each["figures"] for each in seeds]),
        "assertions": _assertions([each["figures"] for each in seeds]),
        "controls": _controls(
            [row for each in parts.get("controls", []) for row in each["figures"].get("controls", [])]
        ),
        "ledger": [{**_numbers(each["figures"]), "seconds": each["seconds"]} for each in parts.get("ledger", [])],
        "resume": [_resume(each) for each in parts.get("resume", [])],
        "waiting": [_plain(each) for each in parts.get("waiting", [])],
        "outages": [_plain(each) for each in parts.get("outages", [])],
    }


def _attempt(result: Json) -> Json:
    """Return what is shown of every program that was run, whatever came of it."""
    shown = ("label", "at", "seconds", "load_before", "load_after", "holds", "error")
    return {name: result[name] for name in shown}


def _seed(result: Json) -> Json:
    figures = result["figures"]
    return {
        "seed": result["seed"],
        "faults": sum(figures["faults"].values()),
        "calls": sum(figures["asked"].values()),
        "seconds": figures["seconds"],
        "exposed": sum(figures["exposed"].values()),
        "starved_s": figures["starved_s"],
        "load": result["load_after"],
        "holds": result["holds"],
    }


def _drives(figures: Sequence[Json]) -> Json:
    """Return the sum of all that is counted, and what describes the spans."""
    total: Json = {}
    for each in figures:
        counted = {
            name: value
            for name, value in each.items()
            if name not in ("holds", "assertions", "versions", "subject", "missing", "planned")
        }
        total = _add(total, counted)
    total["seconds"] = round(total.get("seconds", 0), 1)
    total["progress_s"] = {name: _spread(spans) for name, spans in total.get("progress_s", {}).items() if spans}
    return total


def _add(one: Any, other: Any) -> Any:  # Any: JSON of the same shape
    if isinstance(other, dict):
        known: Json = one or {}
        return {name: _add(known.get(name), other.get(name)) for name in {**known, **other}}
    if other is None or one is None:
        return one if other is None else other
    return one + other


def _spread(spans: Sequence[float]) -> dict[str, float]:
    p50, p95 = quantile(spans, 0.5), quantile(spans, 0.95)
    return {"n": len(spans), "p50": round(p50, 2), "p95": round(p95, 2), "max": round(max(spans), 2)}


def _assertions(figures: Sequence[Json]) -> list[Json]:
    found: dict[str, Json] = {}
    for each in figures:
        for row in each["assertions"]:
            kept = found.setdefault(row["name"], {**{k: row[k] for k in ("number", "name", "says")}, "wrong": 0})
            kept["wrong"] += len(row["wrong"])
    return list(found.values())


def _controls(rows: Sequence[Json]) -> list[Json]:
    """Return one row a guard: what must be found and was with it off, and what was found with it on."""
    found: dict[str, Json] = {}
    for row in rows:
        kept = found.setdefault(row["guard"], {"guard": row["guard"], "right": True})
        kept["right"] = kept["right"] and row["right"]
        if row["on"]:
            kept["on"] = row["found"]
        else:
            kept |= {"says": row["off"], "must_find": row["must_find"], "off": row["found"]}
    return list(found.values())


def _resume(result: Json) -> Json:
    """Return what was measured beside so many busy processes; a part that failed measured nothing."""
    (found,) = result["figures"].get("raw") or [{}]
    return {"busy": result["busy"], "holds": result["holds"], **_numbers(found)}


def _plain(result: Json) -> Json:
    """Return the numbers of a result, and its name."""
    return {
        "label": result["label"],
        "holds": result["holds"],
        "load": result["load_after"],
        **_numbers(result["figures"]),
    }


def _numbers(figures: Mapping[str, Any]) -> Json:
    found: Json = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            found[name] = _numbers(value)
        elif value is None or isinstance(value, int | float):
            found[name] = round(value, 3) if isinstance(value, float) else value
    return found
