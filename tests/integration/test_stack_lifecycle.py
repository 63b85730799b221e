"""The embedded stack on the real servers: start, stop, find again, kill, restart. Workers are stand-ins."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from holdfast.errors import ConfigurationError, StackError
from holdfast.search_attributes import SEARCH_ATTRIBUTES, ensure_search_attributes
from holdfast.server import StackInfo, doctor, read_stack, start_detached, stop_stack
from holdfast.server.state import is_alive, read_state
from holdfast.settings import Settings, defaults, load_settings
from tests.kit import PATIENCE

GRACE = defaults().stop_grace
EXIT = PATIENCE / 20  # seconds in which a supervisor without children ends
SERVER = (sys.executable, str(Path(__file__).with_name("_stack_server.py")))


def until(what: Callable[[], Any], *, within: float = 20.0) -> Any:
    """Return the first true value of *what*, looked at often."""
    deadline = time.monotonic() + within
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {within} s"
        select.select([], [], [], 0.02)
    return value


def marked(home: Path) -> list[psutil.Process]:
    """Find all processes of the stack in *home*: they carry its ready file, or work in its data folder."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get("HOLDFAST_READY_FILE", "")
            if mark.startswith(f"{home}/run/") or process.cwd() == str(home / "postgres" / "data"):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


class Dev:
    """A stack in the foreground, as `holdfast dev` runs it."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [*SERVER, "dev"],
            env={**os.environ, "HOLDFAST_HOME": str(home), "HOLDFAST_WORKERS": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []

    def wait_for(self, word: str) -> str:
        """Return the first line of output with *word* in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if word in line:
                return line
        raise AssertionError(f"{word} was never said:\n{''.join(self.lines)}")

    def ready(self) -> StackInfo:
        """Wait until the stack is ready and return where it is."""
        self.wait_for("READY")
        info = read_stack(self.home)
        assert info is not None
        return info

    def end(self, number: signal.Signals = signal.SIGINT) -> float:
        """Send a signal and return the seconds until the supervisor was gone."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return time.monotonic() - began

    def close(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        stop_stack(self.home)
        for process in marked(self.home):
            process.kill()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Name the folder of a stack."""
    return tmp_path / "home"


@pytest.fixture
def dev(home: Path) -> Iterator[Callable[..., Dev]]:
    """Start stacks in the foreground and end them with the test."""
    started: list[Dev] = []

    def start(**environment: str) -> Dev:
        started.append(Dev(home, **environment))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def settings(home: Path) -> Iterator[Settings]:
    """Return settings of a small stack; end what a test left detached."""
    yield load_settings(home=home, workers=1)
    stop_stack(home)
    for process in marked(home):
        process.kill()


def status_of(url: str) -> int:
    """Return the HTTP status of a page."""
    with urllib.request.urlopen(url, timeout=5) as page:
        return int(page.status)


def child(info: StackInfo, name: str) -> int:
    """Return the present pid of a child, as written down."""
    state = read_state(info.home)
    assert state is not None
    return next(each.pid for each in state.children if each.name == name)


async def put(info: StackInfo) -> None:
    """Leave a row in PostgreSQL and a workflow in Temporal."""
    conn = await asyncpg.connect(info.database_url)
    await conn.execute("create table public.kept (fact text)")
    await conn.execute("insert into public.kept values ('here')")
    await conn.close()
    client = await Client.connect(info.temporal_address)
    await client.start_workflow("Nobody", id="kept", task_queue="nobody")


async def found(info: StackInfo) -> bool:
    """Say whether what `put` left is still there."""
    conn = await asyncpg.connect(info.database_url)
    fact = await conn.fetchval("select fact from public.kept")
    await conn.close()
    client = await Client.connect(info.temporal_address)
    description = await client.get_workflow_handle("kept").describe()
    return bool(fact == "here" and description.status is not None and description.status.name == "RUNNING")


async def test_ctrl_c_leaves_no_process_and_a_second_start_finds_all_data(home: Path, dev: Callable[..., Dev]) -> None:
    """Ctrl-C ends all within its grace; the second start has the same ports, rows, workflows and search attributes."""
    first = dev(HOLDFAST_DATABASE_POOL="100")
    info = first.ready()
    await put(info)
    conn = await asyncpg.connect(info.database_url)
    assert await conn.fetchval("show max_connections") == "553", "2 workers while one is replaced, memory, 50 more"
    await conn.close()
    assert await asyncio.to_thread(status_of, f"{info.temporal_ui}/") == 200
    assert {each.pid for each in info.children} <= {each.pid for each in marked(home)}, "they are found while they run"
    assert len(info.children) == 4
    assert first.end() < GRACE + EXIT
    assert first.process.returncode == 0
    assert marked(home) == []
    assert not (home / "stack.json").exists()
    again = dev().ready()
    assert (again.temporal_address, again.temporal_ui, again.database_url) == (
        info.temporal_address,
        info.temporal_ui,
        info.database_url,
    )
    assert await found(again)
    client = await Client.connect(again.temporal_address)
    have = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace="default"))
    assert set(SEARCH_ATTRIBUTES) <= set(have.custom_attributes)


