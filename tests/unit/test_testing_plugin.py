"""The pytest plugin: it costs nothing where it is not used, and says what is wrong where it is."""

from __future__ import annotations

import asyncio
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast.testing
from holdfast.server.ports import listens
from holdfast.settings import load_settings
from holdfast.testing.skipping import NoTestServer, SkippingServer, find_test_server
from tests.kit import until

QUIET = ("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:asyncio")


def run(folder: Path, test: str, *options: str) -> str:
    """Run pytest on one file in a new project and return all it said."""
    (folder / "test_it.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *QUIET, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_it_loads_nothing_until_it_is_used(tmp_path: Path) -> None:
    """A run of other tests imports of Holdfast the plugin alone, and none of its libraries."""
    said = run(
        tmp_path,
        "import sys\n\ndef test_it():\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('holdfast'))\n"
        "    assert ours == ['holdfast', 'holdfast.pytest_plugin']\n"
        "    assert not {'pydantic', 'temporalio', 'asyncpg', 'aiohttp', 'psutil'} & set(sys.modules)\n",
        "-W",
        "error",
    )
    assert "1 passed" in said, said


def test_no_module_has_the_name_of_what_the_kit_exports() -> None:
    """`from holdfast.testing import Replayed, replay` gave a module in place of the function."""
    modules = {module.name for module in pkgutil.iter_modules(holdfast.testing.__path__)}
    assert not modules & set(holdfast.testing.__all__)


def test_a_fixture_of_the_same_name_goes_first(tmp_path: Path) -> None:
    """Projects that have a `stack` of their own keep it."""
    test = (
        "import pytest\n\n@pytest.fixture\ndef stack():\n    return 7\n\ndef test_it(stack):\n    assert stack == 7\n"
    )
    assert "1 passed" in run(tmp_path, test)


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("'x'", "takes names, not ('x',)"),
        ("model='mine'", "holdfast model is 'mine': write 'scripted' or 'own'"),
        ("database_url='postgresql://x'", "a test's stack is its own: database_url cannot be set"),
        ("postgres_port=5432", "a test's stack is its own: postgres_port cannot be set"),
        ("workers='many'", "HOLDFAST_WORKERS='many'"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, mark: str, said: str) -> None:
    """Nothing is started for a marker that cannot be meant."""
    test = f"import pytest\n\n@pytest.mark.holdfast({mark})\ndef test_it(run_agent):\n    pass\n"
    assert said in run(tmp_path, test)


def test_a_stack_that_does_not_start_fails_each_test_alike(tmp_path: Path) -> None:
    """It is tried once, and the traceback of the tenth test is as short as that of the first."""
    test = (
        "import pytest\n\n@pytest.mark.holdfast(workers=0)\n@pytest.mark.parametrize('n', range(10))\n"
        "def test_it(run_agent, n):\n    pass\n"
    )
    said = run(tmp_path, test)
    assert "10 errors" in said
    told = [part.partition("\n___")[0] for part in said.split("ERROR at setup of ")[1:]]
    assert len(told[1].splitlines()) == len(told[8].splitlines()), said


def test_settings_in_the_configuration_are_lines(tmp_path: Path) -> None:
    """A line without = is refused."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nholdfast_settings =\n    workers\n")
    assert "write name = value" in run(tmp_path, "def test_it(stack):\n    pass\n")


def test_without_a_test_server_the_test_is_skipped(tmp_path: Path) -> None:
    """The reason names what was looked for."""
    test = "import pytest\n\n@pytest.mark.holdfast(time_skipping=True)\ndef test_it(stack):\n    pass\n"
    said = run(tmp_path, test, "-rs", "-o", "holdfast_test_server=/not/there")
    assert "time cannot be skipped here: holdfast_test_server names /not/there" in said


def test_how_a_test_server_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program by name, else on PATH, else Java with the jars that Maven got once; else it says what would help."""
    here: dict[str, str] = {}
    monkeypatch.setattr("holdfast.testing.skipping.shutil.which", here.get)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NoTestServer, match="no java"):
        find_test_server()
    here["java"] = "/bin/java"
    with pytest.raises(NoTestServer, match="no mvn to get io"):
        find_test_server()
    here["mvn"] = "/bin/false"
    with pytest.raises(NoTestServer, match="mvn could not get"):
        find_test_server()
    jars = tmp_path / "holdfast" / "test-server" / "1.32.0"
    mvn = tmp_path / "mvn"  # one that gets something else
    mvn.write_text('#!/bin/sh\necho evil > "${6#-DoutputDirectory=}/guava-32.0.1-jre.jar"\n')
    mvn.chmod(0o755)
    here["mvn"] = str(mvn)
    with pytest.raises(NoTestServer, match=r"do not match the checksums .* HdrHistogram.*removed"):
        find_test_server()
    assert not list(jars.parent.iterdir()), "a failed try leaves nothing"
    jars.mkdir(parents=True)
    assert find_test_server() == ["/bin/java", "-cp", f"{jars}/*", "io.temporal.testserver.TestServer"]
    here["temporal-test-server"] = "/bin/server"
    assert find_test_server() == ["/bin/server"]


def test_an_empty_variable_takes_an_address_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a test's stack is not led to the servers that `.env` or `holdfast.toml` names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TEMPORAL_ADDRESS=prod:7233\nHOLDFAST_DATABASE_URL=postgresql://prod/db\n")
    (tmp_path / "holdfast.toml").write_text('qdrant_url = "http://prod"\napi_base = "http://prod"\nui_port = 8233\n')
    for name in ("TEMPORAL_ADDRESS", "DATABASE_URL", "QDRANT_URL", "API_BASE", "UI_PORT"):
        monkeypatch.setenv(f"HOLDFAST_{name}", "")
    settings = load_settings()
    assert {settings.temporal_address, settings.database_url, settings.qdrant_url, settings.api_base} == {None}
    assert settings.ui_port is None


LISTENS = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]  # takes a port as the test server does


async def test_a_test_server_ends_also_when_others_hold_its_input(tmp_path: Path) -> None:
    """A test that forks hands the open end on, and waiting for it to close would take for ever."""
    server = SkippingServer(LISTENS, tmp_path)
    port = int(server.start().rpartition(":")[2])
    assert server._process is not None
    assert server._process.stdin is not None
    held = server._process.stdin.fileno()
    other = await asyncio.create_subprocess_exec("sleep", "1000", pass_fds=[held])
    try:
        server.close()
        await until(lambda: not listens(port), "the server has ended")
    finally:
        other.kill()
        await other.wait()


async def test_a_test_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Also after kill -9."""
    code = (
        "import os, sys, pathlib\nfrom holdfast.testing.skipping import SkippingServer\n"
        f"server = SkippingServer({LISTENS!r}, pathlib.Path({str(tmp_path)!r}))\n"
        "print(server.start(), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    said, _ = await done.communicate()
    assert done.returncode == -signal.SIGKILL
    port = int(said.decode().rpartition(":")[2])
    await until(lambda: not listens(port), "the server has ended")
