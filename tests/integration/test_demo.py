"""The demo is no script: it finds what was hidden a moment ago, survives its own kill, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kit import PATIENCE, until

ROOT = Path(__file__).parents[2]
FILES = 30
THINGS = ("boiler", "lantern", "staircase", "generator", "foghorn", "telescope", "cistern", "windvane")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a short path, as sockets in it need."""
    with tempfile.TemporaryDirectory(prefix="demo-") as made:
        yield Path(made)


def word(chance: random.Random, syllables: int) -> str:
    """Make up a name that no text has."""
    parts = [chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(syllables)]
    return ("".join(parts) + chance.choice("kntrsl")).capitalize()


def hide_fact(chance: random.Random, folder: Path) -> tuple[str, str, str]:
    """Write the files, alike but for their names; return (question, sentence, place) of one fact in one of them."""
    chosen = chance.randrange(FILES)
    asked = ("", "", "")
    for number in range(FILES):
        path = folder / f"part-{chance.randrange(4)}" / f"{word(chance, 2).lower()}-{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        thing, place, person = chance.choice(THINGS), word(chance, 3), f"{word(chance, 2)} {word(chance, 3)}"
        sentence = f"The {thing} of {place} was replaced in {chance.randrange(1800, 2000)} by {person}."
        before = chance.randrange(12)
        lines = [f"# Notes on {place}", "", *["The weather was fair and the sea was calm."] * before, "", sentence, ""]
        path.write_text("\n".join(lines), encoding="utf-8")
        if number == chosen:
            line = lines.index(sentence) + 1
            asked = (
                f"Who replaced the {thing} of {place}?",
                sentence,
                f"{path.relative_to(folder).as_posix()}:{line}",
            )
    return asked


def start(temporary: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo as scripts/demo does after its set-up, with a temporary folder of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.demo_kit", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(temporary: Path) -> list[str]:
    """Return what still runs out of the demo's temporary folder, or lies in it."""
    running = [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline", "environ"])
        if any(str(temporary) in value for value in (process.info["environ"] or {}).values())
        and process.pid != os.getpid()
    ]
    return running + [path.name for path in temporary.iterdir()]


async def test_it_finds_a_fact_that_was_hidden_in_one_of_30_files(folder: Path) -> None:
    """A random fact is quoted with its path, after a kill in mid-call, and the report of it was filed once."""
    seed = random.SystemRandom().randrange(10**9)
    question, sentence, place = hide_fact(random.Random(seed), folder / "files")
    temporary = folder / "tmp"
    temporary.mkdir()
    demo = start(temporary, "--files", str(folder / "files"), "--ask", question)
    said, _ = demo.communicate(timeout=4 * PATIENCE)
    assert demo.returncode == 0, f"seed {seed}\n{said}"
    assert f"“{sentence}” ({place})" in said, f"seed {seed}\n{said}"
    for tick in ("approved by the demo", "kill -9", "took it over", "1 report arrived", "Temporal has all of it"):
        assert tick in said, f"{tick}: seed {seed}\n{said}"
    assert left_behind(temporary) == []


async def test_ctrl_c_leaves_nothing_running(folder: Path) -> None:
    """Interrupted in the middle, it stops its stack and its recorder, and removes its data."""
    demo = start(folder, "--files", str(ROOT / "docs"), "--ask", "What is in doubt?")
    assert demo.stdout is not None
    with demo.stdout as out:
        assert any("A stack of its own" in line for line in out)
        assert left_behind(folder), "its processes and its data are found while it runs"
        demo.send_signal(signal.SIGINT)
        said = out.read()
    assert demo.wait(timeout=PATIENCE) == 130, said
    assert "nothing is left running" in said
    await until(lambda: left_behind(folder) == [], "all processes are gone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--files", "."], "belong together"),
        (["--files", "no/such/folder", "--ask", "x"], "is no folder"),
        (["--files", ".", "--ask", " "], "is empty"),
    ],
)
def test_wrong_options_are_told(options: list[str], message: str, folder: Path) -> None:
    """Wrong input starts nothing, says what is wrong, and exits with 2."""
    demo = start(folder, *options)
    said, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 2
    assert message in said
    assert "Traceback" not in said
