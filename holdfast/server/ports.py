"""Finds free loopback ports for the embedded servers and remembers them. The supervisor and `testing` call it."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from pathlib import Path
from typing import Final

import psutil

from holdfast.errors import StackError
from holdfast.settings import Settings

__all__ = ["HOST", "choose_ports", "is_free", "listens", "wanted_ports"]

HOST: Final = "127.0.0.1"

# Below the ephemeral ranges of Linux (32768) and macOS (49152): a client that retries a port of the ephemeral range
# while the server restarts can connect to itself, and then holds the port that the server needs back.
_LOWEST: Final = 20000
_HIGHEST: Final = 32000


def is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Say whether something takes connections on this loopback port now."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _owner(port: int) -> str:
    """Name the process that listens on *port*, as far as we may see it."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}" if connection.pid else "unknown"
    except psutil.Error:
        pass
    return "unknown"


def choose_ports(home: Path, wanted: dict[str, int | None]) -> dict[str, int]:
    """Return a free port for each name: the one asked for, else the one used last time, else any.

    The choice is kept in `{home}/ports.json`, so that links and clients stay good over a restart.

    Raises:
        StackError: a port that was asked for is in use.

    """
    path = home / "ports.json"
    try:
        remembered: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remembered = {}
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        if port is not None:
            if port in chosen.values() or not is_free(port):
                raise StackError(
                    f"Port {port} (HOLDFAST_{name.upper()}) is in use ({_owner(port)}). "
                    f"Stop what uses it, or set HOLDFAST_{name.upper()} to another port, or unset it to get a free one."
                )
            chosen[name] = port
    for name in wanted:
        port = chosen.get(name) or remembered.get(name)
        while port is None or (chosen.get(name) != port and (port in chosen.values() or not is_free(port))):
            port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        chosen[name] = port
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({**remembered, **chosen}), encoding="utf-8")
    fresh.replace(path)
    return chosen


def wanted_ports(settings: Settings) -> dict[str, int | None]:
    """Return the ports that the embedded servers of these settings need, with those the user fixed."""
    wanted: dict[str, int | None] = {}
    if settings.temporal_address is None:
        wanted |= {"temporal_port": settings.temporal_port, "ui_port": settings.ui_port}
    if settings.database_url is None:
        wanted["postgres_port"] = settings.postgres_port
    return wanted
