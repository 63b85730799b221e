"""Which files found in a folder may be used: those of the user's own, as git asks before it believes a repository.

Settings, agents files and `.holdfast` are found in the current folder, which may be another user's (`/tmp`, a shared
disk). Settings, completion, the client and the embedded stack call this; it imports next to nothing.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from contextlib import suppress
from importlib.machinery import all_suffixes
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["SAFE", "borrowed_password", "doubt", "doubt_code", "is_loopback", "read_own", "read_source"]

SAFE: Final = "HOLDFAST_SAFE_DIRECTORY"  # read from the environment alone: a folder must not vouch for itself
_OTHERS: Final = stat.S_IWOTH
_GROUP_TOO: Final = stat.S_IWOTH | stat.S_IWGRP
_LONGEST: Final = 1024 * 1024  # bytes of `read_own` and `read_source`
_MOST_LINKS: Final = 40
_SUFFIXES: Final = tuple(all_suffixes())


def _owners() -> set[int]:
    """Return whose files may be used: ours and root's, and with sudo those of the user who called it."""
    owners = {os.geteuid(), 0}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        owners.add(int(os.environ["SUDO_UID"]))
    return owners


def _vouched(path: Path) -> bool:
    """Whether the user allows the folder that *path* lies in, or that it leads to; `..` leads out of a folder."""
    folders = [folder for folder in os.environ.get(SAFE, "").split(os.pathsep) if folder]
    places = (path.parent.resolve() / path.name, path.resolve())
    return "*" in folders or any(place.is_relative_to(Path(each).resolve()) for each in folders for place in places)


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
    if forbidden and found.st_mode & stat.S_IWGRP and _group_has_others(found):
        return f"other users may write to it, as members of its group (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def doubt(path: Path, *, private: bool = False) -> str | None:
    """Return why *path* may not be used, with what to do about it; None if it may, or is not there.

    Its group may write to it if nobody else is in that group; with *private* not even then: what lies in `.holdfast`
    names processes and passwords. A link must be the user's own too, because its owner chooses the target.
    """
    try:
        link, found = path.lstat(), path.stat()
    except OSError:
        return None
    why = _objection(found, _GROUP_TOO if private else _OTHERS)
    if why is None and stat.S_ISLNK(link.st_mode):
        why = _objection(link, 0)
    if why is None or _vouched(path):
        return None
    folder = path.absolute() if stat.S_ISDIR(found.st_mode) and not private else path.absolute().parent
    return (
        f"{path} is not used: {why}. Such a file could make Holdfast use any server or program. If you trust it, take "
        f"ownership of it (chown, chmod go-w), or set {SAFE}={folder} in your environment."
    )


def doubt_code(path: Path, imported: Iterable[Path]) -> str | None:
    """Return why the agents file *path* may not be run, with what to do about it; None if it may, or is not there.

    Its folder is on `sys.path`. So checked are: the file, each link on the way to it, the folder, the files that are
    *imported*, every module in the folder (a library may import an optional one by that name), and bytecode.
    """
    real = path.resolve()
    for each in (*_links(path), real):
        why = doubt(each) or _doubt_folder(each.parent)
        if why is not None:
            return why
    modules = {*(file for file in imported if file != path), *_modules(real.parent)}
    folders = {file.parent for file in modules} - {real.parent}
    caches = {folder / "__pycache__" for folder in (*folders, real.parent)}
    compiled = {file for cache in caches if cache.is_dir() for file in cache.glob("*.pyc")}
    for each in sorted({*folders, *caches, *modules, *compiled}):
        why = doubt(each)
        if why is not None:
            return why
    return None


def _links(path: Path) -> list[Path]:
    """Return *path* and the links that it leads through, at most as many as the system follows."""
    found = [path.absolute()]
    while found[-1].is_symlink() and len(found) < _MOST_LINKS:
        found.append(found[-1].parent / found[-1].readlink())
    return found


def _doubt_folder(folder: Path) -> str | None:
    """As `doubt`; a mount that is read-only may have any mode, as a ConfigMap's has in Kubernetes."""
    why = doubt(folder)
    with suppress(OSError):
        found = folder.stat()
        if why is not None and _objection(found, 0) is None and os.statvfs(folder).f_flag & os.ST_RDONLY:
            return None
    return why


def _modules(folder: Path) -> set[Path]:
    """Return the modules and packages that lie directly in *folder*."""
    found: set[Path] = set()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_SUFFIXES):
                found.add(Path(entry.path))
            elif entry.name.isidentifier():
                place = Path(entry.path)
                found |= {file for suffix in _SUFFIXES if os.path.lexists(file := place / f"__init__{suffix}")}
    return found


def borrowed_password(url: str) -> str | None:
    """Return where the driver would take a password from that the PostgreSQL *url* does not have; None: nowhere.

    A line of a password file that names the very host is the user's word that the password belongs there. The URL is
    taken apart as asyncpg does it.
    """
    parsed = urlsplit(url)
    auth, _, hosts = parsed.netloc.rpartition("@") if parsed.netloc.count("@") < 2 else ("", "", parsed.netloc)
    given = {name: values[-1] for name, values in parse_qs(parsed.query).items()}
    hosts = unquote(hosts or given.get("host", ""))
    if auth.partition(":")[2] or given.get("password") or not hosts:
        return None
    for name, found in (("PGPASSWORD", "PGPASSWORD"), ("PGSERVICE", "the service that PGSERVICE names")):
        if os.environ.get(name):
            return found
    if "service" in given:
        return f"the service {given['service']!r}"
    named = given.get("passfile") or os.environ.get("PGPASSFILE")
    return _borrowed_from(Path(named) if named else Path("~/.pgpass").expanduser(), hosts)


def _borrowed_from(passfile: Path, hosts: str) -> str | None:
    """Return the name of the password file if a line of it is for any host, or one that is for one host of several."""
    try:
        lines = read_source(passfile).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    named = {line.replace("\\:", "\0").split(":")[0] for line in lines if line.strip() and not line.startswith("#")}
    return str(passfile) if "*" in named or ("," in hosts and named) else None


def is_loopback(url: str) -> bool:
    """Say whether the http *url* is one of this machine; what two parsers may read in two ways is not."""
    if "\\" in url or any(ord(each) <= 32 for each in url):
        return False
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def read_source(path: Path) -> bytes:
    """Return the content of a file of source code, whoever it belongs to: it is to be parsed, not run.

    Raises:
        OSError: it is not there, no plain file (a pipe would keep us waiting, a device never end), or too large.

    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no plain file")
        found = file.read(_LONGEST + 1)
    if len(found) > _LONGEST:
        raise OSError(f"{path} is larger than {_LONGEST:,} bytes")
    return found


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
            raise PermissionError(f"{path} is not used: {why or 'it is not a regular file'}")
        return file.read(_LONGEST)
