"""What is in each image, without images: servers from their Go modules, ours by the lines of the Dockerfile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from holdfast.server.binary import find_binary
from holdfast.settings import load_settings
from scripts.compose_kit.file import ROOT, Service, dockerfile
from scripts.compose_kit.room import Room

SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MODULES = {  # image: program here, Go package
    "temporalio/server": ("temporal-server", "go.temporal.io/server/cmd/server"),
    "temporalio/admin-tools": ("temporal-sql-tool", "go.temporal.io/server/cmd/tools/sql"),
    "temporalio/ui": ("ui-server", "github.com/temporalio/ui-server/v2/cmd/server"),
}


def run(*command: str, **options: object) -> str:
    """Run a program to its end and return what it said; its error stream goes where ours goes."""
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout  # type: ignore[call-overload,no-any-return]


def build_servers(services: Iterable[Service], bin_: Path) -> None:
    """Put the servers, in the versions the file pins, and the tools of their images into *bin_*. Minutes, once."""
    tools = _tools()
    bin_.mkdir(parents=True, exist_ok=True)
    for service in services:
        image = service.image.partition(":")[0]
        if image not in _MODULES:
            continue
        name, package = _MODULES[image]
        here = bin_ / name
        if here.exists() and service.version in run(str(here), "--version"):
            continue
        print(f"building {name} {service.version} (minutes)")
        out = bin_ / f"build-{name}"
        run("go", "install", f"{package}@v{service.version}", env={**os.environ, "GOBIN": str(out)})
        (built,) = out.iterdir()
        built.replace(here)
        out.rmdir()
        if image == "temporalio/ui":
            where = run(
                "go", "list", "-m", "-f", "{{.Dir}}", f"{package.removesuffix('/cmd/server')}@v{service.version}"
            )
            shutil.copy(Path(where.strip()) / "config" / "docker.yaml", bin_ / "ui-docker.yaml")
    for tool, found in tools.items():
        (bin_ / tool).unlink(missing_ok=True)
        (bin_ / tool).symlink_to(found)


def _tools() -> dict[str, Path]:
    """Find what the images have and nobody builds here; asked before the minutes that the servers take."""
    temporal = find_binary(load_settings())
    found = {"temporal": None if temporal is None else str(temporal)}
    found |= {name: shutil.which(name) for name in ("nc", "wget", "curl", "go")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        sys.exit(f"not on PATH: {', '.join(missing)}. The servers and their health checks need them.")
    return {name: Path(path) for name, path in found.items() if path is not None and name in ("temporal", "nc", "wget")}


def build_ours(work: Path, layers: Path) -> Path:
    """Carry the Dockerfile out, line by line, in *work*; return the folder that is /venv in the image."""
    src, venv, base = work / "src", work / "venv", work / "python"
    for folder in (src, venv):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    run(sys.executable, "-m", "venv", "--clear", str(base))  # stands for the base image; its Python may be another
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    stage, room = 0, Room(layers / "build", "build", mounts={"/venv": venv, "/src": src})
    for word, rest in dockerfile():
        if word == "FROM":
            stage += 1
        elif stage > 1:
            continue  # the second image only takes /venv over
        elif word == "WORKDIR":
            room.workdir = rest
        elif word == "COPY":
            *sources, _ = rest.split()
            for source in sources:
                _copy(ROOT / source, src, ignored)
        elif word == "RUN":
            print(f"RUN {rest}", flush=True)
            run(*room.command("sh", "-ec", rest), env={"PATH": f"{base}/bin:{SYSTEM}", **_network()})
    return venv


def _network() -> dict[str, str]:
    """Return what the environment says about the way to the registries: an engine has settings of its own for that."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("UV_", "PIP_", "SSL_")) or name.lower().endswith("_proxy") or name == "HOME"
    }


def _copy(source: Path, target: Path, ignored: list[str]) -> None:
    if source.is_file():
        shutil.copy(source, target)
        return
    names = [pattern.removeprefix("**/") for pattern in ignored]
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*names))
