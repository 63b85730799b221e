"""Code found in the current folder: none of it is run that another user wrote or may write to."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import psutil
import pytest

import holdfast
from holdfast.errors import AgentsFileError, HoldfastError
from holdfast.server.launch import start_detached
from holdfast.server.supervisor import default_workers
from holdfast.server.trial import try_agents
from holdfast.settings import load_settings
from holdfast.tools.registry import load_agents
from tests.unit.test_trust import AGENT, SOMEBODY, TOUCHES, planted


async def trial() -> None:
    """Load the agents file as the reloader does."""
    verdict = await try_agents(os.environ, timeout=load_settings().scaled(60.0))
    if verdict.error:
        raise AgentsFileError(verdict.error)


async def test_the_reloader_runs_no_agents_file_that_others_may_write_to(empty_folder: Path) -> None:
    """Its trial is a process of its own, which checks the file again."""
    (empty_folder / "agents.py").write_text(TOUCHES + AGENT)
    (empty_folder / "agents.py").chmod(0o666)
    with pytest.raises(AgentsFileError, match="other users may write to it"):
        await trial()
    assert not (empty_folder / "ran").exists()
    (empty_folder / "agents.py").chmod(0o664)
    await trial()


@pytest.mark.parametrize("what", ["helper.py", "json.py", "pack/part.py", "pack", "__pycache__", "folder"])
def test_no_module_beside_the_agents_file_is_run_that_others_may_write_to(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What it imports, what would hide a module of Python's, a package, bytecode, the folder itself."""
    (empty_folder / "pack").mkdir()
    (empty_folder / "__pycache__").mkdir()
    (empty_folder / "other").mkdir()
    for name in ("helper.py", "json.py", "pack/part.py"):
        (empty_folder / name).write_text(TOUCHES)
    (empty_folder / "agents.py").write_text(AGENT + "if False:\n    import helper\n    import pack.part\n")
    path = empty_folder if what == "folder" else empty_folder / what
    assert list(load_agents(empty_folder / "agents.py")) == ["a"]
    path.chmod(0o1777 if path.is_dir() else 0o666)
    with pytest.raises(AgentsFileError, match="other users may write to it"):
        load_agents(empty_folder / "agents.py")
    monkeypatch.setenv("HOLDFAST_SAFE_DIRECTORY", str(empty_folder))
    assert list(load_agents(empty_folder / "agents.py")) == ["a"]
    monkeypatch.setenv("HOLDFAST_SAFE_DIRECTORY", str(empty_folder / "other"))
    with pytest.raises(AgentsFileError, match="other users may write to it"):
        load_agents(empty_folder / "other" / ".." / "agents.py")


def test_a_link_of_another_user_leads_to_no_agents_file(
    empty_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner chooses among all files of ours; a link of our own may lead anywhere that we may use."""
    target = tmp_path_factory.mktemp("target") / "agents.py"
    target.write_text(AGENT)
    link = empty_folder / "agents.py"
    link.symlink_to(target)
    assert list(load_agents(link)) == ["a"]
    target.parent.chmod(0o777)
    with pytest.raises(AgentsFileError, match="other users may write to it"):
        load_agents(link)
    target.parent.chmod(0o755)
    lstat = Path.lstat

    def foreign(path: Path) -> os.stat_result:
        found = list(lstat(path))
        found[4] = SOMEBODY if path == link else found[4]
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", foreign)  # who is not root cannot give a link away
    with pytest.raises(AgentsFileError, match="it belongs to the user"):
        load_agents(link)


@pytest.mark.parametrize("how", ["server", "worker", "trial"])
async def test_no_process_of_ours_imports_from_the_current_folder(empty_folder: Path, how: str) -> None:
    """`python -m` puts the current folder first on `sys.path`: modules that others left there ran as us."""
    for name in ("holdfast", "logging", "psutil"):
        (empty_folder / f"{name}.py").write_text(
            f"open({str(empty_folder / 'ran')!r}, 'w').close()\nraise SystemExit(9)\n"
        )
    agents = empty_folder / "own"
    agents.mkdir()
    (agents / "agents.py").write_text(AGENT)
    if how == "server":
        settings = load_settings(agents=agents / "agents.py")
        with pytest.raises(HoldfastError, match="HOLDFAST_TEMPORAL_BINARY"):
            start_detached(settings, environment={"HOLDFAST_TEMPORAL_BINARY": str(empty_folder / "nothing")})
    elif how == "worker":
        info = planted(empty_folder / ".holdfast", supervisor=psutil.Process())
        spec = default_workers(info, load_settings(workers=1))[-1]
        wrong = {**spec.environment, "HOLDFAST_WORKERS": "wrong"}
        done = await asyncio.to_thread(
            subprocess.run, spec.command, env=wrong, capture_output=True, text=True, timeout=120
        )
        assert "HOLDFAST_WORKERS" in done.stderr
    else:
        environment = {**os.environ, "HOLDFAST_AGENTS": str(agents / "agents.py")}
        verdict = await try_agents(environment, timeout=load_settings().scaled(60.0))
        assert verdict.agents == ("a",), verdict.error
    assert not (empty_folder / "ran").exists()


def test_every_start_of_python_leaves_the_current_folder_out() -> None:
    """`-P` or `-I` stands before each `-m`, `-c` and file; a variable would be inherited by users' programs."""
    package = Path(holdfast.__file__).parent
    starts = [
        (path.name, found[1])
        for path in package.rglob("*.py")
        for found in re.finditer(r"sys\.executable, (\"-[a-zA-Z]\")?", path.read_text(encoding="utf-8"))
    ]
    assert len(starts) >= 5
    assert {option for _, option in starts} <= {'"-P"', '"-I"'}, starts
