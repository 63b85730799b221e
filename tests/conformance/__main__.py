"""`scripts/conformance [--seed N] [--smoke | --campaign]`: the suite outside pytest, on servers of its own."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests import standalone
from tests.conformance import controls
from tests.conformance.controls import CONTROLS
from tests.conformance.drive import CAMPAIGN, SMOKE, MakeWorld, Plan, conduct
from tests.conformance.stage import Nursery
from tests.kit import World

SEEDS = 5  # of a campaign


@asynccontextmanager
async def ground() -> AsyncIterator[tuple[MakeWorld, Nursery]]:
    """Give servers to make worlds on, and a nursery."""
    async with AsyncExitStack() as stack:
        nursery = Nursery()
        stack.push_async_callback(nursery.close)
        given = await stack.enter_async_context(standalone.servers())

        async def make(source: str, **settings: Any) -> World:
            return await stack.enter_async_context(standalone.world(given, source, **settings))

        yield make, nursery


async def check_controls() -> int:
    """Play every control with its guard off and on; return how many did not come out as they must."""
    failed = 0
    async with ground() as (make, nursery):
        for control in CONTROLS:
            for guarded in (False, True):
                verdict = await controls.play(make, nursery, control, guarded=guarded)
                right = not verdict.wrong if guarded else control.caught_by <= verdict.wrong
                said = ", ".join(f"({number})" for number in sorted(verdict.wrong, key=int)) or "nothing"
                sys.stdout.write(
                    f"{control.guard:<12} {'on ' if guarded else 'off'}  auditor finds {said:<16} "
                    f"{verdict.seconds:5.1f} s  {'as it must' if right else 'WRONG'}\n{'' if right else verdict.table}"
                )
                sys.stdout.flush()
                failed += not right
    return failed


async def play(plan: Plan, seeds: list[int]) -> int:
    """Drive through the plan once a seed; return how many the auditor found wrong."""
    failed = 0
    async with ground() as (make, nursery):
        for seed in seeds:
            sys.stdout.write(f"conformance {plan.name}: --seed {seed}\n")
            sys.stdout.flush()
            report = await conduct(make, nursery, plan, seed)
            sys.stdout.write(report.text(f"conformance {plan.name}"))
            sys.stdout.flush()
            failed += report.code != 0
    return failed


def main() -> int:
    """Run as a program; exit code 0 when the auditor found nothing wrong."""
    parser = argparse.ArgumentParser(prog="scripts/conformance", description="Try to prove Holdfast wrong.")
    parser.add_argument("--seed", type=int, help="play one seed again; without it seeds come from chance")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_true", help="one seed, minutes (default)")
    size.add_argument("--controls", action="store_true", help="each guard off, then on, under a schedule that needs it")
    size.add_argument("--campaign", action="store_true", help=f"{SEEDS} seeds, hundreds of faults, thousands of calls")
    options = parser.parse_args()
    if options.controls:
        return 1 if asyncio.run(check_controls()) else 0
    plan = CAMPAIGN if options.campaign else SMOKE
    count = 1 if options.seed is not None or not options.campaign else SEEDS
    chance = random.SystemRandom()
    seeds = [options.seed] if options.seed is not None else [chance.randrange(1_000_000) for _ in range(count)]
    return 1 if asyncio.run(play(plan, seeds)) else 0


if __name__ == "__main__":
    sys.exit(main())
