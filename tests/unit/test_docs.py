"""The documents say what is so: blocks load, commands and settings exist, messages fit their models, links lead on."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from pydantic import BaseModel

from holdfast import contracts
from holdfast.cli.app import app
from holdfast.settings import Settings
from holdfast.testing import Script
from holdfast.tools.registry import load_agents
from scripts.settings_reference import PAGE, render

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NO_SETTINGS = {"HOLDFAST_DEBUG"}  # read before there are settings


class Block(NamedTuple):
    """A fenced block: where, in which language, what the comment before it says, and its text."""

    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Return all blocks of these languages."""
    found = []
    fence = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
    for page in PAGES:
        source = page.read_text(encoding="utf-8")
        for match in fence.finditer(source):
            if match["language"] in languages:
                line = source.count("\n", 0, match.start("text"))
                name = page.relative_to(ROOT).as_posix()
                found.append(Block(name, line, match["language"], match["mark"] or "", match["text"]))
    return found


def commands() -> list[tuple[Block, str]]:
    """Return each line of the console blocks without its remark; `a | b` in the README are two lines."""
    found = []
    for block in blocks("console"):
        for line in block.text.splitlines():
            plain = re.sub(r"(?:^|\s)#\s.*$", "", line).strip()
            if not plain:
                continue
            head, *rest = plain.split(" | ")
            found.append((block, head))
            found += [(block, f"{head.split()[0]} {other}") for other in rest]
    return found


def agents_blocks() -> list[Block]:
    """Return the blocks that are whole agents files."""
    return [block for block in blocks("python") if "Agent(" in block.text]


# ------------------------------------------------------------------------------------------------------------- python


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles_and_its_imports_exist(block: Block) -> None:
    """Each block is Python, as it would run in an async shell, and imports what is there."""
    code = compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast"):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


@pytest.mark.parametrize("block", agents_blocks(), ids=str)
def test_agents_load(block: Block, tmp_path: Path) -> None:
    """Each block that defines an agent loads as a worker would load it."""
    path = tmp_path / "agents.py"
    path.write_text(block.text, encoding="utf-8")
    assert load_agents(path)


def test_the_first_agents_file_is_the_same_everywhere() -> None:
    """README, quickstart and examples/agents.py have the same code."""
    shown = [block.text for block in agents_blocks() if block.text.startswith("# agents.py")]
    assert len(shown) == 2
    example = ast.parse((ROOT / "examples" / "agents.py").read_text(encoding="utf-8"))
    del example.body[0]  # its docstring
    assert len({ast.dump(tree) for tree in [*map(ast.parse, shown), example]}) == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_examples_load(path: Path) -> None:
    """Each example defines agents whose tools and models can be used."""
    for agent in load_agents(path).values():
        assert agent.tools
        assert agent.definition.instructions


def test_the_model_script_is_one() -> None:
    """The script of the page about testing is read by the model server."""
    block = next(block for block in blocks("python") if "SCRIPT = " in block.text)
    tree = ast.parse(block.text)
    scripts = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "SCRIPT"
    ]
    assert len(Script.parse(scripts[0]).conversations) == 2


# ----------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize(("block", "line"), commands(), ids=str)
def test_commands_exist(block: Block, line: str) -> None:
    """Each `holdfast` command is there and has the options it is shown with; each script is in the checkout."""
    words = shlex.split(re.sub(r"(?<=[A-Z]) …$", "", line))  # `resolve RUN STEP …`: options follow
    if words[0] == "holdfast":
        check_command(words[1:])
    elif words[0].startswith("./") and not words[0].startswith("./holdfast"):
        assert (ROOT / words[0]).is_file(), f"{block}: there is no {words[0]}"
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()


def check_command(words: list[str]) -> None:
    """Check one command's name, options and number of arguments."""
    command: Any = typer.main.get_command(app)
    shown = list(words)
    while hasattr(command, "commands"):
        command = command.commands[words[0]]
        words = words[1:]
    options = {name: option for option in command.params for name in option.opts if name.startswith("-")}
    given, rest = 0, list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            given += 1
            continue
        assert word in options, f"holdfast {' '.join(shown)}: there is no {word}"
        if not options[word].is_flag and rest:
            rest.pop(0)
    takes = [each for each in command.params if each.param_type_name == "argument"]
    needed = sum(each.required for each in takes)
    assert needed <= given <= len(takes), f"holdfast {' '.join(shown)}"


