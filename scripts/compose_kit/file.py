"""docker-compose.yml and Dockerfile as data: what each service is given, waits for and is asked whether it is well."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::?(?:-(?P<default>[^}]*)|\?[^}]*))?\}")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Health:
    """The health check of a service, in seconds."""

    test: list[str]
    interval: float
    timeout: float
    retries: int
    start_period: float


@dataclass(frozen=True)
class Service:
    """One service with variables filled in."""

    name: str
    image: str
    environment: dict[str, str]
    command: list[str]
    volumes: dict[str, str] = field(default_factory=dict[str, str])  # path inside: volume or path outside
    ports: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])  # outside, inside
    waits: dict[str, str] = field(default_factory=dict[str, str])
    health: Health | None = None
    restart: str = "no"
    replicas: int = 1
    grace: float = 10.0

    @property
    def version(self) -> str:
        """Return the version its image is pinned to."""
        return self.image.rpartition(":")[2].removeprefix("v")


def services(variables: dict[str, str]) -> dict[str, Service]:
    """Return the services of docker-compose.yml as Compose sees them with *variables* set."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    text = _VARIABLE.sub(lambda match: variables.get(match["name"]) or match["default"] or "", text)
    return {name: _service(name, given) for name, given in yaml.safe_load(text)["services"].items()}


def _service(name: str, given: dict[str, Any]) -> Service:
    volumes: dict[str, str] = {}
    for volume in given.get("volumes", []):
        if isinstance(volume, str):
            source, inside = volume.split(":")[:2]
        else:
            source, inside = volume["source"], volume["target"]
        volumes[inside] = source
    ports = [tuple(map(int, port.split(":")[-2:])) for port in given.get("ports", [])]
    health = given.get("healthcheck")
    return Service(
        name=name,
        image=given["image"],
        environment={key: str(value) for key, value in given.get("environment", {}).items()},
        command=[*given.get("entrypoint", []), *given.get("command", [])],
        volumes=volumes,
        ports=[(outside, inside) for outside, inside in ports],
        waits={on: how["condition"] for on, how in given.get("depends_on", {}).items()},
        health=None
        if health is None
        else Health(
            test=health["test"],
            interval=seconds(health["interval"]),
            timeout=seconds(health["timeout"]),
            retries=health["retries"],
            start_period=seconds(health.get("start_period", "0s")),
        ),
        restart=given.get("restart", "no"),
        replicas=given.get("deploy", {}).get("replicas", 1),
        grace=seconds(given.get("stop_grace_period", "10s")),
    )


def seconds(duration: str) -> float:
    """Return a duration of Compose, such as 1m30s, in seconds."""
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", duration))


def dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile as instructions: (word, rest), continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]
