"""The writing tools on real files: atomic, inside the root, through no link, once under one key."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import EffectError, ToolError, ToolNotStarted
from holdfast.tools import ToolContext, files
from holdfast.tools.builtin.folder import Folder
from holdfast.tools.builtin.tree import Tree
from holdfast.tools.outcomes import classify
from holdfast.tools.tool import AnyTool
from holdfast.tools.toolset import Toolset


def _context(key: str = "a" * 64, seconds: float = 30.0) -> ToolContext:
    return ToolContext(
        idempotency_key=key, tenant="t", thread="c", run_id="r", step_no=1, deadline=time.monotonic() + seconds
    )


_keys = (f"{number:064x}" for number in range(1, 10**6))


def _call(tool: AnyTool, ctx: ToolContext | None = None, **args: Any) -> str:
    result: str = tool(**tool.bind(tool.validate(args), ctx or _context(next(_keys))))
    return result


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file, a secret beside it, and links that lead out."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.txt").write_text("secret\n")
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "docs/a.md").write_text("one\ntwo\nthree\n")
    (root / ".git").mkdir()
    (root / "link.txt").symlink_to(tmp_path / "outside/secret.txt")
    (root / "inner.txt").symlink_to(root / "docs/a.md")
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "docs/up").symlink_to(root)
    os.mkfifo(root / "pipe")
    return root


def _tools(root: Path, **given: Any) -> Toolset:
    return Toolset(files(root, write=True, **given))


def test_they_are_there_on_demand_only(root: Path) -> None:
    """Without write=True nothing writes; with it each is keyed, and an approval may be asked for."""
    assert list(Toolset(files(root))) == ["list_files", "search_files", "read_file"]
    tools = _tools(root, approval="always", prefix="p_")
    assert list(tools)[3:] == ["p_write_file", "p_patch_file", "p_delete_file"]
    for tool in list(tools.values())[3:]:
        assert (tool.definition.effect, tool.definition.approval) == ("keyed", "always")


def test_create_replace_delete(root: Path) -> None:
    """A file is made with its folders; it is replaced only when asked to; its mode stays."""
    write, delete = _tools(root)["write_file"], _tools(root)["delete_file"]
    assert _call(write, path="new/deep/b.txt", content="grün\n") == "created new/deep/b.txt (6 bytes)"
    assert (root / "new/deep/b.txt").read_text() == "grün\n"
    with pytest.raises(ToolError, match="there already"):
        _call(write, path="new/deep/b.txt", content="x")
    (root / "new/deep/b.txt").chmod(0o750)
    assert _call(write, path="new/deep/b.txt", content="x", overwrite=True).startswith("replaced")
    assert (root / "new/deep/b.txt").stat().st_mode & 0o777 == 0o750
    assert _call(delete, path="new/deep/b.txt") == "deleted new/deep/b.txt"
    assert not (root / "new/deep/b.txt").exists()
    with pytest.raises(ToolError, match="no file"):
        _call(delete, path="new/deep/b.txt")
    assert (root / ".holdfast/writes/.gitignore").read_text() == "*\n"
    assert not list((root / ".holdfast/writes").glob("*.draft"))


def test_patch(root: Path) -> None:
    """The old text must be there once; the answer shows what was changed; line ends stay as they are."""
    patch = _tools(root)["patch_file"]
    told = _call(patch, path="docs/a.md", old="two", new="2")
    assert "-two\n+2" in told
    assert (root / "docs/a.md").read_text() == "one\n2\nthree\n"
    for old, why in (("four", "copy the passage"), ("one  2", "white space"), ("e", "2 times|3 times")):
        with pytest.raises(ToolError, match=why):
            _call(patch, path="docs/a.md", old=old, new="x")
    (root / "dos.txt").write_bytes(b"a\r\nb\r\n")
    _call(patch, path="dos.txt", old="a\nb", new="a\nc")
    assert (root / "dos.txt").read_bytes() == b"a\r\nc\r\n"
    (root / "twice.txt").write_text("aaa")
    with pytest.raises(ToolError, match="2 times, at lines 1, 1"):
        _call(patch, path="twice.txt", old="aa", new="b")
    (root / "latin.txt").write_bytes(b"Gr\xfc\xdfe")
    with pytest.raises(ToolError, match="UTF-8"):
        _call(patch, path="latin.txt", old="e", new="x")


OUTSIDE = [
    "/etc/passwd", "../x.txt", "docs/../../x.txt", "linked/x.txt", "linked/secret.txt", "link.txt", "inner.txt",
    "docs/up/x.txt", "docs/up/docs/a.md", ".git/hooks/pre-commit", ".GIT/config", ".env", "docs/.env.local", ".ENV",
    ".holdfast/stack.json", ".holdfast/writes/x", "node_modules/x.js", ".venv/bin/python", "docs", "pipe",
    "docs/a.md/x", "a\x00b", "a\\b", "", ".", "/".join("d" * 40), "~" * 300,
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_else_is_written(root: Path, path: str) -> None:
    """No path, link, device or hidden folder is a way out; nothing is left behind by the attempt."""
    before = _snapshot(root.parent)
    tools = _tools(root)
    calls: dict[str, dict[str, Any]] = {
        "write_file": {"content": "x", "overwrite": True},
        "patch_file": {"old": "secret", "new": "x"},
        "delete_file": {},
    }
    for name, args in calls.items():
        with pytest.raises(ToolError):
            _call(tools[name], path=path, **args)
    assert _snapshot(root.parent) == before


def _snapshot(folder: Path) -> dict[str, Any]:
    return {
        str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else path.is_symlink()
        for path in sorted(folder.rglob("*"))
        if ".holdfast" not in path.parts
    }


def test_sizes_are_limited(root: Path) -> None:
    """What is too long is neither written nor changed."""
    tools = _tools(root, max_write=10)
    with pytest.raises(ToolError):
        _call(tools["write_file"], path="b.txt", content="12345678901")
    with pytest.raises(ToolError, match="more than the 10"):
        _call(tools["write_file"], path="b.txt", content="€€€€")
    with pytest.raises(ToolError, match="more than the 10"):
        _call(tools["patch_file"], path="docs/a.md", old="one", new="1")


def test_a_call_takes_effect_once(root: Path) -> None:
    """Made again under its key, as after a crash, it finds its own change and makes no second one."""
    tools = _tools(root)
    ctx = _context()
    for _ in range(3):
        assert "patched" in _call(tools["patch_file"], ctx, path="docs/a.md", old="one", new="one one")
        assert (root / "docs/a.md").read_text() == "one one\ntwo\nthree\n"
    ctx = _context("b" * 64)
    for _ in range(2):
        assert _call(tools["write_file"], ctx, path="b.txt", content="x").endswith("b.txt (1 bytes)")
    ctx = _context("c" * 64)
    for _ in range(2):
        assert _call(tools["delete_file"], ctx, path="b.txt") == "deleted b.txt"


def test_what_was_made_is_not_made_again(root: Path) -> None:
    """Not when somebody has changed the file since, nor when somebody has put back what was there before."""
    tools = _tools(root)
    for number, later in enumerate(["one\ntwo\nthree\n", "something else\n", None]):
        (root / "docs/a.md").write_text("one\ntwo\nthree\n")
        ctx = _context(f"{number}" * 64)
        assert "patched" in _call(tools["patch_file"], ctx, path="docs/a.md", old="two", new="2")
        (root / "docs/a.md").unlink()
        if later is not None:
            (root / "docs/a.md").write_text(later)
        assert "patched" in _call(tools["patch_file"], ctx, path="docs/a.md", old="two", new="2")
        assert later == ((root / "docs/a.md").read_text() if later is not None else None)


def test_where_nobody_can_tell_it_says_so(root: Path) -> None:
    """Killed amid a change, on a file that others have changed since: it is left alone; the ledger asks a person."""
    _killed(root, "after")
    (root / "k.txt").write_text("something else\n")
    with pytest.raises(EffectError, match="somebody else") as caught:
        Tree(Folder(root), 1000).change("k.txt", "d" * 64, time.monotonic() + 30, lambda before: b"x")
    assert classify(caught.value, "keyed") == "unknown"
    assert (root / "k.txt").read_text() == "something else\n"


def test_a_file_system_that_syncs_no_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in its place is never said not to be: the ledger would let it be made again."""
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert _call(_tools(root)["write_file"], path="b.txt", content="x").startswith("created")
    assert (root / "b.txt").read_text() == "x"


