"""The conformance suite's everyday part: one seed of mixed faults, outages of the database alone."""

from __future__ import annotations

import os
import platform
import random
import sys

import pytest

from tests.conformance import clock
from tests.conformance.drive import OUTAGE, SMOKE, Plan, Report, conduct
from tests.conformance.servers import Ground

pytestmark = pytest.mark.asyncio(loop_scope="session")

_EXIT = "process ended by itself"  # what the auditor lets pass by this name has a server that was away for a cause

# Kinds of faults that a machine may lack: libfaketime comes compiled for Linux on x86-64 alone, and there it must work.
UNAVAILABLE = set[str]() if (sys.platform, platform.machine()) == ("linux", "x86_64") else {clock.MISSING}

# A drive in which little happened proves little: so much there was in each of many, by name of the figure.
LEAST = {
    "kills and freezes that hit a guarded call in flight": 3,
    "guarded calls taken over by another worker": 3,
    "messages refused: another agent's thread": 1,
    "approvals with other arguments": 1,
    "approvals by signal": 1,
    "rejections": 1,
    "questions by AskWorkflow": 2,
    "texts by reference": 1,
    "arguments by reference": 2,
    "results stored whole and passed on in part": 1,
    "calls refused by the remote": 1,
    "runs over budget": 1,
    "runs asked for by other runs": 10,
    "of these below another one that was asked": 2,
    "of these that gave no answer": 3,
    "of these with a decision of a person": 1,
    "conversations handed over": 1,
    "questions by a schedule": 4,
    "calls of MCP servers": 10,
    "calls refused because their MCP tool was suspended": 1,
}


async def _conduct(ground: Ground, plan: Plan, capsys: pytest.CaptureFixture[str]) -> Report:
    """Drive from a seed of chance, or the one in HOLDFAST_SEED, and print it first of all."""
    given = os.environ.get("HOLDFAST_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(1_000_000)
    with capsys.disabled():
        sys.stdout.write(f"\nconformance {plan.name}: HOLDFAST_SEED={seed}\n")
    report = await conduct(ground, plan, seed)
    with capsys.disabled():
        sys.stdout.write(report.text(f"conformance {plan.name}"))
    assert report.code == 0, report.table
    assert report.unfinished == [], "a client waited in vain"
    assert report.missing <= UNAVAILABLE, "a kind of fault was left out"
    ended = sum(report.figures["exits"].values())
    assert len([word for word in report.fell if " while " in word]) == ended, "the auditor was not told of each exit"
    assert sum(sum(causes.values()) for what, causes in report.figures["excused"].items() if _EXIT in what) == ended
    return report


async def test_faults_of_every_kind_neither_double_nor_lose_anything(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    """At least 25 faults of mixed kinds over at least 180 guarded calls: every assertion of the auditor holds."""
    report = await _conduct(ground, SMOKE, capsys)
    figures, variety = report.figures, report.figures["variety"]
    assert report.faults.total() >= 25
    assert sum(figures["asked"].values()) >= 180
    assert len(report.faults) >= 15, "kinds of faults"
    assert figures["rolled_over"] >= 15
    assert sum(figures["exposed"].values()) >= 20, "calls in flight that a fault hit"
    lacking = {name: variety[name] for name, least in LEAST.items() if variety[name] < least}
    assert not lacking, f"too little happened for this drive to prove anything: {lacking}"


async def test_an_outage_of_the_database_leaves_nothing_in_doubt(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    """Away three times for three seconds under load: everything is done, once, and nobody is asked about anything."""
    report = await _conduct(ground, OUTAGE, capsys)
    doubts = {name: sum(each.values()) for name, each in report.figures["in_doubt"].items()}
    assert not any(doubts.values()), doubts
    assert report.faults.total() == 3
