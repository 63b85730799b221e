"""Which files found in a folder may be used: those of the user's own, as git asks before it believes a repository.

Settings, agents files and `.holdfast` are found in the current folder, which may be another user's (`/tmp`, a shared
disk). Settings, completion, the client and the embedded stack call this; it imports next to nothing.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["SAFE", "doubt", "read_own"]

SAFE: Final = "HOLDFAST_SAFE_DIRECTORY"  # read from the environment alone: a folder must not vouch for itself
_OTHERS: Final = stat.S_IWOTH
_GROUP_TOO: Final = stat.S_IWOTH | stat.S_IWGRP
_LONGEST: Final = 1024 * 1024  # bytes of `read_own`


def _owners() -> set[int]:
    """Return whose files may be used: ours and root's, and with sudo those of the user who called it."""
    owners = {os.geteuid(), 0}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        owners.add(int(os.environ["SUDO_UID"]))
    return owners


def _vouched(path: Path) -> bool:
    folders = [folder for folder in os.environ.get(SAFE, "").split(os.pathsep) if folder]
    return "*" in folders or any(path.absolute().is_relative_to(Path(folder).absolute()) for folder in folders)


def _group_has_others(found: os.stat_result) -> bool:
    """Whether somebody whose files may not be used is in the file's group, as many systems give each user one alone."""
    owners, users = _owners(), pwd.getpwall()
    members = {user.pw_name for user in users if user.pw_gid == found.st_gid}
    with suppress(KeyError):  # a group without a name has no list of members
        members |= set(grp.getgrgid(found.st_gid).gr_mem)
    return bool(members - {user.pw_name for user in users if user.pw_uid in owners})


def _objection(found: os.stat_result, forbidden: int) -> str | None:
    if found.st_uid not in _owners():
        name = str(found.st_uid)
        with suppress(KeyError):
            name = pwd.getpwuid(found.st_uid).pw_name
        return f"it belongs to the user {name}"
    if found.st_mode & forbidden:
        return f"other users may write to it (mode {stat.S_IMODE(found.st_mode):04o})"
    if found.st_mode & stat.S_IWGRP and _group_has_others(found):
        return f"other users may write to it, as members of its group (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def doubt(path: Path, *, private: bool = False) -> str | None:
    """Return why *path* may not be used, with what to do about it; None if it may, or is not there.

    Its group may write to it if nobody else is in that group; with *private* not even then: what lies in `.holdfast`
    names processes and passwords.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    why = _objection(found, _GROUP_TOO if private else _OTHERS)
    if why is None or _vouched(path):
        return None
    return (
        f"{path} is not used: {why}, who could have it name any server or program. If you trust it, make it your own "
        f"(chown, chmod go-w), or set {SAFE}={path.absolute().parent} in your environment."
    )


def read_own(path: Path) -> str:
    """Return the text of a small file that nobody but its owner, which is us, may write to.

    Raises:
        OSError: it is not there, a link, no plain file, or another user's.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would keep us waiting
    with os.fdopen(descriptor, encoding="utf-8") as file:
        found = os.fstat(descriptor)
        why = _objection(found, _GROUP_TOO)
        if not stat.S_ISREG(found.st_mode) or (why is not None and not _vouched(path)):
            raise PermissionError(f"{path} is not used: {why or 'it is no plain file'}")
        return file.read(_LONGEST)
