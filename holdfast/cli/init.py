"""Writes the small project of `holdfast init` from the templates that lie beside. Only the command line uses it."""

from __future__ import annotations

import json
import os
from importlib import resources
from importlib.metadata import distribution
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from holdfast.cli.decide import Done
from holdfast.errors import InvalidInput

__all__ = ["requirement", "templates", "write"]

_SUFFIX = ".tmpl"  # so that neither git nor pytest nor an importer takes a template for the thing itself
_RENAMED = {"gitignore": ".gitignore"}
_REQUIREMENT = "{{holdfast}}"  # in a template: how to get this very Holdfast


def templates() -> dict[str, str]:
    """Return the files of a new project: path below its folder, and text."""
    found: dict[str, str] = {}

    def collect(folder: Traversable, below: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                collect(entry, f"{below}{entry.name}/")
            elif entry.name.endswith(_SUFFIX):
                name = entry.name.removesuffix(_SUFFIX)
                found[f"{below}{_RENAMED.get(name, name)}"] = entry.read_text(encoding="utf-8")

    collect(resources.files("holdfast.cli").joinpath("project"), "")
    return dict(sorted(found.items()))


def requirement() -> str:
    """Return what to depend on to get this very Holdfast: where it was installed from, else its version.

    The bare name would do only where the package index has this project under it.
    """
    installed = distribution("holdfast")
    try:
        origin = json.loads(installed.read_text("direct_url.json") or "{}")  # PEP 610
        url, vcs = str(origin["url"]), origin.get("vcs_info")
        return f"holdfast @ {vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else f"holdfast @ {url}"
    except (ValueError, KeyError, TypeError):
        return f"holdfast=={installed.version}"


def write(folder: Path) -> Done:
    """Write the project into *folder*, all of it or nothing.

    Raises:
        InvalidInput: a file is in the way, or the folder cannot be written; nothing was written.

    """
    files = templates()
    there = [name for name in files if os.path.lexists(folder / name)]
    if os.path.lexists(folder) and not folder.is_dir():
        raise InvalidInput(f"{folder} is in the way: it is no folder. Nothing was written; name another.")
    if there:
        raise InvalidInput(
            f"In {folder.resolve()} there {'is' if len(there) == 1 else 'are'} already: {', '.join(there)}. "
            "Nothing was written. Name a new folder, as in: holdfast init my-agents"
        )
    written: list[Path] = []
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:  # x: what came into being since is not overwritten
                written.append(path)
                file.write(text.replace(_REQUIREMENT, requirement()))
    except OSError as exc:
        for path in written:
            path.unlink(missing_ok=True)
        raise InvalidInput(f"{folder} cannot be written: {exc}. Nothing is left of it; name another folder.") from exc
    where = os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) or not folder.is_absolute() else str(folder)
    steps = [] if where == "." else [f"  cd {where}"]
    steps += ["  holdfast chat assistant", '  holdfast run support "Where is order 17?"']
    steps.append("  pytest" if find_spec("pytest") else "  pip install pytest && pytest")
    line = f"wrote {', '.join(files)}\n\nNext:\n" + "\n".join(steps)
    return Done(line, {"folder": str(folder.resolve()), "files": list(files)})
