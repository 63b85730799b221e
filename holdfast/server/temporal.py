"""Runs the embedded Temporal server. Supervisor and scripts/setup call it."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from holdfast.errors import HoldfastError
from holdfast.search_attributes import SEARCH_ATTRIBUTES, namespace_problem
from holdfast.server.binary import ensure_binary, find_binary
from holdfast.server.ports import HOST
from holdfast.server.processes import ProcessSpec
from holdfast.settings import load_settings

__all__ = ["CLOSED", "TUNING", "EmbeddedTemporal", "main"]

# As shipped, the queue processors poll 20 times a second and each step waits for them: about 100 ms instead of 13.
TUNING: Final[dict[str, str]] = {
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.visibilityProcessorMaxPollRPS": "2000",
    "history.outboundProcessorMaxPollRPS": "2000",
    "system.enableActivityEagerExecution": "true",
    # How far the clocks of several servers may differ. Here is one, and each timer would be up to a second late for it.
    "history.timerProcessorMaxTimeShift": '"20ms"',
}
# The HTTP API cannot be turned off, asks for no password and checks neither Origin nor Content-Type: any web page in a
# browser of this machine could start runs and approve calls. Nothing uses it. No request has a Host with a blank in it.
# That list is not asked for the routes of Nexus, on the same port, which hand any page's request to workers.
CLOSED: Final[dict[str, str]] = {"frontend.httpAllowedHosts": '["no host"]', "system.enableNexus": "false"}
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=NORMAL")


class EmbeddedTemporal:
    """A Temporal dev server with its Web UI, its data in one file under `{home}/temporal`."""

    def __init__(self, home: Path, binary: Path, *, port: int, ui_port: int, namespace: str) -> None:
        """Name the parts; nothing is started yet."""
        self.folder = home / "temporal"
        self.binary = binary
        self.port = port
        self.ui_port = ui_port
        self.namespace = namespace

    @property
    def address(self) -> str:
        """host:port of the frontend."""
        return f"{HOST}:{self.port}"

    @property
    def ui(self) -> str:
        """Base URL of the Web UI."""
        return f"http://{HOST}:{self.ui_port}"

    def spec(self, environment: dict[str, str]) -> ProcessSpec:
        """Return how the server is started and stopped."""
        repeated = [
            *(("--dynamic-config-value", f"{name}={value}") for name, value in (TUNING | CLOSED).items()),
            *(("--sqlite-pragma", pragma) for pragma in _PRAGMAS),
            *(("--search-attribute", f"{name}={kind}") for name, kind in SEARCH_ATTRIBUTES.items()),
        ]
        return ProcessSpec(
            name="temporal",
            command=(
                *(str(self.binary), "server", "start-dev", "--ip", HOST, "--port", str(self.port)),
                *("--ui-port", str(self.ui_port), "--namespace", self.namespace),
                *("--db-filename", str(self.folder / "temporal.db"), "--log-level", "error"),
                *(part for pair in repeated for part in pair),
            ),
            # The CLI reads TEMPORAL_* as its own flags: those of the user mean other commands than this one.
            environment={name: value for name, value in environment.items() if not name.startswith("TEMPORAL_")},
            role="server",
            prepare=self.prepare,
            probe=self.probe,
        )

    def prepare(self) -> None:
        """Make the folder of the data file."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def probe(self) -> bool:
        """Say whether the frontend answers for our namespace."""
        try:
            _, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        writer.close()
        return await namespace_problem(self.address, self.namespace) is None


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(argv: list[str] | None = None) -> int:
    """Find or get the binary (`--ensure`) and print its path; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.server.temporal", description=__doc__)
    parser.add_argument("--ensure", action="store_true", required=True, help="find or get the binary; print its path")
    parser.parse_args(argv)
    try:
        settings = load_settings()
        if settings.temporal_address is not None:
            sys.stdout.write(f"{settings.temporal_address}\n")
        else:
            binary = find_binary(settings) or asyncio.run(ensure_binary(settings, _tell))
            sys.stdout.write(f"{os.fspath(binary)}\n")
    except HoldfastError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
