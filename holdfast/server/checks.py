"""Looks at what is there and what is missing, for `holdfast doctor`. The CLI calls it."""

from __future__ import annotations

import ast
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from holdfast.errors import HoldfastError, StorageError
from holdfast.secrets import address
from holdfast.server.binary import CLI_VERSION, find_binary, way_to_get
from holdfast.server.home import lock_holder
from holdfast.server.postgres import binaries
from holdfast.server.starting import now_starting
from holdfast.server.state import is_alive, read_stack, read_state
from holdfast.settings import Settings
from holdfast.trust import read_source

__all__ = ["Check", "doctor"]

_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY", "GROQ_API_KEY", "AZURE_API_KEY")
_CONNECT = 5.0  # seconds that a server has to answer


@dataclass(frozen=True)
class Check:
    """One finding. *hint* says what to do, and is empty where nothing needs to be done."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def doctor(settings: Settings) -> list[Check]:
    """Look at everything the stack needs; starts nothing, changes nothing, and raises nothing."""
    looks: list[tuple[str, Callable[[Settings], Check]]] = [
        ("python", _python),
        ("temporal", _temporal),
        ("postgres", _postgres),
        ("qdrant", _qdrant),
        ("embeddings", _embeddings),
        ("model key", _model_key),
        ("agents file", _agents),
        ("plugins", _plugins),
        ("folder", _folder),
        ("stack", _stack),
    ]
    checks = []
    for name, look in looks:
        try:
            checks.append(look(settings))
        except (HoldfastError, OSError, subprocess.SubprocessError) as exc:
            checks.append(Check(name, ok=False, detail=str(exc), hint="see the message"))
    return checks


def _python(_: Settings) -> Check:
    good = sys.version_info >= (3, 11)
    return Check("python", good, platform.python_version(), "" if good else "Holdfast needs Python 3.11 or later")


def _temporal(settings: Settings) -> Check:
    if settings.temporal_address is not None:
        return Check("temporal", ok=True, detail=f"server at {settings.temporal_address} (TEMPORAL_ADDRESS)")
    binary = find_binary(settings)
    if binary is None:
        way = way_to_get()
        if way is not None:
            return Check("temporal", ok=True, detail=f"no `temporal` binary yet: the first start {way}")
        hint = (
            f"install the Temporal CLI (https://docs.temporal.io/cli), or Go, which builds {CLI_VERSION}; "
            "or set HOLDFAST_TEMPORAL_BINARY or TEMPORAL_ADDRESS"
        )
        return Check("temporal", ok=False, detail="no `temporal` binary, and none can be downloaded", hint=hint)
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=20, check=False)
    good = said.returncode == 0 and "temporal version" in said.stdout
    hint = "" if good else "this is not a working Temporal CLI: remove it, or set HOLDFAST_TEMPORAL_BINARY to another"
    return Check("temporal", good, f"{said.stdout.strip() or said.stderr.strip()} at {binary}", hint)


def _postgres(settings: Settings) -> Check:
    if settings.database_url is not None:
        where = f"server at {address(settings.database_url)} (HOLDFAST_DATABASE_URL)"
        return asyncio.run(_answers(settings, settings.database_url, where))
    info = read_stack(settings.home.absolute())
    if info is not None:
        return asyncio.run(
            _answers(settings, info.database_url, f"server of the stack at {address(info.database_url)}")
        )
    said = subprocess.run(
        [str(binaries() / "postgres"), "--version"], capture_output=True, text=True, timeout=20, check=True
    )
    return Check("postgres", ok=True, detail=f"embedded {said.stdout.strip()}")


async def _answers(settings: Settings, url: str, where: str) -> Check:
    """Ask a server whether it has connections for its workers; one that does not answer is missing."""
    from holdfast.memory.connections import shortage
    from holdfast.memory.database import UNAVAILABLE, connect

    try:
        conn = await connect(url, name="holdfast-doctor", timeout=settings.scaled(_CONNECT))
        try:
            short = await shortage(conn, settings)
        finally:
            conn.terminate()
    except (StorageError, *UNAVAILABLE) as exc:
        return Check("postgres", ok=False, detail=str(exc) or type(exc).__name__, hint="see the message")
    if short is None:
        return Check("postgres", ok=True, detail=where)
    return Check("postgres", ok=True, detail=f"{where}: {short.why}", hint=short.advice)


def _package(name: str, package: str, module: str) -> Check:
    try:
        found = version(package) if find_spec(module) is not None else None
    except PackageNotFoundError:
        found = None
    hint = "" if found else f"pip install {package}"
    return Check(name, found is not None, f"{package} {found}" if found else f"{package} is not installed", hint)


def _qdrant(settings: Settings) -> Check:
    if settings.qdrant_url is not None:
        return Check("qdrant", ok=True, detail=f"server at {address(settings.qdrant_url)} (HOLDFAST_QDRANT_URL)")
    return _package("qdrant", "qdrant-edge-py", "qdrant_edge")


def _embeddings(_: Settings) -> Check:
    return _package("embeddings", "wordllama", "wordllama")


def _model_key(settings: Settings) -> Check:
    keys = [name for name in _KEYS if os.environ.get(name)]
    if keys or settings.api_base is not None:
        return Check("model key", ok=True, detail=", ".join(keys) or f"models at {address(settings.api_base or '')}")
    servers = _servers_named(settings)
    if servers:
        return Check("model key", ok=True, detail=f"not needed: each agent names its own server ({servers})")
    hint = "set the key of your provider, for example OPENAI_API_KEY; until then answers only quote what tools return"
    return Check("model key", ok=True, detail="none is set: offline/extractive stands in", hint=hint)


def _servers_named(settings: Settings) -> str:
    """Return the servers that the agents file gives its agents, if it gives each one; it is read and not run."""
    try:
        tree = ast.parse(read_source(settings.agents))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Agent":
            named = next((keyword.value for keyword in node.keywords if keyword.arg == "api_base"), None)
            if named is None or (isinstance(named, ast.Constant) and not named.value):
                return ""
            literal = isinstance(named, ast.Constant) and isinstance(named.value, str)
            found.append(address(str(named.value)) if literal else "by an expression")  # type: ignore[attr-defined]
    return ", ".join(dict.fromkeys(found))


def _agents(settings: Settings) -> Check:
    path = settings.agents.absolute()
    if not path.exists():
        hint = "`holdfast init` writes a project with one; or name it with --agents or HOLDFAST_AGENTS"
        if "agents" in settings.model_fields_set:  # somebody counts on it; else this may be no project at all
            return Check("agents file", ok=False, detail=f"{path} is not there", hint=hint)
        return Check("agents file", ok=True, detail=f"none in this folder: there is no {path.name}", hint=hint)
    try:
        source = read_source(path)
    except OSError as exc:
        hint = "put the Python file that defines your agents there; or name it with --agents or HOLDFAST_AGENTS"
        return Check("agents file", ok=False, detail=f"it cannot be read: {exc}", hint=hint)
    try:
        compile(source, str(path), "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        line = getattr(exc, "lineno", None) or 0
        return Check("agents file", ok=False, detail=f"{path}, line {line}: {exc}", hint="correct it")
    return Check("agents file", ok=True, detail=str(path))


def _plugins(settings: Settings) -> Check:
    """Say what is installed, by its metadata alone: a plugin's code runs in workers, and for `holdfast plugins`."""
    from holdfast.plugins.load import installed

    names = sorted({point.name for point in installed()})
    wanted = {name.strip() for name in settings.plugins.split(",")} - {"none"}
    missing = sorted(name for name in wanted if name not in names)
    detail = f"installed: {', '.join(names) or 'none'}; in use: {settings.plugins}" if names else "none is installed"
    if missing:
        hint = f"install {', '.join(missing)}, or take it out of HOLDFAST_PLUGINS"
        return Check("plugins", ok=False, detail=f"{detail}; not installed: {', '.join(missing)}", hint=hint)
    hint = "`holdfast plugins` lists them in order, with those of the agents file" if names else ""
    return Check("plugins", ok=True, detail=detail, hint=hint)


