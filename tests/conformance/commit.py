"""Which code a campaign plays: one commit without local changes, named in its folder, and the same for every part."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.conformance.processes import ROOT

__all__ = ["NAME", "begin", "read", "seed"]

NAME = "campaign.json"

Json = dict[str, Any]


def begin(folder: Path, scale: str, labels: Sequence[str], planned: Sequence[str], root: Path = ROOT) -> str:
    """Return the commit that is played, and make the campaign's folder or go on in it.

    *planned* are the labels of the whole campaign, *labels* those to be played now.

    Raises:
        SystemExit: the checkout has local changes, the folder is of another commit, or a part was played in it.

    """
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain").splitlines()
    if changed:
        what = ", ".join(line[3:] for line in changed[:5])
        raise SystemExit(
            f"The checkout has local changes ({what}), so no commit names what would be played. Commit them first, and "
            "give --out a folder outside of it."
        )
    known = read(folder)
    if known is None:
        folder.mkdir(parents=True, exist_ok=True)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        known = {"commit": commit, "scale": scale, "began": at, "planned": list(planned)}
        (folder / NAME).write_text(json.dumps(known, indent=1), encoding="utf-8")
    if (known["commit"], known["scale"]) != (commit, scale):
        raise SystemExit(
            f"{folder} is of a {known['scale']} of commit {known['commit'][:12]}, and this is a {scale} of "
            f"{commit[:12]}. A campaign tests one commit: start a new one in another folder."
        )
    played = [label for label in labels if (folder / f"{label}.json").exists()]
    if played:
        raise SystemExit(
            f"{', '.join(played)} was already run in {folder}, and its result is kept even if it failed. Fix the "
            "cause, commit, and start a new campaign in another folder."
        )
    return commit


def read(folder: Path) -> Json | None:
    """Return what a campaign's folder says of it, if it is one."""
    path = folder / NAME
    if not path.exists():
        return None
    found: Json = json.loads(path.read_text(encoding="utf-8"))
    return found


def seed(commit: str, number: int) -> int:
    """Return the seed of a drive: the commit decides it, so that nobody picks one."""
    return int(hashlib.sha256(f"{commit} {number}".encode()).hexdigest(), 16) % 1_000_000


def _git(root: Path, *arguments: str) -> str:
    found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return found.stdout.rstrip("\n")
