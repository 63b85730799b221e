"""A very small Compose: order, health checks, restarts, one address and one set of mounts for each service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from scripts.compose_kit.file import ROOT, Service
from scripts.compose_kit.image import SYSTEM
from scripts.compose_kit.room import Room

_NET = "10.77.0"


class Wrong(Exception):
    """Something is not as the file says."""


@dataclass
class Container:
    """One process that stands for a container."""

    service: Service
    number: int
    work: Path  # what is its own: volumes lie beside it
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    wanted: bool = True
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # it is not started again

    @property
    def name(self) -> str:
        """Return a name for its log."""
        return f"{self.service.name}-{self.number}"


@dataclass
class Images:
    """Where the parts of the images are."""

    bin: Path
    venv: Path
    postgres: Path
    qdrant: list[str]


@dataclass
class Stack:
    """All services. Everything lives in the namespaces of the process that holds this."""

    services: dict[str, Service]
    images: Images
    work: Path
    agents: Path
    containers: list[Container] = field(default_factory=list[Container])
    tasks: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    free: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])  # unset: not started again yet

    def addresses(self) -> None:
        """Give each service an address by its name, as Compose's network does."""
        lines = ["127.0.0.1 localhost"]
        for number, name in enumerate(self.services, start=2):
            _must(f"ip addr replace {_NET}.{number}/32 dev lo")
            lines.append(f"{_NET}.{number} {name}")
        hosts = self.work / "hosts"
        hosts.write_text("\n".join(lines) + "\n", encoding="utf-8")
        _must(f"ip link set lo up && mount --bind {hosts} /etc/hosts")

    def command(self, service: Service) -> list[str]:
        """Return what the image's entrypoint comes to for *service*."""
        match service.image.partition(":")[0]:
            case "postgres" if service.command[:1] == ["/bin/sh"]:  # an entrypoint of the file's own
                return service.command
            case "postgres":
                return ["bash", str(ROOT / "scripts/compose_kit/postgres.sh"), *service.command]
            case "temporalio/server":  # its /etc/temporal/entrypoint.sh: bind on the container's own address
                return [
                    "sh",
                    "-c",
                    f"BIND_ON_IP=$(getent hosts {service.name} | cut -d' ' -f1) exec temporal-server start",
                ]
            case "temporalio/ui":
                return ["ui-server", "--root", "/app", "--config", ".", "--env", "ui-docker", "start"]
            case "qdrant/qdrant":
                return self.images.qdrant
            case _:
                return service.command

    def room(self, container: Container) -> Room:
        """Return what stands for the container: its mounts as the file has them, its user as its image has it."""
        service = container.service
        mounts = {"/etc/hosts": self.work / "hosts"}
        for inside, source in service.volumes.items():
            mounts[inside] = ROOT / source if source.startswith("./") else self.work / "volumes" / source
        user = 0
        owned: tuple[str, ...] = ("/run",)
        match service.image.partition(":")[0]:
            case "holdfast":
                user, mounts["/venv"] = 10001, self.images.venv
                if "/app/agents.py" in mounts:
                    mounts["/app/agents.py"] = self.agents
            case "postgres":
                user, owned = 999, ("/run", "/var/lib/postgresql")
            case "temporalio/ui":
                mounts["/app/ui-docker.yaml"] = self.images.bin / "ui-docker.yaml"
            case _:
                pass
        for inside, outside in mounts.items():
            if not outside.exists():
                print(f"  volume {outside.name} is new, for {inside}")
                outside.mkdir(parents=True)
        workdir = "/app" if user == 10001 or "ui" in service.name else "/"
        return Room(self.work / "layers" / container.name, service.name, user, workdir, mounts, owned)

    def environment(self, service: Service) -> dict[str, str]:
        """Return exactly the variables of the file, and the PATH of the image."""
        path = "/venv/bin" if service.image.startswith("holdfast") else f"{self.images.bin}:{self.images.postgres}"
        return {"HOME": "/tmp", "PATH": f"{path}:{SYSTEM}", **service.environment}

    async def up(self) -> None:
        """Start everything in the order that the file asks for."""
        ready: dict[str, asyncio.Task[None]] = {}
        for name, service in self.services.items():
            ready[name] = asyncio.create_task(self._bring(service, ready))
        await asyncio.gather(*ready.values())

    async def _bring(self, service: Service, ready: dict[str, asyncio.Task[None]]) -> None:
        await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.shield(ready[name]) for name in service.waits))
        began = time.monotonic()
        mine = [Container(service, n, self.work / f"{service.name}-{n}") for n in range(1, service.replicas + 1)]
        self.containers += mine
        for container in mine:
            self.tasks.append(asyncio.create_task(self._keep(container)))
        for container in mine:
            if service.health is not None:
                await self.healthy(container)
            elif service.restart != "unless-stopped":
                await container.ended.wait()
                assert container.process is not None
                if container.process.returncode:
                    raise Wrong(f"{container.name} failed; its log: {container.work}/log")
        how = "done" if service.health is None else "healthy"
        print(f"  {service.name}: {how} after {time.monotonic() - began:.1f} s")

    async def _keep(self, container: Container) -> None:
        """Run a container as its restart policy says, with the engine's pauses: 0.1 s, doubled while it keeps dying."""
        pause, policy = 0.1, container.service.restart
        container.work.mkdir(parents=True, exist_ok=True)
        with (container.work / "log").open("ab") as log:
            while container.wanted:
                began = time.monotonic()
                container.process = await asyncio.create_subprocess_exec(
                    *self.room(container).command(*self.command(container.service)),
                    env=self.environment(container.service),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                container.starts += 1
                code = await container.process.wait()
                tries = int(policy.partition(":")[2] or 0) if policy.startswith("on-failure") else 0
                again = policy == "unless-stopped" or (code != 0 and container.starts <= tries)
                if not again:
                    container.ended.set()
                    return
                pause = 0.1 if time.monotonic() - began > 10 else min(pause * 2, 60.0)
                await asyncio.sleep(pause)
                await self.free.setdefault(container.service.name, _set()).wait()

    async def healthy(self, container: Container) -> None:
        """Wait as the file's health check says; a service that stays unhealthy ends everything."""
        health = container.service.health
        assert health is not None
        deadline = time.monotonic() + health.start_period + health.retries * health.interval
        while time.monotonic() < deadline:
            await asyncio.sleep(health.interval)
            if await self.check(container):
                return
        raise Wrong(f"{container.name} is unhealthy; its log: {container.work}/log")

    async def check(self, container: Container) -> bool:
        """Run the health check once, inside."""
        health = container.service.health
        assert health is not None
        kind, *rest = health.test
        command = ["sh", "-c", rest[0]] if kind == "CMD-SHELL" else rest
        process = container.process
        if process is None or process.returncode is not None:  # an engine would not ask; here it must say no
            inside = self.room(container).command(*command)
        else:
            target = ("--target", str(process.pid), "--mount", "--uts", "--root", "--wdns=/")
            inside = ["nsenter", *target, *command]
        check = await asyncio.create_subprocess_exec(
            *inside,
            env=self.environment(container.service),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            return await asyncio.wait_for(check.wait(), health.timeout) == 0
        except TimeoutError:
            check.kill()
            return False

    async def publish(self) -> None:
        """Listen on loopback for the ports that the file publishes."""
        for service in self.services.values():
            for outside, inside in service.ports:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", outside), timeout=1):
                    continue  # the server listens on every address, and nothing lies between here

                async def forward(
                    reader: asyncio.StreamReader,
                    writer: asyncio.StreamWriter,
                    to: tuple[str, int] = (service.name, inside),
                ) -> None:
                    there = await asyncio.open_connection(*to)
                    await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

                await asyncio.start_server(forward, "127.0.0.1", outside)

    def kill(self, name: str) -> list[Container]:
        """Kill every process of a service with signal 9."""
        hit = [container for container in self.containers if container.service.name == name]
        for container in hit:
            if container.process is not None and container.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(container.process.pid, signal.SIGKILL)
        return hit

    def forget(self) -> None:
        """Remove the containers, and with them all that is in no volume."""
        for container in self.containers:
            shutil.rmtree(self.work / "layers" / container.name, ignore_errors=True)
        self.containers.clear()

    async def down(self) -> None:
        """End everything, workers first, each within its grace."""
        for container in reversed(self.containers):
            container.wanted = False
        for container in reversed(self.containers):
            process = container.process
            if process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), container.service.grace)
                except TimeoutError:
                    print(f"  {container.name} did not end within {container.service.grace:g} s")
                    self.kill(container.service.name)


def _must(line: str) -> None:
    if subprocess.run(line, shell=True, check=False).returncode:
        sys.exit(f"{line}: no namespaces of our own; scripts/compose-by-hand makes them, as root")


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
