"""The file tools on real files: finding, reading, and never leaving the root."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError, ToolArgumentsInvalid, ToolError
from holdfast.tools import files
from holdfast.tools.builtin.folder import matcher
from holdfast.tools.tool import AnyTool


def _call(tool: AnyTool, **args: object) -> str:
    result: str = tool(**tool.validate(args))
    return result


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project, with a secret beside it and links in and out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("the launch code is 0000\n")
    root = tmp_path / "project"
    for folder in ("docs/deep", ".git", "node_modules", "src/__pycache__", ".venv"):
        (root / folder).mkdir(parents=True)
        (root / folder / "hidden.txt").write_text("launch code\n")
    (root / "docs/deep/hidden.txt").rename(root / "docs/deep/lease.md")
    (root / "docs/deep/lease.md").write_text("# Leases\n\nThe lease lasts two seconds.\nA launch code is refused.\n")
    (root / "README.md").write_text("# Project\nThe lease of a ledger row.\nlasts long: seconds, two\n")
    (root / "src/main.py").write_text("LEASE = 2.0  # seconds\n")
    (root / "data.bin").write_bytes(b"lease\x00lease")
    (root / "latin.txt").write_bytes("Gr\xfc\xdfe lease\n".encode("latin-1"))
    (root / "wide.txt").write_text("lease wide\n", encoding="utf-16")
    (root / ".env").write_text("KEY=lease\n")
    (root / "out.txt").symlink_to(outside / "secret.txt")
    (root / "outdir").symlink_to(outside)
    (root / "in.txt").symlink_to(root / "README.md")
    (root / "key.txt").symlink_to(root / ".env")
    (root / "git.txt").symlink_to(root / ".git/hidden.txt")
    (root / "loop").symlink_to(root / "loop")
    (root / "docs/up").symlink_to(root)
    os.mkfifo(root / "pipe.txt")
    return root


def test_list_shows_what_is_there_and_no_more(root: Path) -> None:
    """Sorted; no skipped folder, no key, no link that leads out."""
    listing, _, _ = files(root)
    assert _call(listing).splitlines() == [
        "README.md",
        "data.bin",
        "in.txt",
        "latin.txt",
        "wide.txt",
        "docs/deep/lease.md",
        "src/main.py",
    ]
    assert _call(listing, pattern="*.md").splitlines() == ["README.md", "docs/deep/lease.md"]
    assert _call(listing, pattern="docs") == "docs/deep/lease.md"
    assert _call(listing, pattern="*.rs") == "no file matches '*.rs'"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../outside/secret.txt",
            "docs/../../outside/secret.txt",
            "out.txt",
            "outdir/secret.txt",
            "/etc/passwd",
            "loop",
        ),
        *(".git/hidden.txt", ".env", "key.txt", "git.txt", "node_modules/hidden.txt", "docs/up/.env", "nul\x00.txt"),
        *("docs", "pipe.txt", "data.bin", "gone.txt", "x" * 900),
    ],
)
def test_read_refuses_what_is_not_a_text_file_of_the_root(root: Path, path: str) -> None:
    """By `..`, by absolute path, by link, by name or by kind; and nothing of it shows in the message."""
    with pytest.raises(ToolError) as caught:
        _call(files(root)[2], path=path)
    assert "launch code" not in str(caught.value)


def test_search_never_finds_what_may_not_be_read(root: Path) -> None:
    """Neither the secret outside nor keys nor skipped folders; odd encodings are found."""
    _, search, _ = files(root)
    assert _call(search, query="launch code") == "docs/deep/lease.md:4: A launch code is refused."
    found = _call(search, query="lease").splitlines()
    assert {line.partition(":")[0] for line in found} == {
        "README.md",
        "in.txt",
        "docs/deep/lease.md",
        "latin.txt",
        "src/main.py",
        "wide.txt",
    }


@pytest.mark.parametrize("pattern", ["../**", "/etc/*", "", "x" * 400, "{a,b}" * 20])
def test_patterns_stay_inside_too(root: Path, pattern: str) -> None:
    """No pattern leads out or takes for ever."""
    for tool, args in ((files(root)[0], {}), (files(root)[1], {"query": "lease"})):
        with pytest.raises(ToolError):
            _call(tool, pattern=pattern, **args)


def test_search_ranks_the_phrase_first_then_rare_words(root: Path) -> None:
    """The whole phrase wins; then more and rarer words; ties by path and line."""
    _, search, _ = files(root)
    found = _call(search, query="The lease lasts two seconds?").splitlines()
    assert found[0] == "docs/deep/lease.md:3: The lease lasts two seconds."
    assert found[1] == "README.md:3: lasts long: seconds, two"
    assert found == _call(search, query="The lease lasts two seconds?").splitlines()
    assert len(_call(search, query="lease", limit=2).splitlines()) == 2
    assert _call(search, query="quantum") == "nothing found for 'quantum' in 6 files"
    assert _call(search, query="lease", pattern="src/**").splitlines() == ["src/main.py:1: LEASE = 2.0  # seconds"]


def test_a_fact_in_one_of_many_files(tmp_path: Path) -> None:
    """A question in plain words finds the one line that answers it, among files full of its common words."""
    rnd = random.Random(7)
    common = ["what", "is", "the", "a", "of", "and", "in", "for", "to", "name", "that", "it", "on", "with"]
    for index in range(30):
        lines = [" ".join(rnd.choices(common, k=10)) for _ in range(50)]
        if index == 17:
            lines[23] = "The harbour master of Vardø is called Solveig."
        (tmp_path / f"note{index}.txt").write_text("\n".join(lines), encoding="utf-8")
    found = _call(files(tmp_path)[1], query="What is the name of the harbour master in Vardø?")
    assert found.splitlines()[0] == "note17.txt:24: The harbour master of Vardø is called Solveig."


def test_one_file_does_not_fill_the_answer(tmp_path: Path) -> None:
    """Other files have their turn; what room is left goes to the first."""
    (tmp_path / "a.txt").write_text("lease\n" * 50)
    (tmp_path / "b.txt").write_text("lease\n" * 2)
    found = _call(files(tmp_path)[1], query="lease", limit=10).splitlines()
    assert [line.partition(":")[0] for line in found].count("b.txt") == 2
    assert len(found) == 10


def test_read_gives_lines_and_says_which(root: Path) -> None:
    """The first line names file and range; ends are told, long lines cut, near names offered."""
    read = files(root)[2]
    assert _call(read, path="docs/deep/lease.md", start=3, lines=1) == (
        "docs/deep/lease.md (lines 3-3 of 4)\nThe lease lasts two seconds."
    )
    assert _call(read, path="./README.md").startswith("README.md (lines 1-3 of 3)\n# Project")
    assert "Gr\ufffd\ufffde" in _call(read, path="latin.txt")
    assert "lease wide" in _call(read, path="wide.txt")
    with pytest.raises(ToolError, match="has only 3 lines; start is 9"):
        _call(read, path="README.md", start=9)
    with pytest.raises(ToolError, match=r"Did you mean docs/deep/lease.md\?"):
        _call(read, path="docs/lease.md")
    with pytest.raises(ToolArgumentsInvalid, match="start"):
        read.validate({"path": "README.md", "start": 0})
    (root / "empty.txt").write_text("")
    assert _call(read, path="empty.txt") == "empty.txt is empty"
    (root / "long.txt").write_text("x" * 5000)
    assert len(_call(read, path="long.txt")) < 2100


def test_huge_files_are_neither_read_nor_searched(root: Path) -> None:
    """A sparse file of 20 MB costs nothing."""
    with (root / "huge.txt").open("wb") as file:
        file.truncate(20_000_000)
    with pytest.raises(ToolError, match="20,000,000 bytes"):
        _call(files(root)[2], path="huge.txt")
    assert "huge" not in _call(files(root)[1], query="lease")


def test_five_thousand_files(tmp_path: Path) -> None:
    """Listing and searching stay within seconds, even on a busy machine."""
    for folder in range(50):
        (tmp_path / f"d{folder}").mkdir()
        for index in range(100):
            (tmp_path / f"d{folder}/f{index}.txt").write_text(
                f"line of words {index}\n" * 20 + f"unique{folder}x{index}\n"
            )
    listing, search, _ = files(tmp_path)
    began = time.monotonic()
    assert _call(search, query="where is unique37x42 of the words") == "d37/f42.txt:21: unique37x42"
    assert "and 4000 more" in _call(listing)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**/*", "a", True),
        ("**/*", "a/b/c", True),
        ("*", "a/b", True),
        ("*.md", "a/b.md", True),
        ("./a/*.md", "a/b.md", True),
        ("a/*", "a/b/c", False),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a/**/c", "a/c", True),
        ("**/b/*", "a/b/c", True),
        ("a?", "ab", True),
        ("[ab].md", "a.md", True),
        ("**/*.{md,txt}", "x/y.txt", True),
        ("{a,b/c}/*.md", "b/c/d.md", True),
        ("a/b.md", "a/b.md", True),
        ("docs", "docs/x/y", True),
        ("docs", "other/docs/x", False),
        ("*a*a*a*a*a*a*a*a*a*b", "a" * 200, False),
        ("**/" * 60 + "x", "a/" * 60 + "y", False),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    """What people and models write means what they expect, in time that cannot explode."""
    assert matcher(pattern)(path) is expected


def test_definitions(tmp_path: Path) -> None:
    """All three are pure; a second folder gets names of its own; a missing one is refused at once."""
    assert [tool.definition.effect for tool in files(tmp_path)] == ["pure"] * 3
    assert [tool.name for tool in files(tmp_path, prefix="notes_")] == [
        "notes_list_files",
        "notes_search_files",
        "notes_read_file",
    ]
    assert str(tmp_path) not in "".join(tool.definition.model_dump_json() for tool in files(tmp_path))
    with pytest.raises(ConfigurationError, match="there is no folder"):
        files(tmp_path / "gone")


def test_a_plural_and_a_name_are_found(root: Path) -> None:
    """A question's "leases" finds "lease"; where no text has the words, files with such a name are shown."""
    (root / "INSTALL.md").write_text("How to put it up\n")
    (root / ".pytest_cache").mkdir()
    (root / ".pytest_cache/README.md").write_text("install leases\n")
    _, search, _ = files(root)
    assert "docs/deep/lease.md:3" in _call(search, query="leases")
    assert "README.md:2: The lease of a ledger row." in _call(search, query="ledgers")
    assert _call(search, query="install guide") == "INSTALL.md:1: How to put it up"
    assert "nothing found" in _call(search, query="gas")