def test_its_time_over_it_changes_nothing(root: Path) -> None:
    """A call that was given up, and comes to itself later, does not write any more."""
    with pytest.raises(ToolNotStarted):
        _call(_tools(root)["write_file"], _context(seconds=-1), path="late.txt", content="x")
    assert not (root / "late.txt").exists()


KILLED = """
import os, sys, time
from pathlib import Path
from holdfast.tools.builtin import tree
where = sys.argv[2]
real = {"link": os.link, "rename": os.rename}
def die(*a, **k): os.kill(os.getpid(), 9)
if where == "before":
    os.link = die
elif where == "after":
    def link(*a, **k):
        real["link"](*a, **k)
        die()
    os.link = link
tree.Tree(tree.Folder(sys.argv[1]), 1000).change("k.txt", "d" * 64, time.monotonic() + 30, lambda before: b"x")
"""


def _killed(root: Path, where: str) -> None:
    """Write k.txt in a process that is killed amid it."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), where], cwd=Path(__file__).parents[2], timeout=60)
    assert done.returncode == -9


@pytest.mark.parametrize("where", ["before", "after"])
def test_kill_9_at_the_worst_moment(root: Path, where: str) -> None:
    """Killed just before or just after the file is put into its place, the next try makes the change once."""
    _killed(root, where)
    assert (root / "k.txt").exists() == (where == "after")
    made: list[bytes | None] = []

    def make(before: bytes | None) -> bytes:
        made.append(before)
        return b"x"

    change = Tree(Folder(root), 1000).change("k.txt", "d" * 64, time.monotonic() + 30, make)
    assert change.again == (where == "after")
    assert made == ([] if where == "after" else [None])
    assert (root / "k.txt").read_bytes() == b"x"


def test_two_writers_do_not_lose_each_others_words(root: Path) -> None:
    """Read, change and put back is one step, for threads and processes alike."""
    (root / "count.txt").write_text("0")
    tree = Tree(Folder(root), 1000)

    def work(name: str) -> None:
        for number in range(20):
            key = f"{name}{number:02d}".ljust(64, "0")
            tree.change("count.txt", key, time.monotonic() + 60, lambda before: str(int(before or b"0") + 1).encode())

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (root / "count.txt").read_text() == "80"


def test_old_entries_are_forgotten(root: Path) -> None:
    """The journal does not grow for ever."""
    tree = Tree(Folder(root), 1000)
    journal = root / ".holdfast/writes"
    tree.change("a.txt", "e" * 64, time.monotonic() + 9, lambda _: b"1")
    [old] = journal.glob("*.json")
    assert json.loads(old.read_text())["path"] == "a.txt"
    os.utime(old, (0, 0))
    for number in range(2000):  # each 256th entry, more or less, looks for old ones
        tree.change("a.txt", str(number), time.monotonic() + 9, lambda _, number=number: str(number).encode())  # type: ignore[misc]
        if not old.exists():
            break
    assert not old.exists()
    assert (journal / ".gitignore").exists()
