"""What a `.env` that came with a folder may not do: have a key of the user's environment sent to its server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError
from holdfast.llm.resolve import key_variables
from holdfast.settings import load_settings
from holdfast.trust import is_loopback

KEY = "the-users-own-key"
AWAY = "https://models.example/v1"
PAIRS = [("HOLDFAST_QDRANT_URL", "HOLDFAST_QDRANT_API_KEY"), ("HOLDFAST_API_BASE", "OPENAI_API_KEY")]
pairs = pytest.mark.parametrize(("where", "key"), PAIRS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with an environment that has neither keys nor addresses."""
    for name in list(os.environ):
        if name.upper() in {each for pair in PAIRS for each in pair}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(folder: Path, file: str, **values: str) -> None:
    lines = [
        f"{name}={value}" if file == ".env" else f'{name.removeprefix("HOLDFAST_").lower()} = "{value}"'
        for name, value in values.items()
    ]
    (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _address(where: str) -> str | None:
    settings = load_settings()
    return settings.qdrant_url if where == "HOLDFAST_QDRANT_URL" else settings.api_base


@pairs
@pytest.mark.parametrize("file", [".env", "holdfast.toml"])
def test_a_file_of_the_folder_draws_no_key_to_its_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, key: str, file: str
) -> None:
    """The address is the folder's and the key is the user's: the message says where both may be, and shows no key."""
    monkeypatch.setenv(key, KEY)
    _write(folder, file, **{where: AWAY})
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    for part in (where, key, "models.example", f"Set {where} in your environment", "into .env"):
        assert part in str(refused.value)
    assert KEY not in str(refused.value)


@pairs
def test_a_key_in_the_file_does_not_excuse_the_users(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, key: str
) -> None:
    """The environment's key is the one that is used, so it is the one that would be sent."""
    monkeypatch.setenv(key, KEY)
    _write(folder, ".env", **{where: AWAY, key: "another"})
    with pytest.raises(ConfigurationError, match=f"unset {key}"):
        load_settings()


@pairs
def test_both_in_one_place_are_used(folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, key: str) -> None:
    """The controls: both in `.env`, also after a process took the key over from there; or both in the environment."""
    _write(folder, ".env", **{where: AWAY, key: KEY})
    assert _address(where) == AWAY
    monkeypatch.setenv(key, KEY)
    assert _address(where) == AWAY
    (folder / ".env").unlink()
    monkeypatch.setenv(where, AWAY)
    assert _address(where) == AWAY
    assert key_variables("openai") == ({key: KEY} if key == "OPENAI_API_KEY" else {})


@pairs
def test_the_users_address_goes_before_the_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, key: str
) -> None:
    """From the environment or as an argument it is the user's word, whatever a file says; so is an empty one."""
    monkeypatch.setenv(key, KEY)
    _write(folder, ".env", **{where: AWAY})
    assert load_settings(qdrant_url="https://mine.example", api_base="https://mine.example") is not None
    monkeypatch.setenv(where, "https://mine.example")
    assert _address(where) == "https://mine.example"
    monkeypatch.setenv(where, "")
    assert _address(where) is None


@pairs
@pytest.mark.parametrize("key_set", [True, False])
def test_what_sends_no_key_away_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, key: str, key_set: bool
) -> None:
    """A server of this machine may be given a key; a server elsewhere may be named where there is no key."""
    if key_set:
        monkeypatch.setenv(key, KEY)
    address = "http://127.0.0.1:8000/v1" if key_set else AWAY
    _write(folder, ".env", **{where: address})
    assert _address(where) == address


def test_a_folders_address_names_no_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker would put the secret's value into the address; in the environment the user may say so."""
    named = "https://models.example/${secret:GITHUB_TOKEN}/v1"
    _write(folder, ".env", HOLDFAST_API_BASE=named)
    with pytest.raises(ConfigurationError, match="the secrets that it names"):
        load_settings()
    monkeypatch.setenv("HOLDFAST_API_BASE", named)
    assert load_settings().api_base == named


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:6333", True),
        ("http://LOCALHOST/v1", True),
        ("http://127.0.0.2", True),
        ("http://[::1]:6333/", True),
        ("http://127.0.0.1@evil.example/", False),
        ("http://evil.example\\@127.0.0.1/", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://localhost.evil.example/", False),
        ("http://192.168.0.2/", False),
        ("http://0.0.0.0/", False),
        ("http://evil.example#@127.0.0.1/", False),
        ("http://evil.example/ @127.0.0.1/", False),
        ("http://[::1", False),
        ("http://", False),
    ],
)
def test_what_is_of_this_machine(url: str, local: bool) -> None:
    """An address that could be read in two ways is not."""
    assert is_loopback(url) is local