async def test_a_killed_supervisor_is_replaced_with_what_it_left_running(home: Path, dev: Callable[..., Dev]) -> None:
    """After kill -9 of the supervisor the children go on; the next start ends them and finds all data."""
    first = dev()
    info = first.ready()
    await put(info)
    first.process.kill()
    first.process.wait()
    assert read_stack(home) is None
    assert all(is_alive(each) for each in info.children)
    assert await found(info), "the servers must go on without a supervisor"
    second = dev()
    again = second.ready()
    assert any("killed" in line for line in second.lines)
    assert not any(is_alive(each) for each in info.children)
    assert again.database_url == info.database_url
    assert await found(again)


@pytest.mark.parametrize("name", ["postgres", "temporal"])
async def test_a_killed_server_comes_back_on_its_port(home: Path, dev: Callable[..., Dev], name: str) -> None:
    """Kill -9 of a server: it is up again, on the same port, with all data."""
    running = dev()
    info = running.ready()
    await put(info)
    old = child(info, name)
    os.kill(old, signal.SIGKILL)
    running.wait_for(f"{name} was killed by SIGKILL; restarting")

    def back() -> bool:
        state = read_state(home)
        assert state is not None
        return any(each.name == name and each.pid != old and each.state == "ready" for each in state.children)

    until(back, within=10)
    assert await found(info)


