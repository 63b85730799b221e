"""The published page and README's figures are those of the committed data; no attempt and no failure is left out."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import commit, drive, gather, parts, report
from tests.conformance.books import GUARDED
from tests.conformance.figures import FATES
from tests.conformance.parts import Scale, Step

Json = dict[str, Any]

# ---------------------------------------------------------------------------------------- what is published


@pytest.fixture(scope="module")
def published() -> Json:
    """Return what is published."""
    found: Json = json.loads(report.DATA.read_text(encoding="utf-8"))
    return found


def test_the_page_is_what_its_data_render_to(published: Json) -> None:
    """Nobody edited it; else `scripts/conformance --report FOLDER` writes it again."""
    assert report.PAGE.read_text(encoding="utf-8") == report.render(published)


def test_the_readme_has_the_same_figures(published: Json) -> None:
    """README quotes the campaign that the page is about."""
    (shown,) = report.MARKED.findall(report.README.read_text(encoding="utf-8"))
    assert shown == report.readme(published)


def test_the_data_name_no_place(published: Json) -> None:
    """They are figures: no path, no address and no table of a log gets in."""
    text = json.dumps(published)
    assert len(text) < 64 * 1024
    assert not re.search(r"/(home|tmp|root|work|usr|var|opt)/", text)
    assert "127.0.0.1" not in text


# ---------------------------------------------------------------------------------------- a campaign, made up

_NONE = dict.fromkeys(GUARDED, 0)
SEED: Json = {
    "faults": {"kill -9 of a worker": 50},
    "missed": {"kill -9 of a worker in a hand-off": 2},
    "runs": {"done": 30},
    "executions": 9,
    "rolled_over": 3,
    "replayed": 9,
    "replay_hangs": 1,
    "asked": {**_NONE, "once": 200},
    "fates": {name: dict.fromkeys(FATES, 0) for name in GUARDED},
    "effects": 200,
    "twice": 0,
    "lost": 0,
    "unasked": 0,
    "doubt_bound": {**_NONE, "once": 4},
    "in_doubt": {name: {"took place": 1, "never seen outside": 0} for name in GUARDED},
    "orphaned": 0,
    "keyed_repeats": 0,
    "pure_asked": 5,
    "pure_sent": 6,
    "model_calls": 70,
    "model_repeats": 3,
    "model_again": 1,
    "audited": 4,
    "resolved": {"it took place, by a person": 3, "it took place, by proof that came late": 1},
    "exposed": {**_NONE, "once": 60},
    "taken_over": 12,
    "exits": {"starting": 2},
    "excused": {"process ended by itself, starting": {"PostgreSQL gone": 2}},
    "starved_s": 1.0,
    "seconds": 100.0,
    "progress_s": {"once": [1.0, 3.0]},
    "variety": {"kills and freezes that hit a guarded call in flight": 20},
    "assertions": [{"number": "1", "name": "at_most_one", "says": "No effect twice", "wrong": []}],
    "subject": {"kinds": 7, "at_once": 6, "lanes": 1, "fork": False},
    "missing": [],
    "planned": ["kill -9 of a worker"],
    "versions": {"Python": "3"},
}
PROGRAM = """
import json, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(sys.argv[2])
print("said")
"""
FAILS = f"{PROGRAM}\nraise SystemExit('it did not hold')"
SCALE = Scale("campaign", 1, 1, 1, 1, 1, (0,), 1)

Play = Callable[..., bool]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a checkout of one commit."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "file").write_text("one")
    _git(folder, "init", "-q")
    _committed(folder, "One")
    return folder


def _git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def _committed(root: Path, subject: str) -> None:
    _git(root, "add", "-A")
    _git(root, "commit", "-q", "-m", subject)


def _step(folder: Path, label: str, figures: Json, program: str = PROGRAM, limit: float = 60.0) -> Step:
    file = folder / f"{label}.raw"
    return Step("seeds", label, ("-c", program, str(file), json.dumps(figures)), limit, file, about={"seed": 7})


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path) -> Play:
    """Return a function that plays programs as the drives of a campaign that has nothing else."""

    def played(*steps: Step) -> bool:
        for part in list(parts.PARTS):
            monkeypatch.setitem(parts.PARTS, part, lambda *_: [])
        monkeypatch.setitem(parts.PARTS, "seeds", lambda *_: list(steps))
        return parts.play(SCALE, ["seeds"], tmp_path / "results", root)

    return played


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return the folder of the campaign."""
    return tmp_path / "results"


@pytest.fixture
def data(play: Play, results: Path) -> Json:
    """Return the data of a campaign in which all held."""
    assert play(*(_step(results, f"seed-{number}", SEED) for number in (1, 2, 3)))
    return gather.gather(results)


