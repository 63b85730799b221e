"""docker-compose.yml: valid by the Compose specification, and every variable in it is a setting that exists."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from holdfast.process import stay_ready
from holdfast.server.temporal import CLOSED, TUNING
from holdfast.settings import Settings, defaults
from scripts.compose_kit.file import dockerfile, seconds
from tests.kit import until

ROOT = Path(__file__).resolve().parents[2]
WHERE = {"ready": "/tmp/holdfast.ready", "port": "6333"}  # what the checks below are turned from
VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::?(?P<how>[-?])(?P<default>[^}]*))?\}")

# The official schema, unchanged, which Compose itself validates with: schema/compose-spec.json of the Go module
# github.com/compose-spec/compose-go/v2 v2.16.2 (Apache-2.0). It takes any text for ports and durations.
SCHEMA = json.loads(Path(__file__).with_name("compose-spec.json").read_text(encoding="utf-8"))
REQUIRED = {"POSTGRES_PASSWORD": "super", "OWNER_PASSWORD": "owner", "QDRANT_API_KEY": "key"}


@pytest.fixture(scope="module")
def text() -> str:
    """Return the file as it is."""
    return (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose(text: str) -> Any:
    """Return the file as Compose sees it with what must be set: defaults filled in, merge keys resolved."""
    return yaml.safe_load(VARIABLE.sub(lambda match: REQUIRED.get(match["name"], match["default"]), text))


def accepted_variables() -> set[str]:
    """Return the names of all environment variables that Settings reads."""
    names = set()
    for name, field in Settings.model_fields.items():
        names.add(f"HOLDFAST_{name.upper()}")
        choices = getattr(field.validation_alias, "choices", [])
        names |= {choice for choice in choices if isinstance(choice, str) and choice.isupper()}
    return names


def test_the_file_is_valid_compose(compose: Any) -> None:
    """Every key is of the specification, with a value it allows, by the schema that Compose itself uses."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(compose)


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("qdrant", "ports", [{"target": []}]),
        ("qdrant", "imagee", "x"),
        ("qdrant", "restart", True),
        ("qdrant", "healthcheck", {"test": "true", "retry": 3}),
        ("workers", "deploy", {"replicas": "many", "replica": 1}),
        ("workers", "env_file", [{"required": False}]),
        ("workers", "volumes", [{"type": "bind", "bind": {"create_host_pat": False}}]),
        ("workers", "depends_on", {"qdrant": {"condition": "healthy"}}),
    ],
)
def test_the_schema_refuses_mistakes(compose: Any, service: str, key: str, value: Any) -> None:
    """A misspelt key or a value of the wrong form fails the check above."""
    services = {**compose["services"], service: {**compose["services"][service], key: value}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate({**compose, "services": services})


def test_ports_and_durations_have_their_form(compose: Any) -> None:
    """The schema takes any text for them; Compose does not."""
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), "published on loopback, and nowhere else"
        durations = [value for key, value in service.get("healthcheck", {}).items() if key not in ("test", "retries")]
        for duration in [*durations, service.get("stop_grace_period", "10s")]:
            assert re.fullmatch(r"(\d+(us|ms|s|m|h))+", duration)


def test_no_password_has_a_default(text: str, compose: Any) -> None:
    """Compose refuses to start without them, and says where they are explained; nothing else has to be set."""
    used = {match["name"]: match["how"] for match in VARIABLE.finditer(text)}
    assert {name for name, how in used.items() if how == "?"} == set(REQUIRED)
    assert not [name for name in used if re.search("PASSWORD|KEY|TOKEN|SECRET", name) and name not in REQUIRED]
    asking = {name: service["environment"] for name, service in compose["services"].items() if "environment" in service}
    plain = [
        value for each in asking.values() for key, value in each.items() if re.search("PASS?W(OR)?D$|API_KEY", key)
    ]
    assert set(plain) - {""} == set(REQUIRED.values()), "each stands in the file as a variable, none as a value"


