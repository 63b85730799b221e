"""What is written down about a stack: read back whole, believed only while its supervisor lives."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from holdfast.errors import StackBusy, StackError
from holdfast.server import StackInfo, environment_for, read_stack, settings_for, stop_stack
from holdfast.server.lock import folder_lock
from holdfast.server.state import ProcessInfo, read_state, settings_environment, write_state
from holdfast.settings import Settings, load_settings


def stack(home: Path, *, pid: int, create_time: float, ready: bool = True) -> StackInfo:
    """Make up a stack whose supervisor is this process or another."""
    return StackInfo(
        temporal_address="127.0.0.1:7233",
        temporal_ui="http://127.0.0.1:8233",
        namespace="default",
        database_url="postgresql://holdfast:secret@127.0.0.1:5432/holdfast",
        qdrant_url=None,
        home=home,
        agents=home / "agents.py",
        embedded_temporal=True,
        embedded_postgres=True,
        supervisor=ProcessInfo(name="supervisor", pid=pid, create_time=create_time),
        children=[],
        detached=False,
        started_at=datetime.now(UTC),
        ready=ready,
    )


@pytest.fixture
def live(tmp_path: Path) -> StackInfo:
    """Return a stack whose supervisor is this process."""
    return stack(tmp_path, pid=os.getpid(), create_time=psutil.Process().create_time())


def test_a_live_stack_is_found(live: StackInfo) -> None:
    """What was written is read back; only its owner may read it, for it holds a password."""
    with folder_lock(live.home):
        write_state(live)
        assert read_stack(live.home) == live
    assert read_stack(live.home) is None, "nothing holds the lock: its supervisor is gone"
    assert stat.S_IMODE((live.home / "stack.json").stat().st_mode) == 0o600


def test_a_pid_used_again_is_not_taken_for_the_supervisor(live: StackInfo) -> None:
    """The same pid with another create time is another process."""
    write_state(stack(live.home, pid=os.getpid(), create_time=live.supervisor.create_time - 3600))
    with folder_lock(live.home):
        assert read_stack(live.home) is None
    assert read_state(live.home) is not None


def test_a_stack_that_is_still_starting_is_not_given_out(live: StackInfo) -> None:
    """Clients wait until everything is ready."""
    write_state(live.model_copy(update={"ready": False}))
    with folder_lock(live.home):
        assert read_stack(live.home) is None


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    """Half a file, or one of another version, is no reason to crash."""
    (tmp_path / "stack.json").write_text('{"temporal_address": "127.0')
    assert read_stack(tmp_path) is None
    assert stop_stack(tmp_path) is False


def test_a_child_process_loads_the_very_settings(live: StackInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    """environment_for and settings_for agree: what a child loads is what its starter has."""
    mine = load_settings(home=Path("elsewhere"), workers=3, lease=2.5, offline=False)
    for name, value in environment_for(live, mine).items():
        monkeypatch.setenv(name, value)
    loaded = Settings()
    assert loaded == settings_for(mine, live)
    assert loaded.workers == 3
    assert loaded.offline is False
    assert loaded.database_url == live.database_url
    assert loaded.home == live.home


def test_the_offline_planner_stands_in_on_the_embedded_stack_only(live: StackInfo) -> None:
    """With a Temporal server of one's own a missing key is an error, unless the user says otherwise."""
    assert settings_for(load_settings(), live).offline is True
    assert settings_for(load_settings(), live.model_copy(update={"embedded_temporal": False})).offline is None


def test_a_ready_file_is_not_inherited(tmp_path: Path) -> None:
    """Each process has its own; a child that inherited one would report for another."""
    assert "HOLDFAST_READY_FILE" not in settings_environment(load_settings(ready_file=tmp_path / "x"))


def test_the_lock_has_one_holder_and_outlives_none(tmp_path: Path) -> None:
    """A second holder is refused with the pid of the first; afterwards the lock is free."""
    with folder_lock(tmp_path), pytest.raises(StackBusy, match=str(os.getpid())), folder_lock(tmp_path):
        pass
    with folder_lock(tmp_path):
        pass


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    """The error names the folder and the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="HOLDFAST_HOME"), folder_lock(tmp_path / "file" / "home"):
        pass
