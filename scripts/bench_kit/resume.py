"""The time until runs move again after kill -9 of their worker, with another up, also on a loaded machine."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.bench_kit import kills, report, starved
from scripts.bench_kit.crew import RUNS, Count, crew
from scripts.bench_kit.load import Load

__all__ = ["measure"]

Row = dict[str, float]


async def measure(rounds: int, loads: Sequence[int], out: Path, only: str = "") -> None:
    """Kill *rounds* workers at each place, once for each of *loads*, and report seconds until runs move.

    With *only*, at the places whose name has this text, and without the runs that nobody harms.

    Raises:
        RuntimeError: a run did not finish, or something took place twice, was lost, or is in doubt without need.

    """
    found: list[dict[str, Any]] = []
    for load in loads:
        before = os.getloadavg()[0]
        found.append(
            {
                "load": load,
                "load_of_others": round(before, 1),
                "killed": await _killed(rounds, load, only),
                **({} if only else {"unharmed": await _unharmed(rounds, load)}),
            }
        )
    rows = {
        name if len(loads) == 1 else f"load {one['load']}: {name}": row for one in found for name, row in _table(one)
    }
    promised = found[0]["killed"]["promised"]
    notes = [
        *(f"load {one['load']}, killed: {one['killed']['said']}" for one in found),
        *(f"load {one['load']}, nobody killed: {one['unharmed']['said']}" for one in found if not only),
        f"promised: {promised['p50']:.1f} s at p50, {promised['p95']:.1f} s at p95, where (p) stands, on a machine not "
        "starved; the others add their waits",
        f"{RUNS} runs under way at each kill; the other worker is up; load: so many busy processes from 1 s before on",
        "step: the step that was cut off is done, or its workflow has heard that it was; asked: a person is asked; "
        "reply: the model has spoken after it",
        "in a workflow task: counted from when the server hands tasks to the worker that is about to be killed",
    ]
    report.show("seconds until a run moves again after kill -9", rows, notes, out, found)
    for one in found:
        for part in ("killed",) if only else ("killed", "unharmed"):
            _check(one[part]["count"], f"load {one['load']}, {part}")


async def _killed(rounds: int, busy: int, only: str) -> dict[str, Any]:
    """Kill at every place in turn and return what came of it."""
    places = [kill for kill in kills.KILLS if only in kill.name]
    took: dict[str, list[kills.Took]] = defaultdict(list)
    async with crew(f"conversations:{kills.SCRIPT}", delay="0") as made, Load(busy) as load:
        stage = kills.Stage(made, load)
        for _ in range(rounds):
            for kill in places:
                for each in await stage.play(kill):
                    took[each.where].append(each)
        load.rest()
        count = await made.count(stage.runs)
        heartbeat = made.world.settings.scaled(made.world.settings.lease)
    return {
        "promised": {"p50": heartbeat + 1.5, "p95": heartbeat + 4.0},
        "places": {where: _place(where, values) for where, values in took.items()},
        "count": {**asdict(count), "needless_doubts": count.doubts - stage.doubts},
        "said": f"{count.sentence()}; {stage.doubts} had to be",
    }


def _place(where: str, took: Sequence[kills.Took]) -> dict[str, Any]:
    kill = next((kill for kill in kills.KILLS if kill.name == where), None)
    first = "asked" if kill is not None and kill.doubts else "step"
    replies = [each.reply for each in took if each.reply is not None]
    return {
        "promised": kill is None or kill.promised,
        first: _figures([each.step for each in took]),
        **({"reply": _figures(replies)} if replies else {}),
    }


def _figures(values: Sequence[float]) -> Row:
    return {
        "n": len(values),
        "p50": report.quantile(values, 0.5),
        "p95": report.quantile(values, 0.95),
        "min": min(values),
        "max": max(values),
    }


async def _unharmed(rounds: int, busy: int) -> dict[str, Any]:
    """Let runs go their way beside the load and return what came of it."""
    async with crew(f"conversations:{starved.SCRIPT}", starved.DELAY) as made, Load(busy) as load:
        found = await starved.starve(made, load, rounds)
    count: Count = found.count
    return {
        "run": _figures(found.seconds) if found.seconds else {},
        "again": found.again,
        "count": {**asdict(count), "needless_doubts": count.doubts},
        "said": f"{count.sentence()}; {found.again} attempts of activities were tried again",
    }


def _table(one: Mapping[str, Any]) -> list[tuple[str, Row]]:
    rows = [
        (f"{where}: {what}{' (p)' if place['promised'] and what == 'step' else ''}", place[what])
        for where, place in one["killed"]["places"].items()
        for what in ("step", "asked", "reply")
        if what in place
    ]
    return [*rows, *([("nobody killed: a whole run", one["unharmed"]["run"])] if "unharmed" in one else [])]


def _check(count: Mapping[str, int], where: str) -> None:
    if count["finished"] < count["runs"] or count["twice"] or count["lost"] or count["needless_doubts"]:
        raise RuntimeError(f"{where}: {dict(count)}")
