"""The published page and README's figures are those of the committed data, and of a whole campaign."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import drive, gather, parts, report
from tests.conformance.parts import Scale, Step

Json = dict[str, Any]


@pytest.fixture(scope="module")
def data() -> Json:
    """Return what is published."""
    found: Json = json.loads(report.DATA.read_text(encoding="utf-8"))
    return found


# ---------------------------------------------------------------------------------------- what is published


def test_the_page_is_what_its_data_render_to(data: Json) -> None:
    """Nobody edited it; else `scripts/conformance --report FOLDER` writes it again."""
    assert report.PAGE.read_text(encoding="utf-8") == report.render(data)


def test_the_readme_has_the_same_figures(data: Json) -> None:
    """README quotes the campaign that the page is about."""
    (shown,) = report.MARKED.findall(report.README.read_text(encoding="utf-8"))
    assert shown == report.readme(data)


def test_what_is_published_is_a_whole_campaign_that_held(data: Json) -> None:
    """At least 5 seeds, 200 faults, 2,000 calls, minutes of outage, 1,000 waiting runs; nothing twice, nothing lost."""
    assert data["scale"] == "campaign"
    assert report.shortfalls(data) == []


def test_the_data_name_no_place(data: Json) -> None:
    """They are figures: no path, no address and no table of a log gets in."""
    text = json.dumps(data)
    assert len(text) < 64 * 1024
    assert not re.search(r"/(home|tmp|root|work|usr|var|opt)/", text)
    assert "127.0.0.1" not in text


# ---------------------------------------------------------------------------------------- what would be noticed


def _twice(data: Json) -> None:
    data["drives"]["twice"] = 1


def _few(data: Json) -> None:
    data["drives"]["asked"] = dict.fromkeys(data["drives"]["asked"], 3)


def _slow(data: Json) -> None:
    data["outages"][0]["ratio"] = 2.1


def _short(data: Json) -> None:
    data["outages"][0]["seconds"] = 20.0


def _unsaid(data: Json) -> None:
    data["waiting"] = []


def _failed(data: Json) -> None:
    data["failed"] = ["seed-3"]


@pytest.mark.parametrize("change", [_twice, _few, _slow, _short, _unsaid, _failed])
def test_the_page_says_on_top_what_a_campaign_lacks(data: Json, change: Any) -> None:
    """A campaign that did not show everything cannot be published as one that did."""
    other = copy.deepcopy(data)
    change(other)
    (line,) = set(report.shortfalls(other)) - set(report.shortfalls(data))
    page = report.render(other)
    assert page.index(line) < page.index("## Result")


def test_a_campaign_that_had_no_sub_agents_says_so(data: Json) -> None:
    """The kinds that joined the suite later are claimed by a campaign alone that had them."""
    older, newer = copy.deepcopy(data), copy.deepcopy(data)
    older["drives"]["variety"].pop("runs asked for by other runs", None)
    newer["drives"]["variety"]["runs asked for by other runs"] = 7
    assert "**Not in this campaign**" in report.render(older)
    assert "**Not in this campaign**" not in report.render(newer)


def test_a_campaign_is_planned_to_show_enough() -> None:
    """What its plan asks for is what the page demands."""
    assert parts.CAMPAIGN.seeds >= report.SEEDS
    assert parts.CAMPAIGN.seeds * drive.CAMPAIGN.faults >= report.FAULTS
    assert parts.CAMPAIGN.seeds * drive.CAMPAIGN.calls >= report.CALLS
    assert parts.CAMPAIGN.waiting >= report.WAITING


# ---------------------------------------------------------------------------------------- how the data are made

SEED = {
    "faults": {"kill -9 of a worker": 2},
    "asked": {"once": 3},
    "fates": {"once": {"lost": 0}},
    "twice": 0,
    "seconds": 10.0,
    "progress_s": {"once": [1.0, 3.0]},
    "assertions": [{"number": "1", "name": "one", "says": "No effect twice", "wrong": []}],
    "subject": {"kinds": 7, "at_once": 6},
    "missing": [],
    "versions": {"Python": "3"},
}
PROGRAM = """
import json, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(json.dumps(json.loads(sys.argv[2])))
print("said")
"""


def _step(folder: Path, label: str, figures: Json, program: str = PROGRAM, limit: float = 60.0) -> Step:
    file = folder / f"{label}.raw"
    return Step("seeds", label, ("-c", program, str(file), json.dumps(figures)), limit, file, about={"seed": 7})


def _play(monkeypatch: pytest.MonkeyPatch, folder: Path, *steps: Step) -> bool:
    monkeypatch.setitem(parts.PARTS, "seeds", lambda _scale, _folder: list(steps))
    return parts.play(Scale("trial", 1, 1, 1, 1, 1, (0,), 1), ["seeds"], folder)


def test_seeds_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults, calls and fates add up; spans are put together before their quantiles are taken."""
    other = copy.deepcopy(SEED)
    other["faults"] = {"kill -9 of a worker": 1, "PostgreSQL gone": 4}
    other["progress_s"] = {"once": [8.0]}
    assert _play(monkeypatch, tmp_path, _step(tmp_path, "seed-1", SEED), _step(tmp_path, "seed-2", other))
    found = gather.gather(tmp_path)
    assert found["drives"]["faults"] == {"kill -9 of a worker": 3, "PostgreSQL gone": 4}
    assert found["drives"]["asked"] == {"once": 6}
    assert found["drives"]["fates"] == {"once": {"lost": 0}}
    assert found["drives"]["progress_s"] == {"once": {"n": 3, "p50": 3.0, "p95": 8.0, "max": 8.0}}
    assert [each["faults"] for each in found["seeds"]] == [2, 5]
    assert found["failed"] == []


def test_a_part_that_fails_or_hangs_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program's result is in the folder as soon as it ends; a program that left none is written down as failed."""
    hangs = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print('waits', flush=True); signal.pause()"
    steps = (
        _step(tmp_path, "seed-1", SEED, "raise SystemExit('no luck')"),
        _step(tmp_path, "seed-2", SEED, hangs, limit=1.0),
        _step(tmp_path, "seed-3", SEED),
    )
    assert not _play(monkeypatch, tmp_path, *steps)
    found = gather.gather(tmp_path)
    assert sorted(found["failed"]) == ["seed-1", "seed-2"]
    assert [each["calls"] for each in found["seeds"]] == [3]
    assert "no luck" in (tmp_path / "seed-1.txt").read_text(encoding="utf-8")
    assert {"seed-1 does not hold", "seed-2 does not hold"} <= set(report.shortfalls(found))


def test_a_part_can_be_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its new result takes the place of the old one."""
    assert not _play(monkeypatch, tmp_path, _step(tmp_path, "seed-1", SEED, "raise SystemExit(1)"))
    assert _play(monkeypatch, tmp_path, _step(tmp_path, "seed-1", SEED))
    assert gather.gather(tmp_path)["failed"] == []
