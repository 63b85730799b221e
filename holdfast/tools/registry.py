"""From the user's agents file to agents by name. The runtime and the CLI load it, once per process."""

from __future__ import annotations

import hashlib
import io
import linecache
import sys
import tokenize
import traceback
from pathlib import Path
from types import ModuleType

from holdfast.agent import Agent
from holdfast.errors import AgentsFileError
from holdfast.plugins.contract import Plugin
from holdfast.tools.imports import imported_files
from holdfast.tools.toolset import Toolset
from holdfast.trust import doubt_code, read_source
from holdfast.typed.signature import agent_of, is_signature

__all__ = ["Agents", "Toolset", "load_agents"]

_PACKAGE = Path(__file__).parents[1]


class Agents(dict[str, Agent]):
    """The agents of a file by name, and what it lists as `plugins`: its own, and names of installed ones."""

    plugins: tuple[Plugin | str, ...] = ()


def load_agents(path: Path) -> Agents:
    """Run the agents file and return its module-level agents by name, with its list `plugins`.

    The file's folder is put at the end of `sys.path` and stays there, so that it may import its neighbours, also later;
    none of them takes the place of an installed module.
    The file runs anew at each call; no bytecode of it is kept, so an edit within one second is seen.

    Raises:
        AgentsFileError: the file is missing, cannot be read or fails; it has no agent, or two of one name. The message
            gives file, line and source line. Another user owns the file, its folder or a module in it, or may write
            to them: then none of it is run.

    """
    path = Path(path)
    source = _read(path)
    full = path.resolve()
    name = f"holdfast_agents_{hashlib.sha256(str(full).encode()).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = str(full)
    folder = str(full.parent)
    before = sys.modules.get(name)
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    sys.modules[name] = module
    linecache.checkcache()
    try:
        exec(compile(source, str(full), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the user's own file
        return _collect(path, module)
    except BaseException as exc:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        if added and folder in sys.path:
            sys.path.remove(folder)
        if isinstance(exc, AgentsFileError) or not isinstance(exc, Exception | SystemExit):
            raise
        raise AgentsFileError(_told(path, full, exc)) from exc


def _read(path: Path) -> str:
    if not path.exists():
        raise AgentsFileError(
            f"there is no agents file {path}. `holdfast init my-agents` writes a project to start from; or name "
            "another: FILE of `holdfast dev`, --agents FILE elsewhere, `agents = …` in holdfast.toml."
        )
    if not path.is_file():
        raise AgentsFileError(f"{path} is not a file. Name the Python file that defines your agents.")
    why = doubt_code(path, imported_files(path.resolve()))
    if why is not None:
        raise AgentsFileError(why)
    try:
        content = io.BytesIO(read_source(path))
        encoding, _ = tokenize.detect_encoding(content.readline)
        content.seek(0)
        source = io.TextIOWrapper(content, encoding).read()
    except (OSError, SyntaxError, UnicodeError) as exc:
        raise AgentsFileError(
            f"the agents file {path} cannot be read: {exc}. It must be Python source in UTF-8."
        ) from exc
    if "\x00" in source:
        raise AgentsFileError(f"the agents file {path} contains NUL bytes: it is not Python source.")
    return source


def _collect(path: Path, module: ModuleType) -> Agents:
    agents = Agents()
    variables: dict[str, str] = {}
    seen: set[object] = set()
    for variable, given in vars(module).items():
        value = agent_of(given) if is_signature(given) and given not in seen else given
        if is_signature(given):
            seen.add(given)
        if not isinstance(value, Agent) or agents.get(value.name) is value:
            continue
        if value.name in agents:
            raise AgentsFileError(
                f"{path}: `{variables[value.name]}` and `{variable}` are both agents called {value.name!r}. "
                "Give one of them another name=."
            )
        agents[value.name] = value
        variables[value.name] = variable
    if not agents:
        raise AgentsFileError(
            f"{path} defines no agent. Add one at module level, for example:\n"
            '  support = Agent(name="support", model="openai/gpt-5-mini", instructions="Help the customer.")'
        )
    agents.plugins = _plugins(path, vars(module).get("plugins"))
    return agents


def _plugins(path: Path, given: object) -> tuple[Plugin | str, ...]:
    """Return what the file's list `plugins` holds. A variable of that name with something else in it is the user's."""
    if isinstance(given, Plugin) or (isinstance(given, type) and issubclass(given, Plugin)):
        given = [given]
    if not isinstance(given, list | tuple):
        return ()
    kinds = [isinstance(each, Plugin | str) or (isinstance(each, type) and issubclass(each, Plugin)) for each in given]
    if not any(kinds):
        return ()
    found: list[Plugin | str] = []
    for each in given:
        if not isinstance(each, Plugin | str):
            hint = f"make it: {each.__name__}()" if isinstance(each, type) else "derive its class from Plugin"
            raise AgentsFileError(f"{path}: `plugins` has {each!r}, which is no plugin: {hint}.")
        found.append(each)
    return tuple(found)


def _told(path: Path, full: Path, exc: BaseException) -> str:
    """Say where in the user's own files an exception arose, with the source line."""
    if isinstance(exc, SyntaxError) and exc.filename:
        file, number, what = exc.filename, exc.lineno or 0, f"syntax error: {exc.msg}"
        line = exc.text or linecache.getline(file, number)
    else:
        frames = traceback.extract_tb(exc.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(full.parent) and _is_users(frame)]
        place = own[-1] if own else frames[-1]
        file, number, line = place.filename, place.lineno or 0, place.line or ""
        what = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    shown = str(path) if file == str(full) else file
    return f"the agents file {path} could not be loaded.\n{shown}:{number}: {line.strip()}\n{what}"


def _is_users(frame: traceback.FrameSummary) -> bool:
    """Leave out this package, and packages installed below the agents file's folder, such as in a `.venv`."""
    file = Path(frame.filename)
    return "site-packages" not in file.parts and not file.is_relative_to(_PACKAGE)
