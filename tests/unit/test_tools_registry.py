"""Loading the agents file: neighbours, edits, and every way it can be wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import AgentsFileError
from holdfast.tools.registry import load_agents

AGENT = 'from holdfast.agent import Agent\na = Agent(name="a", model="m")\n'


@pytest.fixture(autouse=True)
def _path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


def test_readme_agents_load(tmp_path: Path) -> None:
    """Agents at module level are found by name, with helpers from a neighbouring file, however often bound."""
    (tmp_path / "shop_helpers_17.py").write_text("ORDERS = {'17': 'damaged'}\n")
    file = tmp_path / "agents.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from holdfast import Agent, Budget, tool\n"
        "from shop_helpers_17 import ORDERS\n"
        "@dataclass\n"
        "class Order:\n"
        "    id: str\n"
        "@tool(effect='pure')\n"
        "async def order_status(order: Order) -> str:\n"
        "    '''Look up one order.'''\n"
        "    return ORDERS[order.id]\n"
        "support = Agent(name='support', model='m', tools=[order_status], budget=Budget(usd=0.5))\n"
        "default = support\n"
        "other = Agent(name='other', model='m')\n"
    )
    agents = load_agents(file)
    assert list(agents) == ["support", "other"]
    assert agents["support"].definition.budget.usd == 0.5
    assert not list(tmp_path.glob("**/agents*.pyc"))


def test_an_edit_is_seen_at_once(tmp_path: Path) -> None:
    """Same size, same second: no stale bytecode."""
    file = tmp_path / "agents.py"
    file.write_text(AGENT)
    assert list(load_agents(file)) == ["a"]
    file.write_text(AGENT.replace('"a"', '"b"'))
    assert list(load_agents(file)) == ["b"]


def test_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Two projects in one process keep apart."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agents.py").write_text(AGENT.replace('"a"', f'"{name}"'))
    first, second = load_agents(tmp_path / "one/agents.py"), load_agents(tmp_path / "two/agents.py")
    assert (list(first), list(second)) == (["one"], ["two"])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1\n", "defines no agent"),
        ("\n\ndef f(:\n", r"agents.py:3: def f\(:\nsyntax error: "),
        ("x = 1\ny = 1 / 0\n", r"agents.py:2: y = 1 / 0\nZeroDivisionError: division by zero"),
        ("import no_such_module_17\n", r"agents.py:1: import no_such_module_17\nModuleNotFoundError"),
        ("import broken_17\n", r"broken_17.py:2: oops \+ 1\nNameError"),
        ("raise SystemExit(3)\n", r"agents.py:1: raise SystemExit\(3\)"),
        (AGENT + 'b = Agent(name="a", model="n")\n', "`a` and `b` are both agents called 'a'"),
        (
            "from holdfast.tools import files\nfiles('nowhere')\n",
            r"agents.py:2: files\('nowhere'\)\nConfigurationError: .*no folder",
        ),
        ("from holdfast.agent import Agent\nAgent(name='a b', model='m')\n", r"agents.py:2: Agent\(.*\n.*use 1 to 128"),
        ("a\x00b", "NUL"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, source: str, words: str) -> None:
    """File, line and source line, and nothing of it is left behind."""
    (tmp_path / "broken_17.py").write_text("\noops + 1\n")
    file = tmp_path / "agents.py"
    file.write_text(source)
    modules, paths = set(sys.modules), list(sys.path)
    with pytest.raises(AgentsFileError, match=words):
        load_agents(file)
    assert not [name for name in set(sys.modules) - modules if name.startswith("holdfast_agents")]
    assert sys.path == paths


def test_what_is_no_source_file(tmp_path: Path) -> None:
    """Missing, a folder, not text: each says so."""
    with pytest.raises(AgentsFileError, match=r"there is no agents file .*--agents FILE"):
        load_agents(tmp_path / "agents.py")
    with pytest.raises(AgentsFileError, match="is not a file"):
        load_agents(tmp_path)
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"\xff\xfe\x81")
    with pytest.raises(AgentsFileError, match="cannot be read"):
        load_agents(binary)


def test_a_failed_reload_leaves_the_loaded_one(tmp_path: Path) -> None:
    """Agents already loaded keep working while the file is being edited into something wrong."""
    file = tmp_path / "agents.py"
    file.write_text(AGENT)
    agent = load_agents(file)["a"]
    file.write_text("(")
    with pytest.raises(AgentsFileError):
        load_agents(file)
    assert agent.name == "a"
    assert str(tmp_path) in sys.path


def test_no_neighbour_of_the_agents_file_takes_the_place_of_an_installed_module(tmp_path: Path) -> None:
    """Its folder is searched last: what a tool wrote there is not what a library imports."""
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('the neighbour')\n")
    (tmp_path / "own.py").write_text("word = 'own'\n")
    file = tmp_path / "agents.py"
    file.write_text(
        "import colorsys\nfrom own import word\nfrom holdfast import Agent\na = Agent(name=word, model='x/y')\n"
    )
    sys.modules.pop("colorsys", None)
    assert list(load_agents(file)) == ["own"]
