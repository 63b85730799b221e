"""Runs the embedded Temporal server; registers search attributes on any. Supervisor and scripts/setup call it."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.errors import HoldfastError, StackError
from holdfast.server.binary import ensure_binary, find_binary
from holdfast.server.ports import HOST
from holdfast.server.processes import ProcessSpec
from holdfast.server.search_attributes import SEARCH_ATTRIBUTES, register_command
from holdfast.settings import load_settings

if TYPE_CHECKING:
    from temporalio.client import Client

__all__ = ["TUNING", "EmbeddedTemporal", "ensure_search_attributes", "main"]

# As shipped, the queue processors poll 20 times a second and each step waits for them: about 100 ms instead of 13.
TUNING: Final[dict[str, str]] = {
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.visibilityProcessorMaxPollRPS": "2000",
    "history.outboundProcessorMaxPollRPS": "2000",
    "system.enableActivityEagerExecution": "true",
}
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=NORMAL")
_RPC_TIMEOUT: Final = 5.0


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
            *(("--dynamic-config-value", f"{name}={value}") for name, value in TUNING.items()),
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
        return await _namespace_problem(self.address, self.namespace) is None


async def _connect(address: str, namespace: str) -> Client:
    from temporalio.client import Client

    return await asyncio.wait_for(Client.connect(address, namespace=namespace), timeout=2 * _RPC_TIMEOUT)


async def _namespace_problem(address: str, namespace: str) -> str | None:
    """Return None if the server answers for *namespace*, else why not."""
    from datetime import timedelta

    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
    from temporalio.service import RPCError

    try:
        client = await _connect(address, namespace)
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=namespace), timeout=timedelta(seconds=_RPC_TIMEOUT)
        )
    except (RPCError, RuntimeError, OSError, TimeoutError) as exc:
        return str(exc) or type(exc).__name__
    return None


async def ensure_search_attributes(address: str, namespace: str) -> list[str]:
    """Register our search attributes on a server if they are missing; return the names registered now.

    Raises:
        StackError: the server does not answer, an attribute has another type, or registering is not allowed; the
            message has the command to run.

    """
    from datetime import timedelta

    from temporalio.api.enums.v1 import IndexedValueType
    from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
    from temporalio.service import RPCError, RPCStatusCode

    problem = await _namespace_problem(address, namespace)
    if problem is not None:
        raise StackError(
            f"The Temporal server at {address} cannot be used: {problem}. "
            f"Check TEMPORAL_ADDRESS, that it is up, and that it has the namespace {namespace!r} (TEMPORAL_NAMESPACE)."
        )
    kinds = {name: IndexedValueType.Value(_type_name(kind)) for name, kind in SEARCH_ATTRIBUTES.items()}
    timeout = timedelta(seconds=2 * _RPC_TIMEOUT)
    operator = (await _connect(address, namespace)).operator_service
    missing = list(kinds)
    try:
        have = await operator.list_search_attributes(ListSearchAttributesRequest(namespace=namespace), timeout=timeout)
        wrong = [name for name, kind in kinds.items() if have.custom_attributes.get(name, kind) != kind]
        if wrong:
            raise StackError(
                f"The namespace {namespace!r} at {address} has search attributes of another type: {', '.join(wrong)}. "
                f"Remove them, then run: {register_command(wrong, address=address, namespace=namespace)}"
            )
        missing = [name for name in kinds if name not in have.custom_attributes]
        if missing:
            wanted = {name: kinds[name] for name in missing}
            await operator.add_search_attributes(
                AddSearchAttributesRequest(namespace=namespace, search_attributes=wanted), timeout=timeout
            )
    except RPCError as exc:
        if exc.status == RPCStatusCode.ALREADY_EXISTS:  # another process was quicker
            return []
        raise StackError(
            f"The search attributes {', '.join(missing)} could not be registered at {address}: {exc.message}. "
            "On Temporal Cloud add them in the namespace's settings; elsewhere run: "
            + register_command(missing, address=address, namespace=namespace)
        ) from exc
    return missing


def _type_name(kind: str) -> str:
    return f"INDEXED_VALUE_TYPE_{kind.upper()}"


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
