"""A folder that tools may read and never leave. The file tools stand on it."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from re import Pattern
from re import compile as compile_pattern

from holdfast.errors import ConfigurationError, ToolError
from holdfast.private import user_cache
from holdfast.tools.builtin.withheld import holds_key, is_withheld, may_run
from holdfast.tools.imports import is_loaded, stack_home

__all__ = ["HUGE", "OPEN_FOLDER", "Folder", "decode", "matcher", "parent_of"]

HUGE = 2 * 1024 * 1024  # bytes; a larger file is not searched
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READABLE = 16 * 1024 * 1024  # bytes; a larger file is not read
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ALTERNATIVES = 64
_SYSTEM = [
    Path("/proc"),
    Path("/sys"),
    Path("/dev"),
    Path("/run/secrets"),
]  # environments of processes, devices, tokens
_GONE = "the folder of these files is gone or cannot be read"


def decode(data: bytes) -> str | None:
    """Return the text of a file, odd bytes replaced; None if it is binary."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    return None if b"\x00" in data[:8192] else data.decode("utf-8", "replace")


@contextmanager
def parent_of(root: int, parts: Sequence[str], *, create: bool = False) -> Iterator[int | None]:
    """Open the folder that holds a path, from an open *root* name by name; None if it is not there.

    Whatever anybody puts into the way meanwhile, what is opened lies below the root.

    Raises:
        ToolError: there is a link on the way.

    """
    folder: int | None = os.dup(root)
    try:
        for part in parts[:-1]:
            assert folder is not None
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
            try:
                inner = os.open(part, OPEN_FOLDER, dir_fd=folder)
            except FileNotFoundError:
                os.close(folder)
                folder = None
                break
            except OSError as exc:
                raise ToolError(
                    f"{'/'.join(parts)!r}: {part!r} is a link or no folder; links are not followed"
                ) from exc
            os.close(folder)
            folder = inner
        yield folder
    finally:
        if folder is not None:
            os.close(folder)


