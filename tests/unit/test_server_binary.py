"""The ladder of the Temporal binary: path, PATH, cache, download, Go; and what is said when none helps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.errors import TemporalBinaryNotFound
from holdfast.server import doctor
from holdfast.server.binary import cache_folder, ensure_binary, find_binary
from holdfast.server.temporal import main
from holdfast.settings import load_settings


def program(path: Path, text: str = "echo temporal version 1.5.1") -> Path:
    """Write a small program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on PATH, an empty cache, no way to the network."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for name in ("TEMPORAL_ADDRESS", "HOLDFAST_TEMPORAL_ADDRESS", "HOLDFAST_TEMPORAL_BINARY"):
        monkeypatch.delenv(name, raising=False)


def test_the_ladder_prefers_what_is_named(tmp_path: Path) -> None:
    """A named binary wins over PATH, PATH over the cache."""
    cached = program(cache_folder() / "temporal")
    assert find_binary(load_settings()) == cached
    on_path = program(tmp_path / "bin" / "temporal")
    assert find_binary(load_settings()) == on_path
    named = program(tmp_path / "mine")
    assert find_binary(load_settings(temporal_binary=named)) == named


def test_a_named_binary_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It is never replaced silently by another."""
    program(cache_folder() / "temporal")
    with pytest.raises(TemporalBinaryNotFound, match="HOLDFAST_TEMPORAL_BINARY names"):
        find_binary(load_settings(temporal_binary=tmp_path / "nothing"))


async def test_go_builds_it_into_the_cache(tmp_path: Path) -> None:
    """Where Go is installed the pinned version is built once; the second call finds it."""
    program(
        tmp_path / "bin" / "go",
        f'echo "$@" >> {tmp_path}/calls\necho "#!/bin/sh" > $GOBIN/temporal\n'
        'echo "echo temporal version 1.5.1" >> $GOBIN/temporal\n/bin/chmod 755 $GOBIN/temporal',
    )
    said: list[str] = []
    assert await ensure_binary(load_settings(), said.append) == cache_folder() / "temporal"
    assert await ensure_binary(load_settings(), said.append) == cache_folder() / "temporal"
    assert (tmp_path / "calls").read_text() == "install github.com/temporalio/cli/cmd/temporal@v1.5.1\n"
    assert any("Go" in line for line in said)
    assert sorted(os.listdir(cache_folder())) == ["lock", "temporal"]  # noqa: PTH208  # no half builds left behind


async def test_a_failed_build_says_why(tmp_path: Path) -> None:
    """The last line of Go's message is passed on, with all the other ways out."""
    program(tmp_path / "bin" / "go", "echo dial tcp: no route >&2; exit 1")
    with pytest.raises(TemporalBinaryNotFound) as caught:
        await ensure_binary(load_settings(), lambda _: None)
    for part in ("dial tcp: no route", "download:", "docs.temporal.io/cli", "TEMPORAL_ADDRESS"):
        assert part in str(caught.value)
    assert not (cache_folder() / "temporal").exists()


def test_ensure_prints_the_path_or_the_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What scripts/setup calls: the path on standard output, or the advice and exit code 1."""
    assert main(["--ensure"]) == 1
    assert "No Temporal server was found" in capsys.readouterr().err
    binary = program(tmp_path / "bin" / "temporal")
    assert main(["--ensure"]) == 0
    assert capsys.readouterr().out.strip() == str(binary)


def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    """Each finding that is not well has a hint; a server that can be got is well; nothing is started or made."""
    (tmp_path / "agents.py").write_text("def broken(:\n")
    home = tmp_path / "home"
    checks = {check.name: check for check in doctor(load_settings(home=home, agents=tmp_path / "agents.py"))}
    assert "no `temporal` binary yet" in checks["temporal"].detail
    assert "line 1" in checks["agents file"].detail
    assert checks["postgres"].ok
    assert "PostgreSQL" in checks["postgres"].detail
    assert checks["python"].ok
    assert checks["qdrant"].ok
    assert checks["embeddings"].ok
    assert all(check.hint for check in checks.values() if not check.ok)
    assert not home.exists()
