"""Servers that people use, from their registries: time and git from PyPI, filesystem and everything from npm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import MCPServer
from holdfast.tools.results import ErrorResult
from tests.mcp.kit import linked

NPM = ("server-filesystem", "server-everything")


def installed(name: str) -> str:
    """Return the path of a program that came with our development dependencies."""
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="module")
def npm() -> Path:
    """Return a folder with the npm packages, in a cache outside the checkout; skip where they cannot be had."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not there")
    lock = (
        Path(__file__).with_name("npm") / "package-lock.json"
    )  # the checksum of each package; `npm ci` refuses others
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "holdfast"
    cache /= f"npm-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    programs = cache / "node_modules" / ".bin"
    if not all((programs / f"mcp-{name}").exists() for name in NPM):
        cache.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(lock.with_name(name), cache)
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--prefix", str(cache)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"npm could not install the servers: {done.stderr[-300:]}")
    return programs


async def test_time(tmp_path: Path) -> None:
    """The time server tells and converts times; an unknown zone is an error that the model reads."""
    async with linked(MCPServer("time", command=[installed("mcp-server-time")]), tmp_path) as link:
        assert link.said["protocol"] == "2026-07-28"
        assert set(link.offers) >= {"get_current_time", "convert_time"}
        assert (await link.call("get_current_time", {"timezone": "UTC"}))["timezone"] == "UTC"
        assert isinstance(await link.call("get_current_time", {"timezone": "Nowhere/Land"}), ErrorResult)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a git repository with a file that is not committed."""
    made = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", str(made)], check=True, capture_output=True)
    (made / "a.txt").write_text("a\n")
    return made


async def test_git(repository: Path, tmp_path: Path) -> None:
    """The git server commits, once, and shows the log."""
    identity = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = [installed("mcp-server-git"), "--repository", str(repository)]
    async with linked(MCPServer("git", command=command, env=identity), tmp_path) as link:
        where = {"repo_path": str(repository)}
        assert not isinstance(await link.call("git_add", {**where, "files": ["a.txt"]}), ErrorResult)
        assert not isinstance(await link.call("git_commit", {**where, "message": "first words"}), ErrorResult)
        assert "first words" in str(await link.call("git_log", where))
        assert isinstance(await link.call("git_show", {**where, "revision": "nothing"}), ErrorResult)


async def test_filesystem(npm: Path, tmp_path: Path) -> None:
    """The filesystem server reads and writes below its root and nowhere else."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.txt").write_text("hello from a file")
    async with linked(MCPServer("files", command=[str(npm / "mcp-server-filesystem"), str(root)]), tmp_path) as link:
        assert link.said["protocol"] == "2025-11-25", "an older server is spoken to in its own revision"
        assert "hello from a file" in str(await link.call("read_text_file", {"path": str(root / "a.txt")}))
        await link.call("write_file", {"path": str(root / "b.txt"), "content": "new"})
        assert (root / "b.txt").read_text() == "new"
        outside = await link.call("read_text_file", {"path": "/etc/hostname"})
        assert isinstance(outside, ErrorResult)
        assert "Access denied" in outside.text


async def test_everything(npm: Path, tmp_path: Path) -> None:
    """The reference server: text, structure, pictures, resources; it gets no key of ours."""
    program = str(npm / "mcp-server-everything")
    async with linked(MCPServer("every", command=[program]), tmp_path) as link:
        assert await link.call("echo", {"message": "hi"}) == "Echo: hi"
        assert "4" in str(await link.call("get-sum", {"a": 1, "b": 3}))
        assert "[image image/png" in await link.call("get-tiny-image", {})
        assert "[resource " in await link.call("get-resource-links", {"count": 2})
        assert (await link.call("get-structured-content", {"location": "New York"}))["temperature"]
        assert "HOLDFAST" not in str(await link.call("get-env", {}))
