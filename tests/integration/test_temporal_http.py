"""The HTTP side of the embedded Temporal server, as a web page in a browser of the machine reaches it."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from pathlib import Path

import aiohttp
import psutil

from holdfast.server.binary import find_binary
from holdfast.server.ports import HOST, choose_ports
from holdfast.server.temporal import EmbeddedTemporal
from holdfast.settings import load_settings
from tests.kit import until

START = "/api/v1/namespaces/default/workflows/{}"
BODY = '{"workflowType": {"name": "AskWorkflow"}, "taskQueue": {"name": "q"}}'


def ports_of(pid: int) -> set[int]:
    """Return the ports that a process listens on."""
    listening = psutil.Process(pid).net_connections(kind="tcp")
    return {each.laddr.port for each in listening if each.status == psutil.CONN_LISTEN}


async def started(port: int, host: str | None) -> str | None:
    """Have the HTTP API start a workflow as a page does without asking first; return its answer, None without one."""
    headers = {"Content-Type": "text/plain"} | ({"Host": host} if host is not None else {})
    url = f"http://{HOST}:{port}{START.format(secrets.token_hex(4))}"
    try:
        async with aiohttp.request("POST", url, data=BODY, headers=headers) as answer:
            return f"{answer.status} {await answer.text()}"
    except (aiohttp.ClientError, OSError):  # the port of gRPC speaks another protocol
        return None


async def test_no_web_page_can_start_a_workflow_by_the_http_api(tmp_path: Path) -> None:
    """The API listens on a random port of loopback that a page can find; it refuses each Host."""
    binary = find_binary(load_settings())
    assert binary is not None
    ports = choose_ports(tmp_path, {"temporal_port": None, "ui_port": None})
    names = {"port": ports["temporal_port"], "ui_port": ports["ui_port"]}
    server = EmbeddedTemporal(tmp_path, binary, **names, namespace="default")
    server.prepare()
    spec = server.spec(dict(os.environ))
    with subprocess.Popen(spec.command, env=spec.environment) as process:  # noqa: ASYNC220  # it does not wait
        try:
            await until(server.probe, "Temporal answers")
            others = await asyncio.to_thread(ports_of, process.pid) - set(ports.values())
            answers = [
                await started(port, host) for port in others for host in (None, "localhost", "evil.example", "no host")
            ]
        finally:
            process.kill()
    assert any("Host not allowed" in (answer or "") for answer in answers), answers
    assert not any((answer or "").startswith("2") for answer in answers), answers
