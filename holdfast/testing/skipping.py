"""Temporal's time-skipping test server: found, or got with Maven where Java is. A stack of tests may run on one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from holdfast.errors import StackError
from holdfast.server.binary import cache_folder
from holdfast.server.ports import HOST, choose_ports, listens
from holdfast.tools.builtin.processes import GUARD

__all__ = ["MAVEN", "NoTestServer", "SkippingServer", "find_test_server"]

MAVEN: Final = "io.temporal:temporal-test-server:1.32.0"
_CHECKSUMS: Final = Path(__file__).with_name("test-server.sha256")  # of each jar that Maven has to get, and no other
_MAIN: Final = "io.temporal.testserver.TestServer"
_NAMES: Final = ("temporal-test-server",)  # as Temporal's releases name the program
_GETTING: Final = 600.0  # seconds: Maven downloads about 40 files the first time
_STARTING: Final = 60.0
_ENDING: Final = 1.0
_POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>holdfast</groupId><artifactId>test-server</artifactId><version>1</version>
<dependencies><dependency><groupId>{0}</groupId><artifactId>{1}</artifactId><version>{2}</version></dependency>
</dependencies></project>
"""


class NoTestServer(StackError):
    """No time-skipping test server is here, and none could be had."""


def find_test_server(named: str | None = None, hear: Callable[[str], None] = lambda _: None) -> list[str]:
    """Return the command that starts a test server when a port is appended: the program *named*, one on PATH, or Java.

    With Java and no copy in our cache yet, Maven gets one, once; *hear* is told.

    Raises:
        NoTestServer: there is none; the message says what was looked for and what would help.

    """
    if named:
        program = shutil.which(os.path.expanduser(named))  # noqa: PTH111  # a name on PATH is no path
        if program is None:
            raise NoTestServer(f"holdfast_test_server names {named}, but no program is there")
        return [program]
    for name in _NAMES:
        if (program := shutil.which(name)) is not None:
            return [program]
    java = shutil.which("java")
    if java is None:
        raise NoTestServer(
            f"no {_NAMES[0]} on PATH, and no java to run {MAVEN}: install either, or name a program with the option "
            "holdfast_test_server"
        )
    jars = cache_folder().parent / "test-server" / MAVEN.rpartition(":")[2]
    if not jars.is_dir():
        _get(jars, hear)
    return [java, "-cp", f"{jars}/*", _MAIN]


def _get(jars: Path, hear: Callable[[str], None]) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NoTestServer(
            f"no {_NAMES[0]} on PATH; java is here, but no mvn to get {MAVEN}: put its jars into {jars}, or "
            "install Maven"
        )
    hear(f"getting {MAVEN} with Maven (once)")
    fresh = jars.with_name(f"{jars.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    try:
        (fresh / "pom.xml").write_text(_POM.format(*MAVEN.split(":")), encoding="utf-8")
        goal = ("dependency:copy-dependencies", f"-DoutputDirectory={fresh}")
        done = subprocess.run(
            [maven, "-q", "-B", "-f", str(fresh / "pom.xml"), *goal],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GETTING,
            check=False,
        )
        if done.returncode != 0:
            raise NoTestServer(f"mvn could not get {MAVEN}: {(done.stdout + done.stderr).strip()[-500:]}")
        (fresh / "pom.xml").unlink()
        _compare(fresh)
        with contextlib.suppress(OSError):  # another process had it first
            fresh.rename(jars)
    except subprocess.TimeoutExpired:
        raise NoTestServer(f"mvn did not get {MAVEN} within {_GETTING:.0f} s") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _compare(folder: Path) -> None:
    """Refuse jars whose checksum is not the pinned one: Maven compares them only with what their own source says."""
    pinned = {name: digest for digest, name in map(str.split, _CHECKSUMS.read_text(encoding="ascii").splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    if wrong := sorted(name for name in pinned | found if pinned.get(name) != found.get(name)):
        raise NoTestServer(
            f"mvn downloaded files for {MAVEN} that do not match the checksums in {_CHECKSUMS}: "
            f"{', '.join(wrong[:5])}. They were removed; they may have been replaced on the way from Maven's repository"
        )


class SkippingServer:
    """A test server of our own. It ends with whoever started it, also after kill -9."""

    def __init__(self, command: list[str], folder: Path) -> None:
        """Start nothing yet; *command* as `find_test_server` gives it."""
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self) -> str:
        """Start it with its time standing still but for the real one, and return its address.

        Raises:
            StackError: it did not start; the message has what it said.

        """
        self._folder.mkdir(parents=True, exist_ok=True)
        port = choose_ports(self._folder, {"test_server_port": None})["test_server_port"]
        log = self._folder / "test-server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                # it ends when our end of its standard input closes
                [sys.executable, "-I", "-S", GUARD, "serve", str(_ENDING), *self._command, str(port)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.address = f"{HOST}:{port}"
        deadline = time.monotonic() + _STARTING
        while not listens(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise StackError(f"the test server did not start: {log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.05)
        return self.address

    async def skip(self, seconds: float, patience: float) -> None:
        """Let *seconds* pass. Waits up to *patience* seconds for steps under way."""
        from datetime import timedelta

        from temporalio.api.testservice.v1 import SleepRequest
        from temporalio.client import Client
        from temporalio.service import RPCError

        from holdfast.convert import quiet_runtime

        request = SleepRequest()
        request.duration.FromTimedelta(timedelta(seconds=seconds))
        client = await Client.connect(self.address, runtime=quiet_runtime())
        try:
            async with asyncio.timeout(patience):
                await client.test_service.unlock_time_skipping_with_sleep(request)
        except (RPCError, TimeoutError) as exc:
            raise StackError(
                f"Temporal's time did not pass within {patience:g} s: a step is under way. Skip when the run waits."
            ) from exc

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(3 * _ENDING)
            except subprocess.TimeoutExpired:  # a process that a test has forked holds our end open as well
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
