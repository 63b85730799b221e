"""Downloads the Temporal CLI's release archive, if its checksum is the pinned one. Only `binary` calls it."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tarfile
import threading
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Final

__all__ = ["HOST", "VERSION", "fetch"]

VERSION: Final = "1.5.1"
HOST: Final = "github.com"  # where Temporal publishes its releases
_URL: Final = f"https://{HOST}/temporalio/cli/releases/download/v{VERSION}/"
# SHA-256 of the archives of v1.5.1, as two package collections recorded them independently of each other
# (cashapp/hermit-packages; zph/hermit-packages, and for linux_arm64 a third project's script).
DIGESTS: Final = {
    "darwin_amd64": "bbb73e2a31135abe50a1f1cdb35030c42961df618e8ce9c60ae89f201540c5d9",
    "darwin_arm64": "cca01b7ea35ad56e2a328d9ae596bf716bd22313ef63c7a761c88354457c2415",
    "linux_amd64": "ddc95e08b0b076efd4ea9733a3f488eb7d2be875f8834e616cd2a37358b4852d",
    "linux_arm64": "bd1b0db9f18b051026de8bf6cc1505f2510f14bbb7a8b9a4a91fff46c77454f5",
}
_PROCESSORS: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_SILENCE: Final = 20.0  # seconds without a byte
_LONGEST: Final = 600.0
_MOST: Final = 512 * 1024 * 1024  # bytes; the archive has about 60 MB


def _machine() -> str:
    processor = platform.machine().lower()
    return f"{sys.platform}_{_PROCESSORS.get(processor, processor)}"


def fetch(folder: Path, stop: threading.Event) -> str | None:
    """Put the program `temporal` of this machine's archive into *folder*; return None, or why there is none.

    Nothing is unpacked before the checksum of the whole archive was compared. Blocks: call it in a thread.
    Once *stop* is set it ends at the next bytes, or when the server was silent for 20 s.
    """
    machine = _machine()
    if machine not in DIGESTS:
        return f"Holdfast has no checksum for an archive for {machine}"
    name = f"temporal_cli_{VERSION}_{machine}.tar.gz"
    archive = folder / name
    try:
        found = _download(_URL + name, archive, stop)
    except (OSError, HTTPException) as exc:
        return f"{_URL}{name}: {exc or type(exc).__name__}"
    if found != DIGESTS[machine]:
        return (
            f"{name} was refused: its SHA-256 is {found}, not {DIGESTS[machine]}. It is not the archive that Holdfast "
            "expects; it may have been replaced on the way"
        )
    try:
        with tarfile.open(archive) as opened:
            member = opened.getmember("temporal")
            source = opened.extractfile(member)
            if source is None:
                return f"{name} has no program `temporal`"
            with source, (folder / "temporal").open("wb") as out:
                shutil.copyfileobj(source, out)
    except (tarfile.TarError, KeyError, OSError) as exc:
        return f"{name} cannot be unpacked: {exc}"
    (folder / "temporal").chmod(0o755)
    archive.unlink()
    return None


def _download(url: str, into: Path, stop: threading.Event) -> str:
    """Store what *url* gives and return its SHA-256."""
    digest, size, deadline = hashlib.sha256(), 0, time.monotonic() + _LONGEST
    with urllib.request.urlopen(url, timeout=_SILENCE) as response, into.open("wb") as out:  # noqa: S310  # the address is a constant
        while block := response.read1(1 << 16):
            if stop.is_set():
                raise InterruptedError("the download was stopped")
            size += len(block)
            if size > _MOST or time.monotonic() > deadline:
                raise TimeoutError(f"the archive has more than {_MOST} bytes, or took longer than {_LONGEST:.0f} s")
            digest.update(block)
            out.write(block)
    return digest.hexdigest()
