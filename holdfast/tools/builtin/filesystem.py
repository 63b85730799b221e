"""The tools for one folder, confined to it: three that read, all pure, and on demand three that write."""

from __future__ import annotations

import difflib
import heapq
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field

from holdfast.contracts import ApprovalPolicy
from holdfast.errors import ToolError
from holdfast.tools.builtin.folder import HUGE, Folder, decode, matcher
from holdfast.tools.tool import AnyTool, Tool
from holdfast.tools.toolset import makes_tools

__all__ = ["files"]

_LISTED = 1000  # paths
_SEARCHED_FILES = 20_000
_SEARCHED_BYTES = 96 * 1024 * 1024
_PER_FILE = 5  # lines of one file, before other files had their turn
_LINE = 300  # characters shown of a line that was found
_LINE_READ = 2000  # characters shown of a line that is read
_WORDS = 32
_COMPARED = 5000  # paths that a misspelt one is compared with
_PREFIX = 4  # from so many letters on, a word also finds longer ones that begin with it

AnyPattern = Annotated[str, Field(description="which files: **/*.md, docs/*.txt, *.{py,toml} or a folder name")]


@makes_tools
def files(
    root: str | os.PathLike[str] = ".",
    *,
    write: bool = False,
    approval: ApprovalPolicy = "never",
    max_write: int = 1024 * 1024,
    allow: Iterable[str] = (),
    prefix: str = "",
) -> list[AnyTool]:
    """Return the tools `list_files`, `search_files` and `read_file` for the folder *root*; none of them writes.

    They show nothing outside the root, wherever `..`, absolute paths or links lead. They do not show files that hold
    keys or passwords: `.env`, `holdfast.toml`, `.ssh`, `.aws`, `.netrc`, `.npmrc`, `*.pem` and similar files, or any
    file with a private key in it; nor files in .git, .holdfast, .venv, node_modules, __pycache__ and the caches of test
    tools.

    Args:
        root: the folder; relative to where the worker runs.
        write: add `write_file`, `patch_file` and `delete_file`, all `keyed`: each call takes effect once, by a journal
            in the folder's `.holdfast/writes`. They follow no links and do not write files that the others do not show,
            nor files that workers load as code: the agents file, what it imports, a module that would replace another.
        approval: of those three.
        max_write: bytes of a file that they leave.
        allow: patterns of files to show and write even if they may hold keys: `["certs/*.pem"]`.
        prefix: goes before the tools' names, so that an agent may have two folders.

    Raises:
        ConfigurationError: there is no such folder, or a pattern of *allow* is wrong.

    """
    folder = Folder(root, allow=allow)

    def list_files(pattern: AnyPattern = "**/*") -> str:
        """List the files that are there, one path per line."""
        matches = matcher(pattern)
        found = [path for path in folder.walk() if matches(path)]
        if not found:
            return f"no file matches {pattern!r}"
        rest = len(found) - _LISTED
        return "\n".join(found[:_LISTED] + ([f"… and {rest} more: narrow the pattern"] if rest > 0 else []))

    def search_files(
        query: Annotated[str, Field(min_length=1, max_length=1000, description="words or a phrase to look for")],
        pattern: AnyPattern = "**/*",
        limit: Annotated[int, Field(ge=1, le=200, description="how many lines at most")] = 20,
    ) -> str:
        """Search the text of all files for words; best lines first, each as path:line: text. Else by their names."""
        return _search(folder, query, pattern, limit)

    def read_file(
        path: Annotated[str, Field(min_length=1, max_length=1000, description="path as list_files shows it")],
        start: Annotated[int, Field(ge=1, description="first line, from 1")] = 1,
        lines: Annotated[int, Field(ge=1, le=5000, description="how many lines")] = 200,
    ) -> str:
        """Read lines of a text file; the first line of the answer says which."""
        return _read(folder, path, start, lines)

    functions: list[Callable[..., str]] = [list_files, search_files, read_file]
    reading: list[AnyTool] = [Tool(each, effect="pure", name=prefix + each.__name__) for each in functions]
    if not write:
        return reading
    from holdfast.tools.builtin.writing import writing_tools

    return [*reading, *writing_tools(folder, approval=approval, most=max_write, prefix=prefix)]


def _read(folder: Folder, path: str, start: int, count: int) -> str:
    shown = PurePosixPath(path).as_posix()
    try:
        text = decode(folder.read(path))
    except ToolError as exc:
        near = difflib.get_close_matches(shown, list(islice(folder.walk(), _COMPARED)), n=3, cutoff=0.6)
        hint = f". Did you mean {', '.join(near)}?" if near and shown not in near else ""
        raise ToolError(f"{exc}{hint}") from None
    if text is None:
        raise ToolError(f"{shown!r} is a binary file, not text")
    every = text.splitlines()
    if start > max(1, len(every)):
        raise ToolError(f"{shown!r} has only {len(every)} lines; start is {start}")
    chosen = [_cut(line, 0, _LINE_READ) for line in every[start - 1 : start - 1 + count]]
    if not chosen:
        return f"{shown} is empty"
    return "\n".join([f"{shown} (lines {start}-{start + len(chosen) - 1} of {len(every)})", *chosen])


