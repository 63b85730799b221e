"""The HTTP side of the embedded Temporal server, as a web page in a browser of the machine reaches it."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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


@asynccontextmanager
async def server_ports(folder: Path) -> AsyncIterator[set[int]]:
    """Run the embedded Temporal server and give the ports it listens on beside those of gRPC and the Web UI."""
    binary = find_binary(load_settings())
    assert binary is not None
    ports = choose_ports(folder, {"temporal_port": None, "ui_port": None})
    names = {"port": ports["temporal_port"], "ui_port": ports["ui_port"]}
    server = EmbeddedTemporal(folder, binary, **names, namespace="default")
    server.prepare()
    spec = server.spec(dict(os.environ))
    with subprocess.Popen(spec.command, env=spec.environment) as process:  # noqa: ASYNC220  # it does not wait
        try:
            await until(server.probe, "Temporal answers")
            yield await asyncio.to_thread(ports_of, process.pid) - set(ports.values())
        finally:
            process.kill()


async def test_no_web_page_can_start_a_workflow_by_the_http_api(tmp_path: Path) -> None:
    """The API listens on a random port of loopback that a page can find; it refuses each Host."""
    async with server_ports(tmp_path) as others:
        answers = [
            await started(port, host) for port in others for host in (None, "localhost", "evil.example", "no host")
        ]
    assert any("Host not allowed" in (answer or "") for answer in answers), answers
    assert not any((answer or "").startswith("2") for answer in answers), answers


async def dispatched(port: int, path: str) -> str | None:
    """Send a Nexus request as a page does; return its answer, `handed on` if it waits for a worker, None if no HTTP."""
    headers = {"Content-Type": "text/plain", "Origin": "http://evil.example", "Host": "evil.example"}
    patience = aiohttp.ClientTimeout(total=2.0)
    try:
        url = f"http://{HOST}:{port}{path}"
        async with aiohttp.request("POST", url, data="{}", headers=headers, timeout=patience) as answer:
            return f"{answer.status} {await answer.text()}"
    except TimeoutError:
        return "handed on"
    except (aiohttp.ClientError, OSError):
        return None


async def test_no_web_page_can_hand_work_to_workers_by_nexus(tmp_path: Path) -> None:
    """The routes of Nexus ask no Host for leave; they are off, so that none of them waits for a worker."""
    task_queue = "/namespaces/default/task-queues/holdfast/nexus-services/service/operation"
    async with server_ports(tmp_path) as others:
        answers = [await dispatched(port, task_queue) for port in others]
    assert any("nexus endpoints disabled" in (answer or "") for answer in answers), answers
    assert not any((answer or "").startswith(("2", "handed on")) for answer in answers), answers


async def test_no_web_page_of_another_origin_may_read_the_metrics(tmp_path: Path) -> None:
    """They can only be read, and no header lets a browser show them to a page from elsewhere."""
    found = 0
    async with server_ports(tmp_path) as others:
        for port in others:
            with suppress(aiohttp.ClientError, OSError):
                url, headers = f"http://{HOST}:{port}/metrics", {"Origin": "http://evil.example"}
                async with aiohttp.request("GET", url, headers=headers) as answer:
                    found += answer.status == 200
                    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert found == 1
