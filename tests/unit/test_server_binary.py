"""The ladder of the Temporal binary: path, PATH, cache, download, Go; and what is said when none helps."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import TemporalBinaryNotFound
from holdfast.server import doctor, release
from holdfast.server.binary import cache_folder, ensure_binary, find_binary
from holdfast.server.temporal import main
from holdfast.settings import load_settings

USUAL_PATH = os.environ.get("PATH")


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
        f'echo "$@" >> {tmp_path}/calls\nhere=$PWD/temporal\necho "#!/bin/sh" > $here\n'
        'echo "echo temporal version 1.5.1" >> $here\n/bin/chmod 755 $here',
    )
    said: list[str] = []
    assert await ensure_binary(load_settings(), said.append) == cache_folder() / "temporal"
    assert await ensure_binary(load_settings(), said.append) == cache_folder() / "temporal"
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("build -mod=readonly ")
    assert call.endswith("/temporal github.com/temporalio/cli/cmd/temporal")
    assert any("Go" in line for line in said)
    assert sorted(os.listdir(cache_folder())) == ["lock", "temporal"]  # noqa: PTH208  # no half builds left behind


def tampered(proxy: Path) -> None:
    """Write a Go module proxy whose Temporal CLI is somebody else's program."""
    folder = proxy / "github.com/temporalio/cli/@v"
    folder.mkdir(parents=True)
    (folder / "v1.5.1.info").write_text('{"Version": "v1.5.1", "Time": "2025-11-04T00:00:00Z"}')
    (folder / "list").write_text("v1.5.1\n")
    (folder / "v1.5.1.mod").write_text("module github.com/temporalio/cli\n")
    with zipfile.ZipFile(folder / "v1.5.1.zip", "w") as archive:
        root = "github.com/temporalio/cli@v1.5.1"
        archive.writestr(f"{root}/go.mod", "module github.com/temporalio/cli\n")
        archive.writestr(
            f"{root}/cmd/temporal/main.go", 'package main\nfunc main() { println("temporal version 1.5.1") }'
        )


def test_a_tampered_module_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our go.sum refuses it, even where the environment turns Go's own checksum database off."""
    where_go_is = shutil.which("go", path=USUAL_PATH)
    if where_go_is is None:  # then nothing is built at all
        with pytest.raises(TemporalBinaryNotFound, match="Go is not installed"):
            asyncio.run(ensure_binary(load_settings(), lambda _: None))
        return
    monkeypatch.setenv("GOCACHE", subprocess.check_output([where_go_is, "env", "GOCACHE"], text=True).strip())
    (tmp_path / "bin" / "go").symlink_to(where_go_is)
    tampered(tmp_path / "proxy")
    for name, value in {
        "GOPROXY": f"file://{tmp_path}/proxy",
        "GOSUMDB": "off",
        "GONOSUMDB": "*",
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOMODCACHE": str(tmp_path / "modules"),
        "GOTOOLCHAIN": "local",
    }.items():
        monkeypatch.setenv(name, value)
    package = "github.com/temporalio/cli/cmd/temporal@v1.5.1"
    subprocess.run([where_go_is, "install", package], check=True, env={**os.environ, "GOBIN": str(tmp_path)})
    assert subprocess.run([tmp_path / "temporal"], check=True).returncode == 0, "the control: without it, it is built"
    with pytest.raises(TemporalBinaryNotFound, match="checksum mismatch"):
        asyncio.run(ensure_binary(load_settings(), lambda _: None))
    assert not (cache_folder() / "temporal").exists()


