"""Ports: free, remembered, outside the ephemeral range, and a busy one is named."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import StackError
from holdfast.server.ports import HOST, choose_ports, is_free, wanted_ports
from holdfast.settings import load_settings

WANTED: dict[str, int | None] = {"temporal_port": None, "ui_port": None, "postgres_port": None}


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """Return a socket that listens."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    """The second start has the ports of the first: links in a browser stay good."""
    first = choose_ports(tmp_path, WANTED)
    assert len(set(first.values())) == 3
    assert all(20000 <= port < 32768 for port in first.values())
    assert choose_ports(tmp_path, WANTED) == first


def test_a_remembered_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    """The others stay as they were."""
    first = choose_ports(tmp_path, WANTED)
    with socket.socket() as other:
        other.bind((HOST, first["ui_port"]))
        other.listen()
        assert not is_free(first["ui_port"])
        second = choose_ports(tmp_path, WANTED)
    assert second["ui_port"] != first["ui_port"]
    assert second["temporal_port"] == first["temporal_port"]


def test_a_wanted_port_that_is_taken_is_an_error(tmp_path: Path, taken: socket.socket) -> None:
    """A port the user fixed is never replaced silently."""
    port = taken.getsockname()[1]
    with pytest.raises(StackError, match=rf"Port {port} \(HOLDFAST_UI_PORT\) is in use"):
        choose_ports(tmp_path, {**WANTED, "ui_port": port})


def test_a_port_wanted_twice_is_an_error(tmp_path: Path) -> None:
    """Two servers cannot have one port."""
    port = choose_ports(tmp_path, WANTED)["ui_port"]
    with pytest.raises(StackError, match=str(port)):
        choose_ports(tmp_path, {"temporal_port": port, "ui_port": port})


def test_a_damaged_note_is_ignored(tmp_path: Path) -> None:
    """ports.json is a convenience."""
    (tmp_path / "ports.json").write_text("{")
    assert choose_ports(tmp_path, WANTED)


def test_given_servers_need_no_port() -> None:
    """Only what is embedded takes ports."""
    given = load_settings(temporal_address="127.0.0.1:7233", database_url="postgresql://x@y/z")
    assert wanted_ports(given) == {}
    assert set(wanted_ports(load_settings())) == set(WANTED)
