"""What a `.env` that came with a folder may not do: keep a command waiting, or have a password sent to its server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import Client
from holdfast.errors import ConfigurationError, StorageError
from holdfast.settings import load_settings

SECRET = "the-users-own"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with a home folder and an environment that has no passwords."""
    for name in list(os.environ):
        if name.startswith(("PG", "HOLDFAST_DATABASE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


@pytest.mark.parametrize("name", [".env", "holdfast.toml"])
def test_a_pipe_keeps_no_command_waiting(folder: Path, name: str) -> None:
    """Nobody writes to it: each command ends at once, and says what is wrong."""
    os.mkfifo(folder / name)
    command = [str(Path(sys.executable).with_name("holdfast")), "runs"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert f"{name} is not a regular file" in ended.stderr


def test_a_folder_of_that_name_is_none_of_ours(folder: Path) -> None:
    """Some call their virtual environment `.env`."""
    (folder / ".env").mkdir()
    assert load_settings().database_url is None


class Listener:
    """A server that asks each client for its password in clear text and keeps what it is sent."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak PostgreSQL's protocol as far as the password."""
        size = int.from_bytes(await reader.readexactly(4), "big")
        asked = await reader.readexactly(size - 4)
        if asked[:4] == (80877103).to_bytes(4, "big"):  # for TLS
            writer.write(b"N")
            size = int.from_bytes(await reader.readexactly(4), "big")
            await reader.readexactly(size - 4)
        writer.write(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
        self.heard.append(await reader.read(1000))
        writer.close()


def _wildcard(home: Path) -> None:
    passfile = home / ".pgpass"
    passfile.write_text(f"# mine\n*:*:*:*:{SECRET}\n", encoding="utf-8")
    passfile.chmod(0o600)


@pytest.mark.parametrize("where", ["PGPASSWORD", ".pgpass", "service", "PGSERVICE"])
@pytest.mark.parametrize("file", [".env", "holdfast.toml"])
async def test_a_file_of_the_folder_draws_no_password_to_its_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, file: str
) -> None:
    """A URL that came with the folder is refused where a password of the user's would be sent to it."""
    listener, more = Listener(), ""
    if where == "PGPASSWORD":
        monkeypatch.setenv("PGPASSWORD", SECRET)
    elif where == ".pgpass":
        _wildcard(folder.parent / "home")
    else:
        text = f"[mine]\npassword={SECRET}\n"
        (folder.parent / "home" / ".pg_service.conf").write_text(text, encoding="utf-8")
        more = "?service=mine" if where == "service" else ""
        if not more:
            monkeypatch.setenv("PGSERVICE", "mine")
    async with await asyncio.start_server(listener, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"postgresql://me@127.0.0.1:{port}/db{more}"
        written = f"HOLDFAST_DATABASE_URL={url}\n" if file == ".env" else f'database_url = "{url}"\n'
        (folder / file).write_text(written, encoding="utf-8")
        monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
        with pytest.raises((ConfigurationError, StorageError)) as refused:
            await Client.connect(temporal=False)
    assert not any(SECRET.encode() in heard for heard in listener.heard)
    assert "HOLDFAST_DATABASE_URL in your environment" in str(refused.value)


async def test_the_users_own_url_may_use_the_users_password(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: from the environment, the same URL and the same password go together."""
    listener = Listener()
    monkeypatch.setenv("PGPASSWORD", SECRET)
    async with await asyncio.start_server(listener, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("HOLDFAST_DATABASE_URL", f"postgresql://me@127.0.0.1:{port}/db")
        monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
        with pytest.raises(StorageError):
            await Client.connect(temporal=False)
    assert any(SECRET.encode() in heard for heard in listener.heard)


@pytest.mark.parametrize(
    "url", ["postgresql://me:own@db.example/x", "postgresql://me@db.example/x?password=own", "postgresql:///x"]
)
def test_a_url_that_borrows_nothing_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It has a password of its own, or names no host: then the host is the user's too."""
    monkeypatch.setenv("PGPASSWORD", SECRET)
    (folder / ".env").write_text(f"HOLDFAST_DATABASE_URL={url}\n", encoding="utf-8")
    assert load_settings().database_url == url


@pytest.mark.parametrize(("host", "fits"), [("db.example", True), ("db.example,evil.example", False)])
def test_a_line_for_the_very_host_is_the_users_word(folder: Path, host: str, fits: bool) -> None:
    """A password file may say that a password belongs to a host; not to one beside it."""
    passfile = folder.parent / "home" / ".pgpass"
    passfile.write_text(f"db.example:*:*:*:{SECRET}\n", encoding="utf-8")
    passfile.chmod(0o600)
    (folder / ".env").write_text(f"HOLDFAST_DATABASE_URL=postgresql://me@{host}/x\n", encoding="utf-8")
    if fits:
        assert load_settings().database_url is not None
    else:
        with pytest.raises(ConfigurationError, match="pgpass"):
            load_settings()