def test_the_checksums_are_of_the_version_that_is_downloaded() -> None:
    """One version, whichever way it comes."""
    folder = Path(release.__file__).with_name("temporal_cli")
    assert f"github.com/temporalio/cli v{release.VERSION}" in (folder / "go.mod").read_text()
    assert f"github.com/temporalio/cli v{release.VERSION} h1:" in (folder / "go.sum").read_text()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Serve files over HTTP in place of the place where Temporal publishes its releases."""
    files: dict[str, bytes] = {}

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Stay quiet."""

        def log_error(self, format: str, *args: object) -> None:  # noqa: A002  # the name it has there
            """Stay quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(release, "_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(release, "_machine", lambda: "linux_amd64")
        yield files
        server.shutdown()


def archived(text: str) -> bytes:
    """Return a release archive whose program is a shell script."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in (("LICENSE", b"MIT"), ("temporal", f"#!/bin/sh\n{text}\n".encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


async def test_a_release_with_the_pinned_checksum_is_used(
    site: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is downloaded, compared, unpacked and tried; nothing else is left in the cache."""
    body = archived("echo temporal version 1.5.1")
    site["/temporal_cli_1.5.1_linux_amd64.tar.gz"] = body
    monkeypatch.setitem(release.DIGESTS, "linux_amd64", hashlib.sha256(body).hexdigest())
    found = await ensure_binary(load_settings(), lambda _: None)
    assert found == cache_folder() / "temporal"
    assert sorted(os.listdir(cache_folder())) == ["lock", "temporal"]  # noqa: PTH208


async def test_a_release_with_another_checksum_is_refused(site: dict[str, bytes], tmp_path: Path) -> None:
    """It is neither unpacked nor run, and the message has both checksums."""
    body = archived(f"echo ran > {tmp_path}/ran; echo temporal version 1.5.1")
    site["/temporal_cli_1.5.1_linux_amd64.tar.gz"] = body
    with pytest.raises(TemporalBinaryNotFound) as caught:
        await ensure_binary(load_settings(), lambda _: None)
    for part in ("was refused", hashlib.sha256(body).hexdigest(), release.DIGESTS["linux_amd64"]):
        assert part in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert os.listdir(cache_folder()) == ["lock"]  # noqa: PTH208


async def test_a_release_that_is_not_there_says_so(site: dict[str, bytes]) -> None:
    """The address and the answer are in the message, and Go is tried next."""
    with pytest.raises(TemporalBinaryNotFound, match=r"linux_amd64.tar.gz: HTTP Error 404.*\n.*Go is not installed"):
        await ensure_binary(load_settings(), lambda _: None)


STALLED = """
import asyncio, sys
from pathlib import Path
from holdfast.server import binary, release
from holdfast.server.supervisor import run_stack
from holdfast.settings import load_settings

release._URL, release._machine = sys.argv[1], lambda: "linux_amd64"
settings = load_settings(home=Path(sys.argv[2]))
stack = run_stack(settings, on_ready=lambda _: None)
asyncio.run(stack if sys.argv[3] == "stack" else binary.ensure_binary(settings, print))
"""


@pytest.fixture
def stalling() -> Iterator[tuple[str, threading.Event]]:
    """Serve an archive of which only the first half is ever sent; give the address, and what is set at that half."""
    half, over = threading.Event(), threading.Event()

    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2000000")
            self.end_headers()
            self.wfile.write(b"x" * 1_000_000)
            half.set()
            over.wait()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Stay quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", half
        over.set()
        server.shutdown()


@pytest.mark.parametrize("what", ["command", "stack"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_download_that_stalls_keeps_no_process(
    stalling: tuple[str, threading.Event], tmp_path: Path, what: str, sent: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM, which `holdfast down` sends, end it well before the 20 s that a silent server is given."""
    url, half = stalling
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", STALLED, url, str(tmp_path / "home"), what]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        try:
            assert half.wait(60), "it downloads"
            began = time.monotonic()
            process.send_signal(sent)
            process.wait(60)
            assert time.monotonic() - began < 10
        finally:
            process.kill()
    if (what, sent) != ("command", signal.SIGTERM):  # there nobody handles SIGTERM, and the process ends where it is
        assert os.listdir(cache_folder()) == ["lock"]  # noqa: PTH208


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
