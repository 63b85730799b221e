"""Files found in the current folder: another user's are refused, and none of them names a program or a process."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from holdfast.cli import complete, plugins
from holdfast.cli.stack import inspect_agents
from holdfast.client import Client
from holdfast.errors import AgentsFileError, ConfigurationError, HoldfastError, StackError
from holdfast.llm.resolve import key_variables
from holdfast.memory import completion
from holdfast.secrets import Secrets
from holdfast.server import StackInfo, doctor, read_stack, stop_stack
from holdfast.server.lock import folder_lock
from holdfast.server.state import ProcessInfo, write_state
from holdfast.settings import load_settings
from holdfast.testing.recording import _hider  # what reads `.env` for it
from holdfast.tools.registry import load_agents

SOMEBODY = 54321  # a user id that is nobody's here


def holdfast(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, in the current folder."""
    return subprocess.run(
        [sys.executable, "-c", "from holdfast.cli import main\nmain()", *argv],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def given_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return what makes a file another user's; who is not root becomes another user instead."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, SOMEBODY, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)

    return give


@pytest.fixture
def shared_with_somebody(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return what gives a file a group with another member; who is not root has one in their own group instead."""
    somebody = pwd.getpwnam("nobody")

    def share(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, -1, somebody.pw_gid)
        else:
            group = grp.struct_group(("ours", "x", path.stat().st_gid, [somebody.pw_name]))
            monkeypatch.setattr(grp, "getgrgid", lambda _: group)

    return share


def planted(home: Path, *, supervisor: psutil.Process, children: list[ProcessInfo] | None = None) -> StackInfo:
    """Write the state of a stack as somebody would who wants it believed."""
    home.mkdir(mode=0o700, exist_ok=True)
    info = StackInfo(
        temporal_address="127.0.0.1:7233",
        temporal_ui=None,
        namespace="default",
        database_url="postgresql://holdfast:secret@127.0.0.1:5432/holdfast",
        qdrant_url=None,
        home=home.absolute(),
        agents=home / "agents.py",
        embedded_temporal=True,
        embedded_postgres=True,
        supervisor=ProcessInfo(name="supervisor", pid=supervisor.pid, create_time=supervisor.create_time()),
        children=children or [],
        detached=True,
        started_at=datetime.now(UTC),
        ready=True,
    )
    write_state(info)
    return info


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the databases that completion connects to."""
    urls: list[str] = []

    async def offered(url: str, what: str, tenant: str, *, timeout: float) -> list[tuple[str, str]]:
        del what, tenant, timeout
        urls.append(url)
        return [("clerk", "")]

    monkeypatch.setattr(completion, "offered", offered)
    return urls


def test_a_state_file_without_a_live_supervisor_is_believed_by_nobody(empty_folder: Path, asked: list[str]) -> None:
    """A folder that was copied or unpacked names a living pid, but nothing holds its lock: no password is sent."""
    home = empty_folder / ".holdfast"
    info = planted(home, supervisor=psutil.Process())
    assert complete.agents("") == []
    assert asked == []
    assert read_stack(home) is None
    with folder_lock(home):
        assert complete.agents("") == [("clerk", "")]
        assert read_stack(home) == info
    assert asked == [info.database_url]


@pytest.mark.parametrize("how", ["owner", "mode", "file"])
def test_a_folder_of_another_user_is_refused(
    empty_folder: Path, asked: list[str], given_away: Callable[[Path], None], how: str
) -> None:
    """Also with a process that holds its lock: by completion in silence, by everything else in words."""
    home = empty_folder / ".holdfast"
    planted(home, supervisor=psutil.Process())
    with folder_lock(home):
        if how == "owner":
            given_away(home)
        elif how == "mode":
            home.chmod(0o770)
        else:
            (home / "stack.json").chmod(0o666)
        assert complete.agents("") == []
        assert asked == []
        if how == "file":
            assert read_stack(home) is None
            return
        for use in (read_stack, stop_stack):
            with pytest.raises(StackError, match=r"is not used: (it belongs to|other users may write to it)"):
                use(home)
        stack = next(check for check in doctor(load_settings()) if check.name == "stack")
        assert not stack.ok
        assert "is not used" in stack.detail


@pytest.mark.parametrize("name", ["holdfast.toml", ".env"])
def test_settings_of_another_user_are_refused(
    empty_folder: Path,
    given_away: Callable[[Path], None],
    shared_with_somebody: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """They could send keys and conversations anywhere; whoever trusts the folder says so in the environment."""
    path = empty_folder / name
    path.write_text('api_base = "http://127.0.0.1:9"\n' if name.endswith("toml") else "HOLDFAST_WORKERS=3\n")
    load_settings()
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="other users may write to it"):
        load_settings()
    path.chmod(0o664)
    load_settings()  # many systems give each user a group of their own
    shared_with_somebody(path)
    with pytest.raises(ConfigurationError, match="other users may write to it, as members of its group"):
        load_settings()
    path.chmod(0o644)
    load_settings()
    given_away(path)
    with pytest.raises(ConfigurationError, match=f"{name} is not used: it belongs to"):
        load_settings()
    monkeypatch.setenv("HOLDFAST_SAFE_DIRECTORY", f"/nowhere:{empty_folder}")
    load_settings()


TOUCHES = "from pathlib import Path\nPath('ran').touch()\n"
AGENT = "from holdfast import Agent\na = Agent(name='a', model='offline/extractive')\n"


def test_an_agents_file_of_another_user_is_not_run(empty_folder: Path, given_away: Callable[[Path], None]) -> None:
    """`holdfast run`, `holdfast plugins` and a worker in a shared folder would run what anybody left there."""
    (empty_folder / "agents.py").write_text(TOUCHES + AGENT)
    given_away(empty_folder / "agents.py")
    settings = load_settings()
    for use in (
        lambda: inspect_agents(settings),
        lambda: plugins.show(settings, as_json=True),
        lambda: load_agents(settings.agents),
    ):
        with pytest.raises(AgentsFileError, match="it belongs to the user"):
            use()
    assert not (empty_folder / "ran").exists()


async def test_a_value_in_the_env_file_names_no_other_variable(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address in a folder that was unpacked would take any key of the environment to a server of its choice."""
    url = "postgresql://u:${HOLDFAST_TEST_KEY}@127.0.0.1:1/x"
    lines = [f"HOLDFAST_DATABASE_URL={url}", "STORE=${HOLDFAST_TEST_KEY}", "OPENAI_API_KEY=${HOLDFAST_TEST_KEY}"]
    (empty_folder / ".env").write_text("\n".join([*lines, "STORE_TOKEN=a${HOLDFAST_TEST_KEY}b"]))
    monkeypatch.setenv("HOLDFAST_TEST_KEY", "sk-of-the-environment")
    for name in ("HOLDFAST_DATABASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert load_settings().database_url == url
    assert await Secrets().value("STORE") == "${HOLDFAST_TEST_KEY}"
    assert key_variables("openai") == {"OPENAI_API_KEY": "${HOLDFAST_TEST_KEY}"}
    assert _hider()("a${HOLDFAST_TEST_KEY}b") == "***"


@pytest.mark.parametrize("name", ["holdfast.toml", ".env"])
def test_no_file_of_a_folder_names_a_program(empty_folder: Path, name: str) -> None:
    """`holdfast doctor` asks a Temporal binary for its version, so a folder could have it run anything."""
    program = empty_folder / "temporal"
    program.write_text("#!/bin/sh\ntouch ran\necho temporal version 1\n")
    program.chmod(0o755)
    key = "temporal_binary" if name.endswith("toml") else "HOLDFAST_TEMPORAL_BINARY"
    (empty_folder / name).write_text(f'{key} = "{program}"\n')
    done = holdfast("doctor")
    assert done.returncode != 0
    assert not (empty_folder / "ran").exists()
    assert f"{name} sets temporal_binary, which may be set in the environment only" in done.stdout + done.stderr


def test_down_leaves_processes_alone_that_are_not_its_own(empty_folder: Path) -> None:
    """What `stack.json` and a stale lock name may be any process; only what carries the folder's mark is ended."""
    home = empty_folder / ".holdfast"
    waits = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    marked = {**os.environ, "HOLDFAST_READY_FILE": str(home / "run" / "agents-1.ready")}
    with (
        subprocess.Popen(waits) as innocent,
        subprocess.Popen(waits, env=marked, stdout=subprocess.PIPE, text=True) as ours,
    ):
        try:
            assert ours.stdout is not None
            assert ours.stdout.readline() == "up\n"  # amid its exec, the kernel shows an empty environment
            named = [
                ProcessInfo(name=name, pid=pid, create_time=psutil.Process(pid).create_time())
                for name, pid in (("postgres", innocent.pid), ("agents-1", ours.pid))
            ]
            planted(home, supervisor=psutil.Process(innocent.pid), children=named)
            (home / "lock").write_text(f"{innocent.pid}\n")
            assert stop_stack(home) is True
            assert not psutil.pid_exists(ours.pid)
            assert innocent.poll() is None
        finally:
            innocent.kill()
            ours.kill()


def test_down_leaves_a_process_alone_that_does_not_hold_the_lock(empty_folder: Path) -> None:
    """The pid in a lock may be a former holder's, used again: who holds the lock has its file open."""
    home = empty_folder / ".holdfast"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as innocent:
        try:
            with folder_lock(home):
                (home / "lock").write_text(f"{innocent.pid}\n")
                with pytest.raises(StackError, match="no signal was sent"):
                    stop_stack(home)
            assert innocent.poll() is None
        finally:
            innocent.kill()


async def test_servers_of_ones_own_need_no_folder(empty_folder: Path, given_away: Callable[[Path], None]) -> None:
    """Where the settings name both servers, a folder of another user beside them is neither used nor in the way."""
    planted(empty_folder / ".holdfast", supervisor=psutil.Process())
    given_away(empty_folder / ".holdfast")
    settings = load_settings(
        temporal_address="127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x", client_patience=0.1
    )
    with pytest.raises(HoldfastError) as caught:
        await Client.connect(settings)
    assert "is not used" not in str(caught.value)


def test_a_link_in_the_folder_overwrites_nothing(empty_folder: Path) -> None:
    """A folder that came from elsewhere may have links in the place of what we write."""
    home, target = empty_folder / ".holdfast", empty_folder / "precious"
    home.mkdir(mode=0o700)
    target.write_text("keep me")
    for name in (".gitignore", "stack.new", "lock"):
        (home / name).symlink_to(target)
    with pytest.raises(StackError, match="lock"), folder_lock(home):
        pass
    with pytest.raises(OSError, match="symbolic link"):
        planted(home, supervisor=psutil.Process())
    assert target.read_text() == "keep me"


# ----------------------------------------------------------------------------------------------------------------- Tab

HOSTILE = [
    "a\\$(touch ran)", "b`touch ran`", "c\\`touch ran\\`", "d$(touch ran)", "e'$(touch ran)'", "f\\'; touch ran; '",
    "g')); touch ran; #", "h[touch ran]", "i\ntouch ran", "j\x1b]0;x\x07", "k:l", "m n", "", "x" * 129,
    "ü", "-*", "n\n",
]  # fmt: skip
SHELLS = {
    "zsh": {"_TYPER_COMPLETE_ARGS": "holdfast chat "},
    "bash": {"COMP_WORDS": "holdfast chat ", "COMP_CWORD": "2"},
    "fish": {"_TYPER_COMPLETE_ARGS": "holdfast chat ", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}
OFFERED = {"zsh": "_arguments '*: :((\"good-1.x\"))'", "bash": "good-1.x", "fish": "good-1.x"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_offered_plain_names_alone(empty_folder: Path, shell: str) -> None:
    """Zsh evaluates what it is offered, so a name in a downloaded agents file was a command: run at Tab."""
    names = [*HOSTILE, "good-1.x"]
    (empty_folder / "agents.py").write_text("".join(f"Agent({name!r})\n" for name in names), encoding="utf-8")
    done = holdfast(_HOLDFAST_COMPLETE=f"complete_{shell}", **SHELLS[shell])
    assert done.stdout.strip() == OFFERED[shell], done.stderr


def test_nothing_of_a_database_is_offered_as_help_unless_it_is_plain(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and words about them come from rows that somebody else may have written."""
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", "postgresql://127.0.0.1:1/x")

    async def offered(*_: object, **__: object) -> list[tuple[str, str]]:
        return [("a1", "clerk, done"), ("a2", "$(touch ran), done"), ("$(touch ran)", ""), ("a3", "x\ny")]

    monkeypatch.setattr(completion, "offered", offered)
    assert complete.runs("") == [("a1", "clerk, done"), ("a2", ""), ("a3", "")]


@pytest.mark.parametrize("kind", ["pipe", "huge", "deep"])
def test_tab_survives_any_agents_file(empty_folder: Path, kind: str) -> None:
    """A pipe would keep the shell waiting, a huge file take its memory, a deep one break the parser."""
    path = empty_folder / "agents.py"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("x = 1\n" * 1_000_000 if kind == "huge" else "(" * 90_000)
    began = time.monotonic()
    assert complete.agents("") == []
    assert time.monotonic() - began < 30


def test_the_reason_of_a_refusal_can_be_read_by_scripts(empty_folder: Path) -> None:
    """`--json` has it as an error like any other."""
    (empty_folder / "holdfast.toml").write_text("workers = 2\n")
    (empty_folder / "holdfast.toml").chmod(0o666)
    assert json.loads(holdfast("runs", "--json").stderr)["error"]["type"] == "ConfigurationError"