class Folder:
    """Regular files under one root, by path relative to it, always with forward slashes."""

    def __init__(self, root: str | os.PathLike[str], owner: str = "files", *, allow: Iterable[str] = ()) -> None:
        """Take the *root*, which must be a folder; *owner* is the function that a message names.

        *allow* has patterns of files that are shown although their names say that they hold keys.

        Raises:
            ConfigurationError: there is no such folder, or a pattern is wrong.

        """
        if isinstance(allow, str):
            raise ConfigurationError(f"{owner}(allow={allow!r}): give a list of patterns, such as ['certs/*.pem'].")
        try:
            self._allow = [matcher(pattern) for pattern in allow]
        except ToolError as exc:
            raise ConfigurationError(f"{owner}(allow=…): {exc}") from None
        self.root = Path(root).expanduser().resolve()
        if not self.root.is_dir():
            raise ConfigurationError(
                f"{owner}({os.fspath(root)!r}): there is no folder {self.root}. Create it or name another."
            )
        closed = [stack_home(), user_cache(), *_SYSTEM]
        self._closed = [each for each in closed if each is not None and not self.root.is_relative_to(each)]

    def is_withheld(self, parts: Sequence[str]) -> bool:
        """Tell whether models are not to see or write what lies at a path below the root."""
        if is_withheld(parts, secrets=not any(allowed("/".join(parts)) for allowed in self._allow)):
            return True
        return any(self.root.joinpath(*parts).is_relative_to(each) for each in self._closed)

    def walk(self) -> Iterator[str]:
        """Yield the paths of all files, sorted within each folder. Links are followed to files inside the root only."""
        pending = [""]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(self.root / folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError:
                if not folder:
                    raise ToolError(_GONE) from None
                continue
            below = []
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    if self._linked(path):
                        yield path
                elif entry.is_dir(follow_symlinks=False):
                    if not is_withheld((entry.name,), secrets=not self._allow) and self.root / path not in self._closed:
                        below.append(path)
                elif entry.is_file(follow_symlinks=False) and not self.is_withheld(path.split("/")):
                    yield path
            pending.extend(reversed(below))

    def _linked(self, path: str) -> bool:
        try:
            return self.locate(path).is_file()
        except (ToolError, OSError, ValueError, RuntimeError):
            return False

    def locate(self, path: str) -> Path:
        """Return where *path* really is.

        Raises:
            ToolError: it leads out of the root, or to what is never shown.

        """
        refused = ToolError(
            f"{path[:200]!r} is not allowed: give a path below the root, as list_files shows it, without `..` and not "
            "starting with `/`."
        )
        if "\x00" in path or Path(path).is_absolute() or ".." in Path(path).parts:
            raise refused
        try:
            real = (self.root / path).resolve()
            inner = real.relative_to(self.root).parts
        except (OSError, ValueError, RuntimeError):  # a link that leads out, or in a circle
            raise refused from None
        if self.is_withheld(inner) or self.is_withheld(Path(path).parts):
            raise ToolError(f"{path[:200]!r} is not shown to models: it may hold keys, or is not the project's own.")
        return real

    def check_not_loaded(self, path: Path) -> None:
        """Refuse what workers load as code.

        Raises:
            ToolError: they do, or would.

        """
        inner = path.relative_to(self.root)
        if may_run(self.root, inner.parts) or is_loaded(path, self.root):
            raise ToolError(
                f"{inner.as_posix()!r} may not be written: it is, or would be, run as code by the workers, by git or "
                "by an editor. Write to another file; only a person may change this one."
            )

    def read(self, path: str, most: int = _READABLE) -> bytes:
        """Return the bytes of a file.

        Raises:
            ToolError: it is not there, not allowed, no regular file, or larger than *most* bytes.

        """
        parts = self.locate(path).relative_to(self.root).parts  # followed to its end: no link is left in it
        if not parts:
            raise ToolError(f"{path!r} is a folder or device, not a file")
        try:
            root = os.open(self.root, OPEN_FOLDER)
        except OSError:
            raise ToolError(_GONE) from None
        try:
            with parent_of(root, parts) as folder:
                if folder is None:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                # Neither a link put there since nor a pipe that nobody writes to shall be opened.
                handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                about = os.fstat(handle)
                if not stat.S_ISREG(about.st_mode):
                    raise ToolError(f"{path!r} is a folder or device, not a file")
                if about.st_size > most:
                    raise ToolError(f"{path!r} has {about.st_size:,} bytes, more than the {most:,} that are read")
                data = file.read(most)
        except OSError as exc:
            raise ToolError(f"{path!r} cannot be read: {exc.strerror}") from None
        finally:
            os.close(root)
        if holds_key(data) and not any(allowed("/".join(parts)) for allowed in self._allow):
            raise ToolError(f"{path!r} is not shown to models: it contains a private key.")
        return data


def matcher(pattern: str) -> _Matcher:
    """Return a test for paths: `*` and `?` within one part, `**` for any number of parts, `{a,b}` for either.

    A pattern without `/` is tried on file names at any depth; a plain folder name takes all below it.

    Raises:
        ToolError: it is empty, too long, absolute, or has `..`.

    """
    pattern = pattern.strip().removeprefix("./")
    if not pattern or len(pattern) > 300 or pattern.startswith("/") or ".." in pattern.split("/"):
        raise ToolError(f"{pattern[:100]!r} is no pattern: use one below the root, such as **/*.md or docs/*.txt")
    choices = []
    for plain in _alternatives(pattern):
        parts = [part for part in plain.split("/") if part]
        if not any(sign in plain for sign in "*?["):
            choices.append((*parts, "**"))
        choices.append(tuple(parts) if "/" in plain else ("**", *parts))
    return _Matcher(choices)


def _alternatives(pattern: str) -> list[str]:
    done: list[str] = []
    pending = [pattern]
    while pending and len(done) + len(pending) <= _ALTERNATIVES:
        text = pending.pop()
        close = text.find("}")
        start = text.rfind("{", 0, close)
        if close < 0 or start < 0:
            done.append(text)
        else:
            pending += [text[:start] + choice + text[close + 1 :] for choice in text[start + 1 : close].split(",")]
    if pending:
        raise ToolError(f"{pattern[:100]!r} has too many alternatives in braces")
    return done


@lru_cache(maxsize=512)
def _part(pattern: str) -> Pattern[str]:
    return compile_pattern(translate(pattern))


class _Matcher:
    """Matches part by part, so that no pattern takes more than (parts of pattern x parts of path) steps."""

    def __init__(self, choices: list[tuple[str, ...]]) -> None:
        self._choices = choices

    def __call__(self, path: str) -> bool:
        parts = path.split("/")
        return any(self._match(choice, parts) for choice in self._choices)

    @staticmethod
    def _match(pattern: tuple[str, ...], parts: list[str]) -> bool:
        reached = {0}  # how many parts of the path the pattern so far may have used up
        for index, piece in enumerate(pattern):
            if piece == "**":
                least = min(reached)
                # At the end `**` stands for at least one part: `docs/**` is what lies below docs.
                reached = set(range(least + (index == len(pattern) - 1), len(parts) + 1))
            else:
                test = _part(piece).match
                reached = {at + 1 for at in reached if at < len(parts) and test(parts[at])}
            if not reached:
                return False
        return len(parts) in reached
