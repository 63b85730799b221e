"""`scripts/conformance`: the suite outside pytest, on servers of its own; one seed, all guards, or a whole campaign."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import temporalio.service
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client

import holdfast
from tests.conformance import controls, gather, parts, report
from tests.conformance.controls import CONTROLS, Control
from tests.conformance.drive import CAMPAIGN, SMOKE, Plan, conduct
from tests.conformance.servers import Ground, ground
from tests.conformance.subject import KINDS
from tests.conformance.switches import SWITCHES

TRIAL = replace(SMOKE, name="trial", faults=12, calls=80)
PLANS = {plan.name: plan for plan in (SMOKE, CAMPAIGN, TRIAL)}
SCALES = {scale.name: scale for scale in (parts.CAMPAIGN, parts.TRIAL)}
CONTROLS_AT_ONCE = 2  # they wait for leases and heartbeats most of their time
USAGE = "scripts/conformance [--seed N] [--smoke | --campaign | --trial | --controls | --report FOLDER]"


async def check_controls() -> tuple[bool, parts.Result]:
    """Play every control with its guard off and on; return whether each came out as it must, and what was found."""
    room = asyncio.Semaphore(CONTROLS_AT_ONCE)
    async with ground() as given:

        async def one(control: Control, guarded: bool) -> parts.Result:
            async with room:
                return await _played(given, control, guarded=guarded)

        asked = [one(control, guarded) for control in CONTROLS for guarded in (False, True)]
        played = await asyncio.gather(*asked)
    return all(each["right"] for each in played), {"controls": played}


async def _played(given: Ground, control: Control, *, guarded: bool) -> parts.Result:
    found, right, word = await _play_control(given, control, guarded=guarded)
    said = ", ".join(found) or "nothing"
    _say(f"{control.name:<26} {'on ' if guarded else 'off'}  auditor finds {said}: {word}")
    return {
        "guard": control.name,
        "off": "" if guarded else (SWITCHES[f"off:{control.guard}"].__doc__ or "").strip(),
        "on": guarded,
        "must_find": [] if guarded else sorted(control.caught_by),
        "found": found,
        "right": right,
    }


async def _play_control(given: Ground, control: Control, *, guarded: bool) -> tuple[list[str], bool, str]:
    try:
        verdict = await controls.play(given, control, guarded=guarded)
    except Exception as exc:  # one that does not come to its end loses no other
        return [], False, f"WRONG, {type(exc).__name__}: {exc}"
    right = verdict.fits(control, guarded=guarded)
    return sorted(verdict.wrong), right, "as it must" if right else f"WRONG\n{verdict.table}"


async def play(plan: Plan, seed: int) -> tuple[bool, parts.Result]:
    """Drive through the plan with a seed; return whether the auditor found nothing wrong, and the figures."""
    async with ground() as given:
        _say(f"conformance {plan.name}: --seed {seed}")
        made = await conduct(given, plan, seed)
        _say(made.text(f"conformance {plan.name}"))
        figures = {
            **made.figures,
            "seconds": round(made.seconds, 1),
            "missed": dict(made.missed),
            "missing": sorted(made.missing),
            "planned": sorted({fault.name for fault in plan.kinds}),
        }
        subject = {"kinds": len(KINDS), "at_once": plan.at_once, "lanes": plan.lanes, "fork": plan.fork}
        return made.code == 0, {**figures, "subject": subject, "versions": await _versions(given)}


async def _versions(given: Ground) -> dict[str, str]:
    conn = await asyncpg.connect(given.servers.given["database_url"])
    postgres = str(await conn.fetchval("show server_version")).split()[0]
    await conn.close()
    client = await Client.connect(given.servers.given["temporal_address"])
    system = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    return {
        "Holdfast": holdfast.__version__,
        "temporalio": temporalio.service.__version__,
        "Temporal server": system.server_version,
        "PostgreSQL": postgres,
        "Python": platform.python_version(),
    }


def campaign(scale: parts.Scale, chosen: list[str], folder: Path) -> bool:
    """Play the parts; after all of them write what the page would be beside the results. Return whether all hold."""
    began = time.monotonic()
    held = parts.play(scale, chosen or list(parts.PARTS), folder)
    _say(f"\n{(time.monotonic() - began) / 60:.0f} minutes; results are in {folder}")
    return held if chosen else _close(folder, folder) and held


def _close(folder: Path, out: Path) -> bool:
    """Write data and page from the results in a folder, whatever they are; return whether nothing is short in them."""
    data = gather.gather(folder)
    report.write(data, out)
    short = report.shortfalls(data)
    _say(f"{out / report.PAGE.name} is written")
    for line in short:
        _say(f"  said on top of it: {line}")
    return not short


def main() -> int:
    """Run as a program; exit code 0 when all holds."""
    parser = argparse.ArgumentParser(
        prog="scripts/conformance", usage=USAGE, description="Try to prove Holdfast wrong."
    )
    parser.add_argument("--seed", type=int, help="play one seed again; without it seeds come from chance")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_true", help="one seed, a minute or two (default)")
    size.add_argument("--controls", action="store_true", help="each guard off, then on, under a schedule that needs it")
    size.add_argument("--campaign", action="store_true", help="everything: about 40 minutes on two quiet cores")
    size.add_argument("--trial", action="store_true", help="a campaign with little of everything")
    size.add_argument("--report", type=Path, metavar="FOLDER", help="write the page of docs/reference from a campaign")
    parser.add_argument(
        "--part", action="append", choices=list(parts.PARTS), default=[], help="only this of a campaign"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where a campaign puts its results")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures of one seed, or of the controls")
    options = parser.parse_args()
    if options.report is not None:
        return 0 if _close(options.report, report.PAGE.parent) else 1
    name = "campaign" if options.campaign else "trial" if options.trial else "smoke"
    if name in SCALES and options.seed is None:
        now = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
        folder: Path = options.out or Path(tempfile.gettempdir()) / f"holdfast-conformance-{now}"
        return 0 if campaign(SCALES[name], options.part, folder.absolute()) else 1
    if options.controls:
        held, figures = asyncio.run(check_controls())
    else:
        seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
        held, figures = asyncio.run(play(PLANS[name], seed))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0 if held else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background SIGINT may be ignored, for all children too
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