def test_workers_log_in_as_the_owner_and_qdrant_asks_for_a_key(compose: Any) -> None:
    """The superuser's password reaches no container of ours, and what Qdrant wants is what workers give."""
    services = compose["services"]
    for name in ("prepare", "workers"):
        environment = services[name]["environment"]
        assert urlsplit(environment["HOLDFAST_DATABASE_URL"]).username == "holdfast_owner"
        assert urlsplit(environment["HOLDFAST_DATABASE_URL"]).password == REQUIRED["OWNER_PASSWORD"]
        assert REQUIRED["POSTGRES_PASSWORD"] not in environment.values()
        assert services[name]["env_file"][0]["path"] == ".env", "which holds the superuser's password, too"
        assert environment["POSTGRES_PASSWORD"] == "", "and `environment` goes before `env_file`"
        assert environment["HOLDFAST_QDRANT_API_KEY"] == services["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"]
    assert services["qdrant"]["environment"]["QDRANT__SERVICE__ENABLE_CORS"] == "false"
    assert services["prepare"]["depends_on"]["database"] == {"condition": "service_completed_successfully"}


def test_names_in_the_file_hang_together(compose: Any) -> None:
    """Services that are waited for exist and have a health check; volumes are declared; mounted files exist."""
    services = compose["services"]
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            assert name in services
            assert wait["condition"] != "service_healthy" or "healthcheck" in services[name]
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            if source.startswith("./deploy"):
                assert (ROOT / source).exists()
            elif not source.startswith("."):
                assert source in compose["volumes"]


def test_no_container_fills_the_disk_or_the_memory(compose: Any) -> None:
    """Logs are bounded everywhere; what runs for long has a limit of memory; ours have no privileges."""
    for name, service in compose["services"].items():
        assert service["logging"]["options"]["max-size"], name
        if service["restart"] == "unless-stopped":
            assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        if "build" in service:
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_is_built_from_what_the_locks_pin() -> None:
    """Each file that pip or uv installs is compared with a checksum of a lock, never with one that the index gives."""
    installs = [rest for word, rest in dockerfile() if word == "RUN" and "install" in rest]
    assert installs
    for line in installs:
        for part in line.split("&&"):
            if "install" in part:
                assert re.search(
                    r"--require-hashes (--constraint requirements\.lock|-r requirements-uv\.lock)", part
                ) or ("--no-deps --build-constraints requirements.lock" in part), part
        assert "--generate-hashes" not in line
    for lock in ("requirements.lock", "requirements-uv.lock"):
        pinned = re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " "))
        assert all("--hash=sha256:" in each for each in pinned if re.match(r"[a-z0-9]", each))


def test_every_image_tag_is_pinned(compose: Any) -> None:
    """A tag names a full version: the same file starts the same servers next year."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    images = [service["image"] for service in compose["services"].values()]
    images += re.findall(r"^FROM (\S+)", dockerfile, flags=re.MULTILINE)
    for image in images:
        assert full_version(image), f"{image} is not pinned"
    for loose in ("python:3.12-slim", "temporalio/server:1.30", "postgres:18", "qdrant/qdrant:latest", "qdrant/qdrant"):
        assert not full_version(loose), loose


async def test_a_worker_on_a_slow_machine_stays_healthy(tmp_path: Path) -> None:
    """The check's patience knows no time scale, so the file is touched as often whatever it is."""
    ready = tmp_path / "ready"
    polls = asyncio.create_task(stay_ready(Settings(ready_file=ready, sweep_every=0.5, time_scale=100)))
    await until(ready.exists, "it polls")
    first = ready.stat().st_mtime_ns
    await until(lambda: ready.stat().st_mtime_ns > first, "it still polls", patience=20)
    polls.cancel()
    await asyncio.gather(polls, return_exceptions=True)
    assert not ready.exists()


def full_version(image: str) -> bool:
    """Whether an image's tag has all its numbers: PostgreSQL's versions have two, all others three."""
    numbers = r"\d+\.\d+" if image.startswith("postgres:") else r"v?\d+\.\d+\.\d+"
    return re.search(rf":{numbers}(-[a-z-]+)?$", image) is not None


def test_a_missing_agents_file_is_said(compose: Any) -> None:
    """Compose makes a folder of a bind mount's missing source, unless told not to."""
    binds = [volume for volume in compose["services"]["workers"]["volumes"] if isinstance(volume, dict)]
    assert [volume["bind"] for volume in binds] == [{"create_host_path": False}]


def test_scripts_of_the_deploy_folder_are_shell(compose: Any) -> None:
    """What a service is told to run is there, and a shell can read it."""
    named = {part for service in compose["services"].values() for part in service.get("entrypoint", [])}
    scripts = {path.name for path in (ROOT / "deploy").glob("*.sh")}
    assert {f"/deploy/{name}" for name in scripts} == {part for part in named if part.startswith("/deploy/")}
    for name in scripts:
        subprocess.run(["sh", "-n", ROOT / "deploy" / name], check=True)