def test_readme_names_every_command() -> None:
    """No command is missing on the first page."""
    shown = {line.split()[1] for block, line in commands() if block.page == "README.md" and line.startswith("holdfast")}
    group: Any = typer.main.get_command(app)
    assert shown == set(group.commands)


# ----------------------------------------------------------------------------------------------------------- settings


def test_settings_reference_is_up_to_date() -> None:
    """The page was written from the settings there are; else run `python -m scripts.settings_reference`."""
    assert PAGE.read_text(encoding="utf-8") == render()
    assert all(f"`HOLDFAST_{name.upper()}`" in render() for name in Settings.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page: Path) -> None:
    """Each HOLDFAST_ variable that a page names is a setting."""
    named = set(re.findall(r"\bHOLDFAST_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
    assert named - NO_SETTINGS <= {f"HOLDFAST_{name.upper()}" for name in Settings.model_fields}


# ----------------------------------------------------------------------------------------------------------- messages


def known_fields(model: type[BaseModel], value: Any) -> None:
    """Check that no field of a message would be ignored, in nested models too."""
    for name in value:
        assert name in model.model_fields, f"{model.__name__} has no field {name}"
    parsed = model.model_validate(value)
    for name, part in value.items():
        inner = getattr(parsed, name)
        if isinstance(inner, BaseModel):
            known_fields(type(inner), part)
        elif isinstance(inner, list) and inner and isinstance(inner[0], BaseModel):
            known_fields(type(inner[0]), part[0])


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_messages_fit_their_contracts(block: Block) -> None:
    """Each JSON message is one that its contract takes, with no field it does not know."""
    kind, _, name = block.mark.partition(": ")
    assert kind == "json", f"{block}: say in a comment before the block which contract it is"
    known_fields(getattr(contracts, name), json.loads(block.text))


def test_every_message_of_a_person_is_documented() -> None:
    """No field of what a Temporal client may send is missing on the page."""
    page = (ROOT / "docs/reference/messages.md").read_text(encoding="utf-8")
    for model in (contracts.Ask, contracts.Message, contracts.Decision, contracts.Resolution, contracts.StopRequest):
        missing = [name for name in model.model_fields if f"`{name}`" not in page and f'"{name}"' not in page]
        assert set(missing) <= {"verified"}, f"{model.__name__}: {missing}"


@pytest.mark.parametrize(("block", "line"), [pair for pair in commands() if pair[1].startswith("temporal")], ids=str)
def test_messages_of_the_temporal_command_fit_too(block: Block, line: str) -> None:
    """What the `temporal` commands on the pages send is what the handlers take."""
    words = shlex.split(line)
    options = dict(pairwise(words))
    sent = options.get("--update-input") or options.get("--input")
    if sent is not None:
        name = {"AskWorkflow": "Ask", "AgentWorkflow": "Message"}.get(options.get("--type", ""), "Decision")
        known_fields(getattr(contracts, name), json.loads(sent))


def test_event_kinds_are_those_that_are_written() -> None:
    """The table of events has each kind that the code emits, and no other."""
    page = (ROOT / "docs/reference/messages.md").read_text(encoding="utf-8")
    table = page.partition("| kind | data |")[2].partition("\n\n")[0]
    told = {kind for row in table.splitlines()[2:] for kind in re.findall(r"`(\w+)`", row.split("|")[1])}
    written: set[str] = set()
    for folder in ("activities", "memory", "holdfast"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "emit":
                    written |= {each.value for each in node.args if isinstance(each, ast.Constant)}  # type: ignore[misc]
    assert told == written


# -------------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file or folder of the checkout, and each anchor a heading there."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


def test_every_document_can_be_reached_from_the_index() -> None:
    """Nobody writes a page that nobody finds."""
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").as_posix()
        assert name == "index.md" or f"({name})" in index, name