async def test_a_pid_file_that_names_another_process_does_not_stop_the_start(
    home: Path, dev: Callable[..., Dev]
) -> None:
    """A postmaster.pid left by a power cut may name a pid that is in use now; the data is found all the same."""
    first = dev()
    await put(first.ready())
    first.end()
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "import signal; signal.pause()")
    try:
        (home / "postgres" / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n/x\n1\n5432\n\n127.0.0.1\n")
        assert await found(dev().ready())
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


def test_two_starts_in_one_folder(home: Path, dev: Callable[..., Dev]) -> None:
    """The second start is refused with the pid of the first and what to do."""
    info = dev().ready()
    second = dev()
    line = second.wait_for("StackBusy")
    assert str(info.supervisor.pid) in line
    assert "holdfast down" in line
    assert second.process.wait(timeout=10) == 1
    assert read_stack(home) is not None


def test_a_dead_worker_is_restarted_with_what_it_started(home: Path, dev: Callable[..., Dev]) -> None:
    """Kill -9 of a worker: its own children die with it, and a new worker is there at once."""
    running = dev(STAND_IN="parent")
    info = running.ready()
    old = child(info, "agents-1")
    grandchildren = psutil.Process(old).children()
    assert grandchildren
    os.kill(old, signal.SIGKILL)
    until(lambda: child(info, "agents-1") != old, within=5)
    until(lambda: not any(each.is_running() and each.status() != "zombie" for each in grandchildren), within=5)


def test_a_stubborn_worker_does_not_hold_up_the_stop(home: Path, dev: Callable[..., Dev]) -> None:
    """Workers that ignore SIGTERM are killed: all ends within its grace and nothing is left."""
    running = dev(STAND_IN="stubborn", HOLDFAST_STOP_GRACE="5")
    running.ready()
    assert running.end(signal.SIGTERM) < 5 + EXIT
    assert marked(home) == []


def test_a_rolling_restart_replaces_one_worker_at_a_time(home: Path, dev: Callable[..., Dev]) -> None:
    """SIGHUP replaces all workers; each is asked to stop only when its own replacement is ready."""
    running = dev(HOLDFAST_WORKERS="3")
    info = running.ready()
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("rolling restart done")
    until(lambda: (home / "journal").read_text().count(" stop ") == 3, within=10)  # they drain beside
    events = [line.split() for line in (home / "journal").read_text().splitlines()]
    agents = [(name, what) for _, name, what, _ in events if name != "memory"][3:]
    for seen in range(1, len(agents) + 1):
        whats = [what for _, what in agents[:seen]]
        assert whats.count("stop") <= whats.count("ready")
    assert len(agents) == 6
    stopped = {pid for _, _, what, pid in events if what == "stop"}
    assert stopped == {str(each.pid) for each in info.children if each.name.startswith("agents-")}

    def states() -> list[str]:
        now = read_state(home)
        return [each.state for each in now.children if each.name.startswith("agents-")] if now is not None else []

    until(lambda: states() == ["ready"] * 3, within=10)


def test_a_replacement_that_refuses_takes_no_worker_away(home: Path, dev: Callable[..., Dev]) -> None:
    """A rolling restart into a wrong configuration ends at once, and every worker is the one it was."""
    running = dev(HOLDFAST_WORKERS="2")
    info = running.ready()
    (home / "refuse").touch()
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("agents-1 and agents-2 keep running")
    now = read_state(home)
    assert now is not None
    assert {each.pid for each in info.children} <= {each.pid for each in now.children}
    until(lambda: (state := read_state(home)) is not None and len(state.children) == len(info.children))


def test_a_worker_that_refuses_its_configuration_fails_the_start(settings: Settings, monkeypatch: Any) -> None:
    """Exit code 3 is not tried again: the start fails with the worker's own words, and nothing is left."""
    monkeypatch.setenv("STAND_IN", "refuse")
    with pytest.raises(ConfigurationError, match=r"agents\.py line 3"):
        start_detached(settings, command=SERVER)
    assert marked(settings.home) == []


def test_a_detached_stack_outlives_its_starter_and_is_found(settings: Settings) -> None:
    """Two starts give the same stack; doctor sees it; stop ends it once."""
    info = start_detached(settings, command=SERVER)
    assert info.detached
    assert start_detached(settings, command=SERVER).supervisor == info.supervisor
    assert next(check for check in doctor(settings) if check.name == "stack").ok
    assert stop_stack(settings.home) is True
    assert marked(settings.home) == []
    assert not is_alive(info.supervisor)
    assert stop_stack(settings.home) is False


def test_two_detached_starts_at_once_give_one_stack(settings: Settings) -> None:
    """Whoever is late gets the stack of the other, once it is ready."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: start_detached(settings, command=SERVER), range(2))
    assert first.supervisor == second.supervisor


def test_stop_ends_what_a_killed_supervisor_left(settings: Settings) -> None:
    """With the supervisor killed, stop still ends its children."""
    info = start_detached(settings, command=SERVER)
    os.kill(info.supervisor.pid, signal.SIGKILL)
    until(lambda: not is_alive(info.supervisor))
    assert stop_stack(settings.home) is True
    assert marked(settings.home) == []


async def test_an_idle_detached_stack_stops_itself_but_not_under_a_client(settings: Settings) -> None:
    """It stays while a client is connected, and ends by itself after."""
    info = start_detached(settings.model_copy(update={"idle_exit": 1.0}), command=SERVER)
    conn = await asyncpg.connect(info.database_url, server_settings={"application_name": "holdfast-client-test"})
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        await conn.execute("select pg_sleep(0.2)")
        assert is_alive(info.supervisor)
    await conn.close()
    until(lambda: not is_alive(info.supervisor))
    assert marked(settings.home) == []
    assert "idle for 1 s" in (settings.home / "logs" / "supervisor.log").read_text()


@pytest.mark.parametrize("name", ["temporal_port", "ui_port", "postgres_port"])
def test_a_busy_port_is_named(settings: Settings, name: str) -> None:
    """A port that the user fixed and somebody else has: the error names port and variable."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"Port {port} \(HOLDFAST_{name.upper()}\) is in use"):
            start_detached(settings.model_copy(update={name: port}), command=SERVER)
    assert marked(settings.home) == []


async def test_given_servers_are_used_and_get_their_search_attributes(
    settings: Settings, tmp_path: Path, home: Path
) -> None:
    """With TEMPORAL_ADDRESS and HOLDFAST_DATABASE_URL nothing of the kind is started."""
    servers = start_detached(settings, command=SERVER)
    given = settings.model_copy(
        update={
            "home": tmp_path / "other",
            "temporal_address": servers.temporal_address,
            "database_url": servers.database_url,
        }
    )
    try:
        info = start_detached(given, command=SERVER)
        assert sorted(each.name for each in info.children) == ["agents-1", "memory"]
        assert await ensure_search_attributes(servers.temporal_address, "default") == []
    finally:
        stop_stack(given.home)
    assert marked(given.home) == []
    assert is_alive(servers.supervisor)