def _folder(settings: Settings) -> Check:
    folder = settings.home.absolute()
    present = folder
    while not present.exists():
        present = present.parent
    try:
        tempfile.TemporaryFile(dir=present).close()
    except OSError as exc:
        return Check("folder", ok=False, detail=f"{folder} cannot be written: {exc}", hint="set HOLDFAST_HOME")
    return Check("folder", ok=True, detail=str(folder) if folder.exists() else f"{folder} (not made yet)")


def _stack(settings: Settings) -> Check:
    home = settings.home.absolute()
    info = read_stack(home)
    if info is None:
        left = read_state(home)
        said = now_starting(home)
        if said is not None:
            told = f": {said}" if said else ""
            return Check("stack", ok=True, detail=f"starting (pid {lock_holder(home)}){told}")
        if left is None:
            return Check("stack", ok=True, detail="none runs in this folder")
        if is_alive(left.supervisor):
            return Check("stack", ok=True, detail=f"starting or stopping (pid {left.supervisor.pid})")
        running = [child.name for child in left.children if is_alive(child)]
        detail = f"its supervisor was killed; still running: {', '.join(running) or 'nothing'}"
        return Check("stack", ok=False, detail=detail, hint="the next start replaces it; `holdfast down` ends it")
    bad = [child for child in info.children if child.state not in ("ready", "draining") or not is_alive(child)]
    parts = ", ".join(f"{child.name} {child.pid}" for child in info.children)
    detail = f"supervisor {info.supervisor.pid}, {parts}; Temporal {info.temporal_address}, UI {info.temporal_ui}"
    hint = "; ".join(f"{child.name} is {child.state}: see {home}/logs/{child.name}.log" for child in bad)
    return Check("stack", not bad, detail, hint)
