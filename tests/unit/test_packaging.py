"""What ends up in the wheel and the source distribution: `holdfast` and nothing beside it, with every room inside."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ROOMS = ["activities", "memory", "workflows"]
JUNK = {"__pycache__", ".DS_Store"}


class Built(NamedTuple):
    """The distributions, and the files of the package as they were in the checkout before."""

    direct: Path
    through_sdist: Path
    sdist: Path
    source: set[str]


def package_files() -> set[str]:
    """List the package's files in the checkout, links followed, as paths from the root."""
    files: set[str] = set()
    waiting = [ROOT / "holdfast"]
    while waiting:
        for entry in waiting.pop().iterdir():
            if entry.name in JUNK or entry.suffix == ".pyc":
                continue
            if entry.is_dir():
                waiting.append(entry)
            else:
                files.add(entry.relative_to(ROOT).as_posix())
    return files


def names(wheel: Path) -> list[str]:
    """List what is in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build a wheel from the checkout, and a source distribution with the wheel that comes out of it."""
    source = package_files()
    direct, whole = tmp_path_factory.mktemp("direct"), tmp_path_factory.mktemp("whole")
    for options in (["--wheel", "--outdir", str(direct)], ["--outdir", str(whole)]):
        done = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", *options, str(ROOT)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    [direct_wheel], [wheel], [sdist] = direct.glob("*.whl"), whole.glob("*.whl"), whole.glob("*.tar.gz")
    return Built(direct_wheel, wheel, sdist, source)


@pytest.fixture(params=["direct", "through_sdist"])
def wheel(request: pytest.FixtureRequest, built: Built) -> Path:
    """Give each of the two wheels, which come about by different code of the build backend."""
    path = getattr(built, request.param)
    assert isinstance(path, Path)
    return path


def test_rooms_are_links() -> None:
    """In the checkout each of the three rooms is a relative link, so that no file exists twice."""
    for room in ROOMS:
        link = ROOT / "holdfast" / room
        assert link.is_symlink()
        assert link.readlink() == Path("..") / room


def test_one_top_level_name(wheel: Path) -> None:
    """Installing it takes one name of the site: `holdfast`."""
    top = {name.partition("/")[0] for name in names(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"holdfast"}
    assert len(top) == 2


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_inside(room: str, wheel: Path) -> None:
    """Each room's files are in the package, as files."""
    inside = [name for name in names(wheel) if name.startswith(f"holdfast/{room}/")]
    assert f"holdfast/{room}/__init__.py" in inside
    with zipfile.ZipFile(wheel) as archive:
        assert all(archive.getinfo(name).external_attr >> 28 != 0o12 for name in inside), "a link was packed"


def test_every_file_is_inside(built: Built, wheel: Path) -> None:
    """Nothing of the package stays behind: modules, SQL, migrations, the typing marker."""
    assert built.source - set(names(wheel)) == set()
    for folder in ("sql", "migrations"):
        assert any(name.startswith(f"holdfast/memory/{folder}/") and name.endswith(".sql") for name in names(wheel))
    assert "holdfast/py.typed" in names(wheel)


def test_no_names_collide(wheel: Path) -> None:
    """No path occurs twice, also where case does not count, and no module hides a package of its name."""
    paths = [name.casefold() for name in names(wheel)]
    assert len(paths) == len(set(paths))
    packages = {path.removesuffix("/__init__.py") for path in paths if path.endswith("/__init__.py")}
    assert packages.isdisjoint(path.removesuffix(".py") for path in paths if path.endswith(".py"))


def test_source_distribution(built: Built) -> None:
    """It holds the package once, with its readme and project file, and nothing that belongs to the checkout only."""
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
    paths = [member.name.partition("/")[2] for member in members if member.isfile()]
    assert {member.name.partition("/")[0] for member in members} == {built.sdist.name.removesuffix(".tar.gz")}
    assert all(member.isfile() or member.isdir() for member in members), "a link was packed"
    assert built.source - set(paths) == set()
    assert {"pyproject.toml", "README.md"} <= set(paths)
    outside = {path.partition("/")[0] for path in paths if "/" in path}
    assert outside == {"holdfast"}, "each room belongs inside the package, and there only"


def test_the_lock_has_what_builds_need() -> None:
    """A wheel, a source distribution and an editable install are built by packages of the lock, with checksums."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {Requirement(each) for each in project["build-system"]["requires"]}
    script = """
import hatchling.build as backend
for kind in ("wheel", "sdist", "editable"):
    print(*getattr(backend, f"get_requires_for_build_{kind}")(), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    asked = {Requirement(line) for line in done.stdout.splitlines() if line}
    assert asked, "an editable install asks for a package more"
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)[^\n]* --hash=sha256:", lock, flags=re.MULTILINE))
    for requirement in needed | asked:
        assert requirement.specifier.contains(pinned.get(requirement.name, "0")), f"{requirement} is not in the lock"


def test_installed_wheel_imports(wheel: Path, tmp_path: Path) -> None:
    """Unpacked anywhere, the package and its rooms import from there, and the import is light."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import holdfast
heavy = {"litellm", "asyncpg", "temporalio", "qdrant_client", "qdrant_edge", "wordllama", "numpy"} & set(sys.modules)
assert not heavy, heavy
import holdfast.activities, holdfast.memory, holdfast.workflows
for module in (holdfast, holdfast.activities, holdfast.memory, holdfast.workflows):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
"""
    command = [sys.executable, "-I", "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
