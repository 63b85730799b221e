"""The documents' code, and the one way in which tests get it: all blocks of a page, or the page's test fails.

    with Page("docs/howto/tools.md") as page:
        names = page.python("async def watch(")      # a block, executed
        done = await page.shell("holdfast show", …)  # a block, run by bash
        source = page.take("helper = Agent(")        # a block, for the test to run as it likes, within the `with`

A block that was taken and only read is not run, and fails the test: Python must have been executed to its end, of a
console block each command must have been started as a process. JSON, SQL and the like leave no trace: the test that
takes one has to send it, or compare with it.

A block that no test can run says so where readers see it, in the line before: `*Not run by the tests: REASON.*`
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.kit import PATIENCE

__all__ = [
    "PAGES",
    "REASONS",
    "ROOT",
    "Block",
    "Done",
    "Page",
    "blocks",
    "commands",
    "lines",
    "pages_of_users",
    "shell",
]

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NO_CODE = {"", "text"}  # languages of blocks that show something and are no code

# All there is; a new reason is worth a thought.
REASONS = {
    "it installs from the network",
    "it needs Docker",
    "it needs root and builds servers",
    "these take up to 40 minutes; the first is one of the tests",
}

_PIPED = re.compile(r"holdfast\b")
_FENCE = re.compile(
    r"(?:^\*Not run by the tests: (?P<reason>[^*\n]+)\.\*\n\n)?(?:<!-- (?P<mark>[^>]*) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)


class Block(NamedTuple):
    """A fenced block: where, in which language, what the comment before it says, its text, and why it is not run."""

    page: str
    line: int
    language: str
    mark: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class Done(NamedTuple):
    """What a script left."""

    code: int
    out: str
    err: str


def blocks(*languages: str) -> list[Block]:
    """Return all blocks of these languages; without any, all blocks of code."""
    found = []
    for path in PAGES:
        source = path.read_text(encoding="utf-8")
        for match in _FENCE.finditer(source):
            language = match["language"]
            if language in languages or (not languages and language not in NO_CODE):
                line = source.count("\n", 0, match.start("text"))
                name = path.relative_to(ROOT).as_posix()
                found.append(Block(name, line, language, match["mark"] or "", match["text"], match["reason"] or ""))
    return found


def pages_of_users() -> set[str]:
    """Return the pages for users that have code which tests run."""
    return {
        block.page
        for block in blocks()
        if not block.reason and (block.page.startswith("docs/") or block.page == "README.md")
    }


def lines(text: str) -> list[str]:
    """Return each line of a console block without its remark; `a | b` are two: `holdfast runs | show RUN`.

    `printf … | holdfast chat` are two as well, each with its own program.
    """
    found = []
    for line in text.splitlines():
        plain = re.sub(r"(?:^|\s)#\s.*$", "", line).strip()
        if not plain:
            continue
        head, *rest = plain.split(" | ")
        found += [head, *(other if _PIPED.match(other) else f"{head.split()[0]} {other}" for other in rest)]
    return found


def commands() -> list[tuple[Block, str]]:
    """Return each line of all console blocks."""
    return [(block, line) for block in blocks("console") for line in lines(block.text)]


async def shell(
    text: str,
    folder: Path,
    environment: Mapping[str, str],
    words: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> Done:
    """Run console text in a folder, with *words* in the place of its placeholders; the commands are this checkout's."""
    for word, value in (words or {}).items():
        text = re.sub(rf"(?<![\w-]){word}(?![\w-])", shlex.quote(value), text)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", text),
        cwd=folder,
        env={**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 4 * PATIENCE)
    assert process.returncode is not None
    done = Done(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in done.err, done.err
    return done


_spawned: list[list[str]] = []  # words of each command line that this process has started, once there is a Page


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        given = args[1]
        _spawned.append((given if isinstance(given, str) else " ".join(map(os.fsdecode, given))).split())


@cache
def _listen() -> None:
    sys.addaudithook(_hear)  # for good: Python has no way to remove one


def _command(line: str) -> str:
    """Return the word of a line that no run of it lacks: the command of `holdfast` or `temporal`, else the program."""
    words = [word for word in line.split() if "=" not in word]
    program, *more = words or [line]
    return more[0] if program in ("holdfast", "temporal") and more else program


class _Taken:
    """A block that was handed out, and what shows that it was run."""

    def __init__(self, block: Block, folder: Path, number: int) -> None:
        self.block = block
        self._mark = folder / str(number)
        self._since = len(_spawned)

    @property
    def text(self) -> str:
        """The block; of Python, with a last line that leaves a mark. It may run where files are out of reach, too."""
        if self.block.language != "python":
            return self.block.text
        mark = f"try: __import__('pathlib').Path({str(self._mark)!r}).touch()\nexcept Exception: pass"
        return f"{self.block.text}exec({mark!r})\n"

    @property
    def missing(self) -> str:
        """What of it was not run."""
        if self.block.language == "python":
            return "" if self._mark.exists() else "its code was never executed to its end"
        if self.block.language != "console":
            return ""
        started = Counter(word for words in _spawned[self._since :] for word in words)  # one script may have them all
        wanted = Counter(_command(line) for line in lines(self.block.text))
        return ", ".join(
            f"{word} was started {started[word]} times of {n}" for word, n in wanted.items() if started[word] < n
        )


class Page:
    """A page of which every block is to be run before its `with` ends."""

    def __init__(self, name: str) -> None:
        """Take the page's path in the checkout, spelled out: a test looks for it."""
        self.name = name
        self.left = [block for block in blocks() if block.page == name and not block.reason]
        self._taken: list[_Taken] = []
        self._marks = tempfile.TemporaryDirectory(prefix="page-")
        _listen()

    def __enter__(self) -> Page:
        assert self.left, f"{self.name} has no code to run"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._marks:
            if kind is None:
                assert not self.left, f"nothing took {', '.join(str(block) for block in self.left)}"
                idle = [f"{taken.block}: {taken.missing}" for taken in self._taken if taken.missing]
                assert not idle, f"taken and not run: {'; '.join(idle)}"

    def take(self, part: str) -> str:
        """Return the text of the one block left that has *part*, for a test that runs it in its own way."""
        taken = _Taken(self._found(part), Path(self._marks.name), len(self._taken))
        self._taken.append(taken)
        return taken.text

    def _found(self, part: str) -> Block:
        found = [block for block in self.left if part in block.text]
        assert len(found) == 1, f"{self.name}: {part!r} is in {len(found)} blocks"
        self.left.remove(found[0])
        return found[0]

    def python(self, part: str) -> dict[str, Any]:
        """Execute the block and return its names."""
        names: dict[str, Any] = {"__name__": "page"}
        exec(compile(self._found(part).text, self.name, "exec", dont_inherit=True), names)
        return names

    async def shell(
        self,
        part: str,
        folder: Path,
        environment: Mapping[str, str],
        words: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> Done:
        """Run the block as a script and expect it to succeed."""
        done = await shell(self._found(part).text, folder, environment, words, stdin)
        assert done.code == 0, f"{self.name}: {part}\n{done.out}{done.err}"
        return done