def _check(compose: Any, service: str, **changes: str) -> bool:
    kind, *command = compose["services"][service]["healthcheck"]["test"]
    command = ["sh", "-c", *command] if kind == "CMD-SHELL" else command
    for old, new in changes.items():
        command = [part.replace(WHERE[old], new) for part in command]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_a_workers_check_looks_at_the_age_of_its_file(compose: Any, tmp_path: Path) -> None:
    """Well while the file is new; not when it is old, as a worker's that hangs, and not when there is none."""
    ready = tmp_path / "holdfast.ready"
    assert compose["services"]["workers"]["environment"]["HOLDFAST_READY_FILE"] == WHERE["ready"]
    assert not _check(compose, "workers", ready=str(ready))
    ready.touch()
    assert _check(compose, "workers", ready=str(ready))
    old = time.time() - 60
    os.utime(ready, (old, old))
    assert not _check(compose, "workers", ready=str(ready))


@pytest.mark.parametrize(("status", "well"), [("200 OK", True), ("503 Service Unavailable", False)])
def test_qdrants_check_reads_the_answer(compose: Any, status: str, well: bool) -> None:
    """A server that is not ready yet accepts connections: the check asks it."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            assert self.rfile.readline().startswith(b"GET /readyz ")
            self.wfile.write(f"HTTP/1.0 {status}\r\ncontent-length: 0\r\n\r\n".encode())

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        port = str(server.server_address[1])
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert _check(compose, "qdrant", port=port) is well
    assert not _check(compose, "qdrant", port=port), "nobody listens there any more"


def test_the_grace_of_a_container_is_more_than_a_workers(compose: Any) -> None:
    """The engine kills a worker only after its calls had the time that the worker gives them."""
    grace = seconds(compose["services"]["workers"]["stop_grace_period"])
    assert grace > defaults().shutdown_grace + 1


def test_one_version_of_temporal(compose: Any) -> None:
    """The tools that make the schema are of the version of the server that uses it."""
    images = {service["image"].partition(":")[0]: service["image"] for service in compose["services"].values()}
    assert images["temporalio/server"].partition(":")[2] == images["temporalio/admin-tools"].partition(":")[2]


def test_the_page_names_what_is_run(compose: Any) -> None:
    """Each service stands in the table with its image; ours have none from a registry."""
    page = (ROOT / "docs" / "howto" / "compose.md").read_text(encoding="utf-8")
    for name, service in compose["services"].items():
        image = "ours" if "build" in service else f"`{service['image']}`"
        assert f"| `{name}` | {image} |" in page


def _environments(compose: Any) -> Iterator[str]:
    for service in compose["services"].values():
        if "build" in service:  # other images have variables of their own
            yield from service.get("environment", {})


def test_every_variable_exists_in_the_settings(compose: Any, text: str) -> None:
    """A HOLDFAST_* or TEMPORAL_* variable that no process reads would be a silent mistake."""
    named = set(_environments(compose)) | {match["name"] for match in VARIABLE.finditer(text)}
    comments = " ".join(re.findall(r"#.*", text))
    named |= set(re.findall(r"\b(?:HOLDFAST|TEMPORAL)_[A-Z_]+", comments))
    ours = {name for name in named if name.startswith(("HOLDFAST_", "TEMPORAL_"))}
    assert len(ours) > 5
    assert ours <= accepted_variables()


def test_the_workers_settings_are_valid(compose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the workers loads as settings and points at the other services."""
    for name, value in compose["services"]["workers"]["environment"].items():
        monkeypatch.setenv(name, str(value))
    settings = Settings()
    assert settings.temporal_address == "temporal:7233"
    assert settings.qdrant_url == "http://qdrant:6333"
    assert settings.database_url is not None
    assert settings.database_url.endswith("@postgres:5432/holdfast")


def test_the_server_is_tuned_as_the_embedded_one() -> None:
    """The dynamic configuration mounted in Compose has the values given to the embedded server."""
    mounted = yaml.safe_load((ROOT / "deploy" / "temporal-dynamicconfig.yaml").read_text(encoding="utf-8"))
    values = {name: yaml.safe_load(value) for name, value in (TUNING | CLOSED).items()}
    assert {name: entries[0]["value"] for name, entries in mounted.items()} == values