def _cut(line: str, around: int, width: int) -> str:
    """Return at most *width* characters of a line, those around position *around*."""
    if len(line) <= width:
        return line
    begin = max(0, min(around - width // 3, len(line) - width))
    return ("…" if begin else "") + line[begin : begin + width] + ("…" if begin + width < len(line) else "")


# ------------------------------------------------------------------------------------------------------------ search


@dataclass
class _Text:
    path: str
    lines: list[str]
    folded: str


# (no phrase, minus weight, path, line number, position): sorts best first, and the order never varies.
_Hit = tuple[bool, float, str, int, int]


def _words(query: str) -> list[str]:
    """Return the distinct words of a query as they are looked for, in order; without the s of a plural."""
    words = re.findall(r"\w+", query.casefold())
    return list(dict.fromkeys(re.sub(r"(?<=[^\W\d_]{2}[^\W\d_suia])s$", "", word) for word in words))[:_WORDS]


def _pattern(word: str) -> str:
    if not word.isalnum():
        return re.escape(word)
    return rf"\b{re.escape(word)}" + ("" if len(word) >= _PREFIX else r"s?\b")


def _texts(folder: Folder, pattern: str, wanted: list[str]) -> Iterator[_Text | None]:
    """Yield the files in which any of *wanted* occurs, None for each other text; stop at the caps with ToolError."""
    matches = matcher(pattern)
    count = size = 0
    for path in folder.walk():
        if not matches(path):
            continue
        try:
            data = folder.read(path, HUGE)
        except ToolError:  # huge, unreadable, or gone since
            continue
        if (text := decode(data)) is None:
            continue
        count, size = count + 1, size + len(data)
        if count > _SEARCHED_FILES or size > _SEARCHED_BYTES:
            raise ToolError(f"only {count - 1} files were searched: narrow the pattern")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        folded = text.casefold()  # has the same line ends as the text
        yield _Text(path, text.split("\n"), folded) if any(word in folded for word in wanted) else None


def _search(folder: Folder, query: str, pattern: str, limit: int) -> str:
    phrase = " ".join(query.casefold().strip(" \t\r\n\"'“”?!.").split())
    words = _words(query)
    wanted = words or [phrase]
    if not wanted[0]:
        raise ToolError(f"{query!r} has nothing to look for: give words")
    texts: list[_Text] = []
    count, note = 0, ""
    try:
        for text in _texts(folder, pattern, wanted):
            count += 1
            if text is not None:
                texts.append(text)
    except ToolError as exc:
        if not count:
            raise
        note = str(exc)
    spread = {word: sum(word in text.folded for text in texts) for word in wanted}
    total = sum(len(text.lines) for text in texts)
    often = {word: sum(text.folded.count(word) for text in texts) for word in wanted}
    # Squared, so that one rare word outweighs several common ones: questions are full of those.
    weight = {word: math.log(1 + total / often[word]) ** 2 for word in wanted if often[word]}
    # A word found in most files tells little: it adds to the weight of a line, but does not make one a hit.
    telling = [word for word in weight if count < 10 or spread[word] <= count / 2] or list(weight)
    best = _best(_hits(texts, phrase if len(words) != 1 else "", telling, weight, limit), limit)
    by_path = {text.path: text for text in texts}
    lines = []
    for _, _, path, number, place in best:
        line = by_path[path].lines[number - 1]
        shown = _cut(line.strip(), max(0, place - (len(line) - len(line.lstrip()))), _LINE)
        lines.append(f"{path}:{number}: {shown}")
    lines = lines or _named(folder, pattern, wanted) or [f"nothing found for {query!r} in {count} files"]
    return "\n".join([*lines, f"({note})"] if note else lines)


def _named(folder: Folder, pattern: str, wanted: list[str]) -> list[str]:
    """Return the first lines of files in whose names a word stands: for a search that found no text."""
    matches, tests = matcher(pattern), [re.compile(_pattern(word)) for word in wanted]
    lines: list[str] = []
    for path in folder.walk():
        name = re.sub(r"[_.-]", " ", PurePosixPath(path).name.casefold())
        if len(lines) < _PER_FILE and matches(path) and any(test.search(name) for test in tests):
            with suppress(ToolError):  # gone since, or no file to read
                first = next(iter((decode(folder.read(path)) or "").splitlines()), "")
                lines.append(f"{path}:1: {_cut(first.strip(), 0, _LINE)}")
    return lines


def _hits(
    texts: list[_Text], phrase: str, telling: list[str], weight: dict[str, float], limit: int
) -> Iterator[list[_Hit]]:
    """Yield the best hits of each file."""
    if not weight:
        return
    each = {word: re.compile(_pattern(word)) for word in weight}
    first = re.compile("|".join(_pattern(word) for word in telling))
    for text in texts:
        hits: list[_Hit] = []
        for number, folded in enumerate(text.folded.split("\n"), start=1):
            whole = bool(phrase) and phrase in folded
            match = first.search(folded)
            if match is None and not whole:
                continue
            total = 0.0
            for word, test in each.items():
                if word in folded and test.search(folded):
                    total += weight[word]
            place = folded.find(phrase) if whole else match.start() if match else 0
            hits.append((not whole, -round(total, 6), text.path, number, place))
        if hits:
            yield heapq.nsmallest(limit, hits)


def _best(hits: Iterator[list[_Hit]], limit: int) -> list[_Hit]:
    """Return the best *limit*; a file gets more than a few only where other files leave room."""
    early: list[_Hit] = []
    late: list[_Hit] = []
    for of_file in hits:
        early += of_file[:_PER_FILE]
        late += of_file[_PER_FILE:]
    chosen = heapq.nsmallest(limit, early)
    return sorted([*chosen, *heapq.nsmallest(limit - len(chosen), late)])
