"""The parts of a campaign: which programs it runs, one after the other, and the folder each result goes to at once.

`python -m tests.conformance --campaign` uses it. A campaign is of one commit. Its parts may be played one by one into
one folder, each of them once: what came of a part stands, also when it failed, hung or was interrupted.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil

from tests.conformance import commit as commits
from tests.conformance.processes import ROOT

__all__ = ["CAMPAIGN", "PARTS", "TRIAL", "Result", "Scale", "Step", "play"]

GRACE = 60.0  # seconds for a program to clean up when its time is over

Result = dict[str, Any]  # JSON


@dataclass(frozen=True)
class Scale:
    """How much of everything. Times in seconds."""

    name: str  # of the plan of each seed, too
    seeds: int
    outage: float  # PostgreSQL, memory process, model server
    cut_off: float  # Temporal
    waiting: int  # runs on an approval
    kills: int  # at each place, for the resume figures of a quiet machine; half of it on a loaded one
    loads: tuple[int, ...]  # busy processes beside them; 0 is a quiet machine
    cases: int  # of the ledger's state machine, for each class


# About 40 minutes on two cores that have nothing else to do.
CAMPAIGN = Scale("campaign", seeds=3, outage=60, cut_off=30, waiting=200, kills=1, loads=(0,), cases=400)
TRIAL = Scale("trial", seeds=1, outage=10, cut_off=10, waiting=20, kills=1, loads=(0,), cases=20)


@dataclass(frozen=True)
class Step:
    """One program of a part. It writes *file*, which *read* turns into JSON."""

    part: str
    label: str  # names its result in the folder
    arguments: tuple[str, ...]  # to Python
    limit: float  # seconds
    file: Path
    read: Callable[[Path], Result] = lambda path: json.loads(path.read_text(encoding="utf-8"))
    environment: dict[str, str] = field(default_factory=dict)
    about: Result = field(default_factory=dict)  # goes into its result


def _seeds(scale: Scale, folder: Path, commit: str) -> list[Step]:
    steps = []
    for number in range(1, scale.seeds + 1):
        seed, file = commits.seed(commit, number), folder / f"seed-{number}.raw"
        arguments = ("-m", "tests.conformance", f"--{scale.name}", "--seed", str(seed), "--json", str(file))
        steps.append(Step("seeds", f"seed-{number}", arguments, 1200, file, about={"seed": seed}))
    return steps


def _controls(scale: Scale, folder: Path, _: str) -> list[Step]:
    file = folder / "controls.raw"
    return [Step("controls", "controls", ("-m", "tests.conformance", "--controls", "--json", str(file)), 1200, file)]


def _outages(scale: Scale, folder: Path, _: str) -> list[Step]:
    steps = []
    for what in ("postgres", "memory", "model", "temporal"):
        seconds, file = scale.cut_off if what == "temporal" else scale.outage, folder / f"outage-{what}.raw"
        arguments = ("-m", "tests.conformance.outages", "--what", what, "--seconds", f"{seconds:g}", "--out", str(file))
        steps.append(Step("outages", f"outage-{what}", arguments, 6 * seconds + 600, file))
    return steps


def _waiting(scale: Scale, folder: Path, _: str) -> list[Step]:
    file = folder / "waiting.raw"
    arguments = ("-m", "tests.conformance.waiting", "--runs", str(scale.waiting), "--out", str(file))
    return [Step("waiting", "waiting", arguments, 2400, file)]


def _resume(scale: Scale, folder: Path, _: str) -> list[Step]:
    steps = []
    for load in scale.loads:
        file, rounds = folder / f"resume-{load}.raw", max(1, scale.kills // 2) if load else scale.kills
        given = ("--rounds", str(rounds), "--load", str(load), "--out", str(file))
        step = Step("resume", f"resume-{load}", ("-m", "scripts.bench_kit", "resume", *given), 2400, file)
        steps.append(replace(step, about={"busy": load}))
    return steps


def _ledger(scale: Scale, folder: Path, _: str) -> list[Step]:
    file = folder / "ledger.raw"
    arguments = ("-m", "pytest", "tests/conformance/ledger", "-q", "-p", "no:cacheprovider", f"--junitxml={file}")
    given = {"HOLDFAST_EXAMPLES": str(scale.cases)}
    return [Step("ledger", "ledger", arguments, 3600, file, _junit, given, {"cases_per_class": scale.cases})]


PARTS: dict[str, Callable[[Scale, Path, str], list[Step]]] = {
    "seeds": _seeds,
    "controls": _controls,
    "ledger": _ledger,
    "resume": _resume,
    "waiting": _waiting,
    "outages": _outages,
}


def _junit(path: Path) -> Result:
    """Return how many tests passed and failed, and what they counted."""
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None
    found = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    counts = {each.get("name", ""): int(each.get("value", "0")) for each in suite.iter("property")}
    return {**found, "counts": counts}


def play(scale: Scale, parts: Sequence[str], folder: Path, root: Path = ROOT) -> bool:
    """Run these parts, write each result into the folder as it comes; return whether all of them hold.

    Raises:
        SystemExit: this is no state in which a campaign may begin, or go on; see `commit.begin`.

    """
    planned = {part: [step.label for step in PARTS[part](scale, folder, "")] for part in PARTS}
    chosen = [label for part in parts for label in planned[part]]
    commit = commits.begin(folder, scale.name, chosen, [label for labels in planned.values() for label in labels], root)
    steps = [step for part in parts for step in PARTS[part](scale, folder, commit)]
    began, held = time.monotonic(), True
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.label}"
        _say(f"\n{head}: begins, with {step.limit / 60:.0f} minutes at most")
        result = _run(step, scale, folder, commit)
        held = held and result["holds"]
        word = "holds" if result["holds"] else "DOES NOT HOLD"
        so_far = (time.monotonic() - began) / 60
        _say(f"{head}: {word}, {result['seconds']:.0f} s; {so_far:.0f} minutes so far; results in {folder}")
    return held


def _run(step: Step, scale: Scale, folder: Path, commit: str) -> Result:
    began = time.monotonic()
    result: Result = {
        "part": step.part,
        "label": step.label,
        "scale": scale.name,
        "commit": commit,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "load_before": round(os.getloadavg()[0], 1),
        "load_after": None,
        "machine": _machine(),
        "holds": False,
        "error": "it was interrupted",  # what stands if nobody is left to write more
        **step.about,
        "figures": {},
    }
    kept = folder / f"{step.label}.json"
    kept.write_text(json.dumps(result, indent=1), encoding="utf-8")
    step.file.unlink(missing_ok=True)
    code = _watch(step, folder)
    try:
        figures, error = step.read(step.file), ""
    except (OSError, ValueError, ElementTree.ParseError) as exc:
        figures, error = {}, f"it left no result: {type(exc).__name__}"
    step.file.unlink(missing_ok=True)
    result |= {
        "seconds": round(time.monotonic() - began, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "holds": code == 0 and not error,
        "error": error or ("" if code == 0 else f"it ended with code {code}"),
        "figures": figures,
    }
    kept.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _watch(step: Step, folder: Path) -> int:
    """Run the program, show what it says and keep it; return its exit code."""
    process = subprocess.Popen(
        [sys.executable, *step.arguments],
        cwd=ROOT,
        env={**os.environ, **step.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C comes here, and goes on to it once
    )

    def show() -> None:
        assert process.stdout is not None
        with process.stdout as said, (folder / f"{step.label}.txt").open("w", 1, encoding="utf-8") as kept:
            for line in said:
                kept.write(line)
                sys.stdout.write(line)
                sys.stdout.flush()

    reader = threading.Thread(target=show, daemon=True)
    reader.start()
    try:
        code = process.wait(step.limit)
    except subprocess.TimeoutExpired:
        _say(f"{step.label}: its time is over")
        code = _stop(process)
    except KeyboardInterrupt:
        _stop(process)
        raise
    reader.join(timeout=10)
    return code


def _stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return 1


def _machine() -> Result:
    memory = round(psutil.virtual_memory().total / 2**30)
    return {"cores": os.cpu_count(), "memory_gib": memory, "system": f"{platform.system()} {platform.machine()}"}


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
