"""Changes files below one root, each once under its key, following no link. The writing tools stand on it.

Every step goes from an open folder to a name in it (openat), never by a path that somebody may redirect meanwhile. A
change is written to the journal before it is made (file, what it holds before, what it shall hold after) and marked
there once it is. So a second attempt under the same key knows whether the first one's change was made, also when others
have changed the file since, or changed it back.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from holdfast.errors import EffectError, ToolError, ToolNotStarted
from holdfast.private import close_to_others
from holdfast.tools.builtin.folder import OPEN_FOLDER, Folder, parent_of

__all__ = ["KEPT", "Change", "Tree"]

_JOURNAL = (".holdfast", "writes")
_DEPTH = 32
_PATIENCE = 10.0  # seconds to wait for another writer in the same folder
KEPT = 30 * 24 * 3600.0  # seconds that a journal entry is kept, which says for how long a call may be sent again


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a file: its bytes before and after, None where there was or is none."""

    path: str
    before: bytes | None
    after: bytes | None
    again: bool = False  # it had been made by an earlier attempt


def _hash(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


class Tree:
    """Regular files below a root, which may be written."""

    def __init__(self, folder: Folder, most: int) -> None:
        """Take a folder; files of over *most* bytes are neither changed nor made."""
        self._folder = folder
        self._root = folder.root
        self._most = most

    def change(self, path: str, key: str, deadline: float, make: Callable[[bytes | None], bytes | None]) -> Change:
        """Put what *make* makes of a file's bytes into its place, in one step, once under *key*.

        *make* gets None for a file that is not there, and returns None to remove it. *deadline* is on the clock of
        `time.monotonic()`.

        Raises:
            ToolError: refused; nothing was changed.
            ToolNotStarted: the deadline passed before anything was changed.
            EffectError: an earlier attempt ended amid this change, and the file was changed by others since.

        """
        parts = self._parts(path)
        key = hashlib.sha256(key.encode()).hexdigest()[:40]  # a name, whatever the key is made of
        root = os.open(self._root, OPEN_FOLDER)
        try:
            with self._journal(root, deadline) as journal:
                return self._change(root, journal, parts, key, deadline, make)
        except OSError as exc:
            raise ToolError(f"{path!r} was not changed: {exc.strerror or exc}") from exc
        finally:
            os.close(root)

    def _change(
        self,
        root: int,
        journal: int,
        parts: tuple[str, ...],
        key: str,
        deadline: float,
        make: Callable[[bytes | None], bytes | None],
    ) -> Change:
        path = "/".join(parts)
        earlier = _entry(journal, key)
        if earlier is not None and earlier.get("made"):
            return Change(path, None, None, again=True)
        with parent_of(root, parts) as folder:
            before = None if folder is None else self._read(folder, parts[-1], path)
        if earlier is not None:
            if earlier["after"] == _hash(before) and earlier["path"] == path:
                return Change(path, None, before, again=True)
            if earlier["before"] != _hash(before):
                raise EffectError(
                    f"{path} was to be changed by this call before; it is now neither as it was before that change nor "
                    "as it should be after it, so somebody else has changed it. Look at the file."
                )
        after = make(before)
        if after is not None and len(after) > self._most:
            raise ToolError(
                f"{path!r} would have {len(after):,} bytes, more than the {self._most:,} that may be written"
            )
        if after == before:
            return Change(path, before, after)
        with parent_of(root, parts, create=after is not None) as folder:
            if folder is None:
                raise ToolError(f"there is no file {path!r}")
            entry = {"path": path, "before": _hash(before), "after": _hash(after)}
            _put_entry(journal, key, entry)
            if time.monotonic() >= deadline:
                raise ToolNotStarted(f"{path} was not changed: the call's time was over")
            if after is None:
                os.unlink(parts[-1], dir_fd=folder)
            else:
                self._place(journal, folder, parts[-1], key, after, is_new=before is None)
            # It is made: whatever fails from here on, nobody may say that it is not. Some file systems sync no folders.
            with suppress(OSError):
                os.fsync(folder)
            with suppress(OSError):
                _put_entry(journal, key, {**entry, "made": "yes"}, sync=False)
        return Change(path, before, after)

    def _parts(self, path: str) -> tuple[str, ...]:
        pure = PurePosixPath(path)
        parts = pure.parts
        if not parts or pure.is_absolute() or ".." in parts or "\x00" in path or "\\" in path or len(parts) > _DEPTH:
            raise ToolError(f"{path[:200]!r} is not allowed: give a path below the root, without `..` or a leading `/`")
        if self._folder.is_withheld(parts):
            raise ToolError(f"{path[:200]!r} may not be written: it may hold keys, or is not the project's own.")
        self._folder.check_not_loaded(self._root.joinpath(*parts))
        return parts

    def _read(self, folder: int, name: str, path: str) -> bytes | None:
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ToolError(f"{path!r} cannot be changed: it is a link, or {exc.strerror}") from None
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise ToolError(f"{path!r} is a folder or device, not a file")
            if about.st_size > self._most:
                raise ToolError(
                    f"{path!r} has {about.st_size:,} bytes, more than the {self._most:,} that may be changed"
                )
            return file.read(self._most + 1)

    @staticmethod
    def _place(journal: int, folder: int, name: str, key: str, data: bytes, *, is_new: bool) -> None:
        """Write *data* beside the journal and move it into place, so that no reader sees half of it."""
        draft = f"{key}.draft"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(draft, flags, 0o666, dir_fd=journal)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                if not is_new:
                    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                    os.fchmod(handle, stat.S_IMODE(mode) & 0o777)
                os.fsync(handle)
            if is_new:
                try:  # unlike a rename, a link never replaces what another program has put there meanwhile
                    os.link(draft, name, src_dir_fd=journal, dst_dir_fd=folder, follow_symlinks=False)
                    return
                except FileExistsError:
                    raise ToolError(f"{name!r} was made by somebody else meanwhile: nothing was written") from None
                except OSError:  # a file system without hard links
                    pass
            os.rename(draft, name, src_dir_fd=journal, dst_dir_fd=folder)
        finally:
            with suppress(OSError):  # after a rename it is gone
                os.unlink(draft, dir_fd=journal)

    @contextmanager
    def _journal(self, root: int, deadline: float) -> Iterator[int]:
        """Open the journal and hold it against other writers; a lock of a process that dies is free."""
        folder = os.dup(root)
        try:
            for part in _JOURNAL:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=folder)
                inner = os.open(part, OPEN_FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
                close_to_others(folder)
            self._lock(folder, min(deadline, time.monotonic() + _PATIENCE))
            with suppress(FileExistsError):  # nothing of this belongs into anybody's repository
                ignore = os.open(
                    ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder
                )
                with os.fdopen(ignore, "w") as file:
                    file.write("*\n")
            yield folder
        finally:
            os.close(folder)

    @staticmethod
    def _lock(folder: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise ToolNotStarted("another program is writing in this folder and does not end") from None
                time.sleep(0.01)
            else:
                return


def _entry(journal: int, key: str) -> dict[str, str | None] | None:
    try:
        handle = os.open(f"{key}.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=journal)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        found: dict[str, str | None] = json.loads(file.read())
        return found


def _put_entry(journal: int, key: str, entry: dict[str, str | None], *, sync: bool = True) -> None:
    name = f"{key}.json"
    handle = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666, dir_fd=journal)
    with os.fdopen(handle, "wb") as file:
        file.write(json.dumps(entry).encode())
        file.flush()
        if sync:
            os.fsync(handle)
    os.rename(f"{name}.new", name, src_dir_fd=journal, dst_dir_fd=journal)
    if sync:
        with suppress(OSError):  # some file systems sync no folders
            os.fsync(journal)
    if key.startswith("00"):  # now and then
        _forget(journal)


def _forget(journal: int) -> None:
    """Remove what is older than any call that may still be tried again."""
    for name in os.listdir(journal):
        with suppress(OSError):
            about = os.stat(name, dir_fd=journal, follow_symlinks=False)
            if name != ".gitignore" and stat.S_ISREG(about.st_mode) and about.st_mtime < time.time() - KEPT:
                os.unlink(name, dir_fd=journal)