# ---------------------------------------------------------------------------------------- what a page says


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_a_campaign_in_which_all_held_is_short_of_nothing(data: Json) -> None:
    """The control of all tests below."""
    assert report.shortfalls(data) == []
    assert "180 tool calls in flight" in _flat(report.readme(data))
    assert "did not meet" not in report.readme(data)


def _twice(data: Json) -> None:
    data["drives"]["twice"] = 1


def _few(data: Json) -> None:
    data["drives"]["exposed"] = dict.fromkeys(GUARDED, 3)


def _starved(data: Json) -> None:
    data["drives"]["starved_s"] = 0.06 * data["drives"]["seconds"]


def _violated(data: Json) -> None:
    data["assertions"][0]["wrong"] = 2


def _slow(data: Json) -> None:
    data["outages"] = [{**_OUTAGE, "ratio": 2.1}]


def _short(data: Json) -> None:
    data["outages"] = [{**_OUTAGE, "seconds": 20.0}]


def _unsaid(data: Json) -> None:
    data["not_played"] = ["waiting"]


def _failed(data: Json) -> None:
    data["attempts"][2] |= {"holds": False, "error": "it ended with code 1"}
    data["failed"] = ["seed-3"]


_OUTAGE = {
    "label": "outage-postgres",
    "seconds": 60.0,
    "ratio": 1.0,
    "offered": 9,
    "backlog": 3,
    "drained_after": 9.0,
    "failed": 0,
    "twice": 0,
    "lost": 0,
    "in_doubt": 0,
    "exits": 4,
    "starved_s": 0.0,
}


@pytest.mark.parametrize("change", [_twice, _few, _starved, _violated, _slow, _short, _unsaid, _failed])
def test_a_shortfall_is_published_on_top_of_the_page(data: Json, change: Callable[[Json], None], results: Path) -> None:
    """A campaign that fell short can be written and rendered, and neither page nor README hides it."""
    change(data)
    (line,) = report.shortfalls(data)
    report.write(data, results)
    page = (results / report.PAGE.name).read_text(encoding="utf-8")
    assert page.index(line) < page.index("## Result")
    assert "**It did not meet 1 of its criteria**" in _flat(report.readme(data))


def test_what_was_wrong_is_in_the_figures(data: Json) -> None:
    """No figure is a word of the template: the page of other data has others."""
    other = copy.deepcopy(data)
    other["drives"] |= {"twice": 541, "lost": 542, "model_again": 543, "taken_over": 544, "unasked": 545}
    other["drives"]["excused"]["`verifiable` call that took effect twice"] = {"SIGSTOP of a worker": 546}
    other["drives"]["exits"]["serving"] = 547
    page = report.render(other)
    for number in range(541, 548):
        assert re.search(rf"\b{number}\b", page)
        assert not re.search(rf"\b{number}\b", report.render(data))
    assert "**541 took effect twice, 542 were lost**" in _flat(report.readme(other))


def test_the_page_names_commit_oracle_and_every_program(data: Json) -> None:
    """Who reads it can tell what was played, and who settled the doubts."""
    page, readme = report.render(data), report.readme(data)
    assert page.count(data["commit"]) >= 2
    assert data["commit"][:12] in readme
    assert "settled by the suite acting as a person" in _flat(readme)
    for label in ("seed-1", "seed-2", "seed-3"):
        assert f"| {label} | " in page


def test_without_a_campaign_page_and_readme_say_so() -> None:
    """No figure is shown then, and why is said."""
    withdrawn = {"withdrawn": "Nobody played one.", "subject": {"kinds": 7, "at_once": 6}}
    assert "No campaign is published" in report.render(withdrawn)
    assert "Nobody played one." in _flat(report.readme(withdrawn))
    assert not re.search(r"\*\*\d+\*\*", report.render(withdrawn))


def test_a_campaign_is_planned_to_show_enough() -> None:
    """What its plan asks for is what the page demands."""
    assert parts.CAMPAIGN.seeds >= report.SEEDS
    assert parts.CAMPAIGN.seeds * drive.CAMPAIGN.faults >= report.FAULTS
    assert parts.CAMPAIGN.waiting >= report.WAITING
    assert parts.CAMPAIGN.outage >= max(report.OUTAGES.values())
    assert not drive.CAMPAIGN.fork


# ---------------------------------------------------------------------------------------- how the data are made


def test_seeds_are_summed(play: Play, results: Path) -> None:
    """Faults, calls and fates add up; spans are put together before their quantiles are taken."""
    other = copy.deepcopy(SEED)
    other["faults"] = {"kill -9 of a worker": 1, "PostgreSQL gone": 4}
    other["progress_s"] = {"once": [8.0]}
    assert play(_step(results, "seed-1", SEED), _step(results, "seed-2", other))
    found = gather.gather(results)
    assert found["drives"]["faults"] == {"kill -9 of a worker": 51, "PostgreSQL gone": 4}
    assert found["drives"]["asked"]["once"] == 400
    assert found["drives"]["excused"] == {"process ended by itself, starting": {"PostgreSQL gone": 4}}
    assert found["drives"]["progress_s"] == {"once": {"n": 3, "p50": 3.0, "p95": 8.0, "max": 8.0}}
    assert [each["faults"] for each in found["seeds"]] == [50, 5]
    assert found["failed"] == []


