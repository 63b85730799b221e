"""Which files workers load as code. The reloader watches them, and tools that change files leave them alone."""

from __future__ import annotations

import ast
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

from holdfast.errors import ConfigurationError
from holdfast.settings import load_settings
from holdfast.trust import read_source

__all__ = ["agents_files", "imported_files", "is_loaded", "stack_home"]

_CODE = (".py", ".pyc", ".pyo", ".pyw", ".so", ".pyd", ".pth", ".egg-link")
_DESCRIBES = (".dist-info", ".egg-info", ".egg")  # entry points: names of code that programs load
_AT_START = {"sitecustomize", "usercustomize"}  # Python imports them by itself


def imported_files(agents: Path) -> set[Path]:
    """Return the agents file and the files of its folder that it may import, also those that are not there yet.

    The files are read, not run: this must work for one that does not load. What is imported by computed names is not
    seen.
    """
    folder, found, waiting = agents.parent, set[Path](), [agents]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        try:
            tree = ast.parse(read_source(path), str(path))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        waiting += [file for module in _modules(tree, path, folder) for file in _candidates(folder, module)]
    return found


def _modules(tree: ast.Module, path: Path, folder: Path) -> Iterator[tuple[str, ...]]:
    package = path.parent.relative_to(folder).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield base
            yield from ((*base, alias.name) for alias in node.names if alias.name != "*")


def _candidates(folder: Path, module: tuple[str, ...]) -> Iterator[Path]:
    """Yield where a module of the folder would be: none if not even its top-level name can be there."""
    if not module:
        return
    for depth in range(1, len(module) + 1):
        place = folder.joinpath(*module[:depth])
        if place.is_dir():
            yield place / "__init__.py"
        else:
            yield place.with_name(f"{place.name}.py")
            return


def agents_files() -> set[Path]:
    """Return the agents files that this process has loaded, and the one that its settings name."""
    found = {
        Path(file)
        for name, module in list(sys.modules.items())
        if name.startswith("holdfast_agents_") and (file := _file_of(module))
    }
    with suppress(ConfigurationError):
        found.add(load_settings().agents)
    return {path.resolve() for path in found}


def stack_home() -> Path | None:
    """Return the folder of the embedded stack, wherever HOLDFAST_HOME puts it: it holds logs and a password."""
    try:
        return load_settings().home.resolve()
    except ConfigurationError:
        return None


def is_loaded(path: Path, root: Path | None = None) -> bool:
    """Tell whether workers load what lies at *path*, or would load what is put there, as code.

    That is: the agents file, what it imports, all modules of this process, whatever lies where Python is installed, a
    module that would take the place of another one (`json.py` beside the agents file), and any new module that an
    import could find: libraries try modules that are not installed. Below a *root* in a folder of its own, the names of
    new modules begin with that folder's, which its author chose: so those are free.
    """
    agents = agents_files()
    wanted = _key(path)
    if any(wanted == _key(file) for each in agents for file in imported_files(each)):
        return True
    name = path.name.casefold()
    files = [file for module in list(sys.modules.values()) if (file := _file_of(module))]
    if any(file.casefold().endswith(name) and wanted == _key(Path(file)) for file in files):
        return True
    if any(wanted.startswith(folder + os.sep) for folder in _installed()):
        return True
    folders = {_key(agents_file.parent) for agents_file in agents} | {_key(Path(entry)) for entry in sys.path}
    above = [folder for folder in folders if wanted.startswith(folder + os.sep)]
    if any(_takes_a_place(wanted, folder) for folder in above):
        return True
    own = _key(root) if root is not None else ""
    return not os.path.exists(path) and any(  # noqa: PTH110  # no error for a name that is too long
        _could_be_imported(wanted, folder) for folder in above if not own.startswith(folder + os.sep)
    )


def _file_of(module: object) -> str | None:
    """Return where a module lies; to ask some of them by attribute would import them."""
    with suppress(AttributeError):
        found = object.__getattribute__(module, "__dict__").get("__file__")
        return found if isinstance(found, str) else None
    return None


def _key(path: Path) -> str:
    return os.path.realpath(path).casefold()  # some file systems take Agents.py for agents.py


def _installed() -> set[str]:
    """Return the folders of installed code."""
    paths = sysconfig.get_paths()
    found = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")]
    with suppress(AttributeError):  # some embedded interpreters have no such functions
        found += [*site.getsitepackages(), site.getusersitepackages()]
    return {_key(Path(folder)) for folder in found}


def _could_be_imported(path: str, folder: str) -> bool:
    """Tell whether code at *path* is a module by its name, or tells Python of modules that a package has."""
    *packages, file = Path(path[len(folder) + 1 :]).parts
    if any(part.endswith(_DESCRIBES) for part in packages[:1]):
        return True
    return path.endswith(_CODE) and all(name.isidentifier() for name in (*packages, file.partition(".")[0]))


def _takes_a_place(path: str, folder: str) -> bool:
    """Tell whether code at *path*, below a *folder* that Python searches, is or hides a module that is in use."""
    if not path.endswith(_CODE):
        return False
    top = Path(path[len(folder) + 1 :]).parts[0].partition(".")[0]
    if top in _AT_START or top in sys.stdlib_module_names or top in {name.casefold() for name in list(sys.modules)}:
        return True
    elsewhere = [entry for entry in sys.path if _key(Path(entry)) != folder]
    with suppress(Exception):  # whatever a finder of somebody else's raises: then nothing is found there
        found = PathFinder.find_spec(top, elsewhere)
        return found is not None and found.origin is not None  # a mere folder of that name gives way to any module
    return False
