"""Finds a Temporal server binary, or gets one (download, Go). The supervisor, scripts/setup and doctor call it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final, TypeVar

from holdfast.errors import TemporalBinaryNotFound
from holdfast.server import release
from holdfast.settings import Settings

__all__ = ["CLI_VERSION", "cache_folder", "ensure_binary", "find_binary", "way_to_get"]

CLI_VERSION: Final = (
    f"v{release.VERSION}"  # server 1.29; later versions have a replace in their go.mod, which Go ignores here
)
_PACKAGE: Final = "github.com/temporalio/cli/cmd/temporal"
_STAMP: Final = f"-X github.com/temporalio/cli/temporalcli.Version={release.VERSION}"  # else it calls itself 0.0.0-DEV
_MODULE: Final = Path(__file__).with_name(
    "temporal_cli"
)  # go.mod and go.sum: the checksum of every module of the build
_BUILD_TIMEOUT: Final = 1200.0
_VERSION_TIMEOUT: Final = 20.0
T = TypeVar("T")


def cache_folder() -> Path:
    """Return the folder, outside any project, where a binary once had is kept for all."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "holdfast" / "bin"


def _usable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _on_path(name: str) -> str | None:
    """Return a program on PATH, not one of the current folder: PATH may have an empty entry without anyone's wish."""
    found = shutil.which(name)
    return found if found is not None and Path(found).is_absolute() else None


def find_binary(settings: Settings) -> Path | None:
    """Return a binary that is here already, or None. Touches no network.

    Raises:
        TemporalBinaryNotFound: `temporal_binary` is set and there is no program at that path.

    """
    if settings.temporal_binary is not None:
        named = settings.temporal_binary.expanduser().absolute()
        if _usable(named):
            return named
        raise TemporalBinaryNotFound(
            f"HOLDFAST_TEMPORAL_BINARY names {named}, but no program is there. Correct the path, or unset it."
        )
    on_path = _on_path("temporal")
    if on_path is not None:
        return Path(on_path)
    cached = cache_folder() / "temporal"
    return cached if _usable(cached) else None


async def ensure_binary(settings: Settings, notify: Callable[[str], None]) -> Path:
    """Return a Temporal server binary, getting one if there is none; *notify* hears what takes long.

    Raises:
        TemporalBinaryNotFound: none is here and none could be had; the message says what was tried and what to do.

    """
    found = find_binary(settings)
    if found is not None:
        return found
    cache = cache_folder()
    tried: list[str] = []
    async with _only_one(cache, notify):
        if _usable(cache / "temporal"):  # another process has got it meanwhile
            return cache / "temporal"
        for way in (_download, _build):
            problem = await way(cache, notify)
            if problem is None:
                return cache / "temporal"
            tried.append(problem)
    raise TemporalBinaryNotFound(
        "No Temporal server was found: HOLDFAST_TEMPORAL_BINARY is not set, there is no `temporal` on PATH or in "
        f"{cache}.\n" + "\n".join(f"  - {line}" for line in tried) + "\nDo one of these, then try again:\n"
        "  - install the Temporal CLI (https://docs.temporal.io/cli) so that `temporal` is on PATH;\n"
        "  - set HOLDFAST_TEMPORAL_BINARY to a `temporal` binary;\n"
        f"  - install Go, which builds it once in a few minutes (go install {_PACKAGE}@{CLI_VERSION});\n"
        "  - set TEMPORAL_ADDRESS to a Temporal server that runs elsewhere."
    )


def _open_lock(cache: Path) -> IO[str]:
    cache.mkdir(parents=True, exist_ok=True)
    return (cache / "lock").open("w")


@contextlib.asynccontextmanager
async def _only_one(cache: Path, notify: Callable[[str], None]) -> AsyncIterator[None]:
    """Let one process at a time fill the cache; the others wait for its result."""
    with _open_lock(cache) as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    notify("another process is getting the Temporal server; waiting for it")
                    told = True
                await asyncio.sleep(0.2)
        yield


async def _works(path: Path) -> bool:
    """Say whether *path* is a Temporal CLI that runs on this machine."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(str(path), "--version"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return False
    try:
        out, _ = await asyncio.wait_for(process.communicate(), timeout=_VERSION_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return process.returncode == 0 and b"temporal version" in out


def _reachable() -> bool:
    """Find out in 3 s at most whether a download has a chance; through a proxy only the download itself can tell."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.create_connection((release.HOST, 443), timeout=3.0).close()
    except OSError:
        return False
    return True


def way_to_get() -> str | None:
    """Return what a first start would do to get a server, or None if it could not. Takes 3 s at most."""
    if _reachable():
        return f"downloads the server {CLI_VERSION}, or builds it where Go is installed"
    return f"builds the server {CLI_VERSION} with Go (a few minutes)" if _on_path("go") else None


async def _in_thread(work: Callable[[threading.Event], T]) -> T:
    """Do *work* in a thread that neither a cancelled caller nor the end of the process waits for.

    `asyncio.run` waits for the threads of `asyncio.to_thread`. The event is set once the result is not wanted any more.
    """
    stop, done = threading.Event(), Future[T]()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work(stop))
        except BaseException as exc:  # noqa: BLE001  # raised where it is awaited
            done.set_exception(exc)

    threading.Thread(target=run, name="holdfast-download", daemon=True).start()
    try:
        return await asyncio.wrap_future(done)
    finally:
        stop.set()


async def _download(cache: Path, notify: Callable[[str], None]) -> str | None:
    """Download the release whose checksum is pinned into the cache; return None, or why that failed."""
    if not await _in_thread(lambda _: _reachable()):
        return f"download: {release.HOST} cannot be reached"
    notify(f"downloading the Temporal server {CLI_VERSION} (once)")
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-", ignore_cleanup_errors=True) as folder:
        problem = await _in_thread(lambda stop: release.fetch(Path(folder), stop))
        if problem is not None:
            return f"download: {problem}"
        program = Path(folder) / "temporal"
        if not await _works(program):
            return "download: the program does not run on this machine"
        program.replace(cache / "temporal")
    return None


async def _build(cache: Path, notify: Callable[[str], None]) -> str | None:
    """Build the CLI with Go into the cache, from modules with pinned checksums; return None, or why that failed."""
    go = _on_path("go")
    if go is None:
        return "build: Go is not installed"
    notify(f"building the Temporal server {CLI_VERSION} with Go (once; about 3 minutes on two cores)")
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as folder:
        for name in ("go.mod", "go.sum"):  # copied: Go wants to lock the folder it works in, and ours may be read-only
            shutil.copy(_MODULE / name, folder)
        program = Path(folder) / "temporal"
        process = await asyncio.create_subprocess_exec(
            *(go, "build", "-mod=readonly", "-trimpath", "-ldflags", _STAMP, "-o", str(program), _PACKAGE),
            env={**os.environ, "GOWORK": "off"},
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, err = await asyncio.wait_for(process.communicate(), timeout=_BUILD_TIMEOUT)
        except TimeoutError:
            return f"build: `go build {_PACKAGE}` took longer than {_BUILD_TIMEOUT:.0f} s"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode != 0:
            return f"build: `go build {_PACKAGE}` failed: {_reason(err.decode(errors='replace'))}"
        if not await _works(program):
            return "build: the built binary does not run"
        program.replace(cache / "temporal")
    return None


def _reason(said: str) -> str:
    """Return the line of Go's message that names the cause: the first of a refused checksum, else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no message"]
    return next((line for line in lines if "checksum mismatch" in line), lines[-1])