def test_what_fails_or_hangs_is_kept_and_shown(play: Play, results: Path) -> None:
    """Each program's result is in the folder as soon as it ends; one that left none is written down as failed."""
    hangs = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print('waits', flush=True); signal.pause()"
    wrong = copy.deepcopy(SEED)
    wrong["twice"] = 1
    steps = (
        _step(results, "seed-1", SEED, "raise SystemExit('no luck')"),
        _step(results, "seed-2", SEED, hangs, limit=1.0),
        _step(results, "seed-3", wrong, FAILS),
    )
    assert not play(*steps)
    found = gather.gather(results)
    assert found["failed"] == ["seed-1", "seed-2", "seed-3"]
    assert found["drives"]["twice"] == 1, "the figures of a drive that failed count"
    assert "no luck" in (results / "seed-1.txt").read_text(encoding="utf-8")
    short = report.shortfalls(found)
    assert all(any(line.startswith(f"{label} does not hold") for line in short) for label in found["failed"])
    page = report.render(found)
    assert all(f"| {label} | " in page for label in found["failed"])


def test_a_drive_whose_auditor_failed_is_published_as_failed(play: Play, results: Path) -> None:
    """It has no figures to add up, and does not keep those of the others from being published."""
    bare = {name: SEED[name] for name in ("seconds", "missed", "missing", "planned", "subject", "versions")}
    assert not play(_step(results, "seed-1", SEED), _step(results, "seed-2", bare, FAILS))
    found = gather.gather(results)
    assert found["failed"] == ["seed-2"]
    assert found["drives"]["seconds"] == SEED["seconds"]
    assert any(line.startswith("seed-2 does not hold") for line in report.shortfalls(found))
    assert "| seed-2 | " in report.render(found)


def test_a_planned_kind_of_fault_that_never_struck_is_said(play: Play, results: Path) -> None:
    """Faults are drawn by chance: a kind that found nobody in any drive proves nothing, and the page says so."""
    planned = {**SEED, "planned": ["PostgreSQL gone", "kill -9 of a worker"]}
    assert play(_step(results, "seed-1", planned))
    short = report.shortfalls(gather.gather(results))
    assert [line for line in short if "never struck" in line] == ["PostgreSQL gone: planned, and never struck"]


def test_what_was_interrupted_stands_as_failed(play: Play, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign that is broken off has a result of the program that ran just then."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        play(_step(results, "seed-1", SEED))
    kept = json.loads((results / "seed-1.json").read_text(encoding="utf-8"))
    assert (kept["holds"], kept["error"]) == (False, "it was interrupted")


def test_nothing_is_played_again(play: Play, results: Path) -> None:
    """Neither what failed nor what held: its result stays as it is."""
    assert not play(_step(results, "seed-1", SEED, FAILS))
    before = (results / "seed-1.json").read_bytes()
    with pytest.raises(SystemExit, match="its result is kept"):
        play(_step(results, "seed-1", SEED))
    assert (results / "seed-1.json").read_bytes() == before


def test_a_campaign_is_of_one_commit_without_local_changes(play: Play, results: Path, root: Path) -> None:
    """Local changes are refused, in a new folder and in one that was begun; so is another commit in the same folder."""
    assert play(_step(results, "seed-1", SEED))
    (root / "file").write_text("two")
    with pytest.raises(SystemExit, match="local changes \\(file\\)"):
        play(_step(results, "seed-2", SEED))
    _committed(root, "Two")
    with pytest.raises(SystemExit, match="A campaign tests one commit"):
        play(_step(results, "seed-2", SEED))
    assert not (results / "seed-2.json").exists()


def test_results_of_another_commit_are_not_gathered(data: Json, results: Path) -> None:
    """Nor can they be put into the folder by hand."""
    kept = json.loads((results / "seed-1.json").read_text(encoding="utf-8"))
    (results / "seed-1.json").write_text(json.dumps({**kept, "commit": "another"}), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"seed-1 .* is of another commit"):
        gather.gather(results)


def test_the_commit_decides_the_seeds(results: Path) -> None:
    """Nobody can choose those that do well, and each drive has one of its own."""
    labels = [step.about["seed"] for step in parts.PARTS["seeds"](parts.CAMPAIGN, results, "abc")]
    assert labels == [commit.seed("abc", number) for number in range(1, parts.CAMPAIGN.seeds + 1)]
    assert len({*labels, commit.seed("abd", 1)}) == len(labels) + 1
