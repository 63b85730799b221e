"""The documents say what is so: blocks load, commands and settings exist, messages fit their models, links lead on."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from holdfast import contracts, errors
from holdfast.cli.app import app
from holdfast.errors import ConfigurationError
from holdfast.settings import Settings
from holdfast.tools.registry import load_agents
from scripts.reference import FOLDER
from scripts.reference import PAGES as WRITTEN
from scripts.reference.cli import commands as cli_commands
from scripts.reference.errors import again, parts, tree
from scripts.reference.kinds import KINDS
from scripts.reference.messages import MODELS
from scripts.reference.shapes import SHAPES
from tests.pages import PAGES, REASONS, ROOT, Block, blocks, commands, pages_of_users
from tests.unit._commands_of_pages import check_line

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NO_SETTINGS = {"HOLDFAST_DEBUG"}  # read before there are settings


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


# ----------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize(("block", "line"), commands(), ids=str)
def test_commands_can_be_given(block: Block, line: str) -> None:
    """Each line names a program, files, variables and options that there are, with values that are taken."""
    check_line(line, block.text)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("holdfast sohw RUN", "there is no command sohw"),
        ("holdfast show", "0 arguments"),
        ("holdfast show RUN --stepps", "there is no --stepps"),
        ("holdfast approve RUN 7 --args", "--args has no value"),
        ("./scripts/dmeo", "there is no ./scripts/dmeo"),
        ("./scripts/demo --flies ~/notes", "knows no --flies"),
        ("./scripts/test tests/unti", "there is no tests/unti"),
        ("./scripts/bench steps|resumes", "knows not all"),
        ("python -m holdfast.server.prepare_it", "there is no module"),
        ("python wroker.py", "there is no wroker.py"),
        ("export HOLDFAST_DATABASE=postgresql://db", "nothing reads HOLDFAST_DATABASE"),
        ("export OPENAI_KEY=…", "nothing reads OPENAI_KEY"),
        ("AGENTS=./agents.py docker compose up", "nothing reads AGENTS"),
        ("docker compose start", "not known here"),
        ("pip install ./holdfats", "not what was cloned"),
        ("cd my-projcet", "nothing before has made"),
        (". ./.evn", "nothing before has written"),
        ("chmod 644 .env", "others could read"),
        ("for name in POSTGRES_PASWORD; do echo $name; done >> .env", "nothing reads POSTGRES_PASWORD"),
        ("for name in POSTGRES_PASSWORD; do echo $name >> .env", "syntax error"),
        ("kill -9 PID", "nothing before shows process ids"),
        ("printf 'Where is order 17?'", "the last line is not ended"),
        ("temporal workflow signal --workflow-id a --nmae decide", "knows no --nmae"),
        ("temporal workflow signal --workflow-id a --name decode --input '{}'", "no workflow has decode"),
        ("temporal workflow signal --workflow-id a --name decide --input '{'", "no JSON object"),
        ("unheard-of --option", "say in"),
    ],
)
def test_a_wrong_line_would_be_found(line: str, why: str) -> None:
    """The check of the lines can fail, for each program that the pages use."""
    with pytest.raises(AssertionError, match=re.escape(why)):
        check_line(line, f"{line}\n")


def test_a_setting_with_a_wrong_value_would_be_found() -> None:
    """A value on a page that the setting does not take is found."""
    with pytest.raises(ConfigurationError):
        check_line("export HOLDFAST_WORKERS=many", "")


def test_readme_names_every_command() -> None:
    """No command is missing on the first page."""
    shown = {line.split()[1] for block, line in commands() if block.page == "README.md" and line.startswith("holdfast")}
    group: Any = typer.main.get_command(app)
    assert shown == set(group.commands)


# -------------------------------------------------------------------------------------------------------- all is run


def test_every_block_is_run_or_says_why_not() -> None:
    """Each page that users read is run by one test, which fails for a block it leaves out; others name a reason."""
    run = [
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r'\bPage\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    ]
    assert sorted(run) == sorted(pages_of_users())
    reasons = {block.reason for block in blocks() if block.reason}
    assert reasons == REASONS


def test_every_fence_is_understood() -> None:
    """No block escapes the tests because its fence is written in another way."""
    for page in PAGES:
        source = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT).as_posix()
        known = len([block for block in blocks("", "text") if block.page == name])
        known += len([block for block in blocks() if block.page == name])
        assert len(re.findall(r"^ *(?:```|~~~)", source, re.M)) == 2 * known, name


# ---------------------------------------------------------------------------------------------------------- reference


@pytest.mark.parametrize("name", WRITTEN)
def test_the_reference_is_up_to_date(name: str) -> None:
    """Each generated page was written from the code there is; else run `python -m scripts.reference`."""
    assert (FOLDER / name).read_text(encoding="utf-8") == WRITTEN[name](), "run python -m scripts.reference"


def test_the_reference_is_the_same_on_every_terminal() -> None:
    """Neither width, colours, language nor settings of who writes it change a page."""
    code = (
        "import hashlib; from scripts.reference import PAGES; "
        "print(hashlib.sha256(''.join(render() for render in PAGES.values()).encode()).hexdigest())"
    )
    odd = {
        "COLUMNS": "20",
        "FORCE_COLOR": "1",
        "LANG": "C",
        "HOLDFAST_WORKERS": "7",
        "HOLDFAST_HOME": "/nowhere",
        "PYTHONHASHSEED": "1",
    }
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **more}, check=True, capture_output=True
        ).stdout
        for more in ({"PYTHONHASHSEED": "2"}, odd)
    }
    assert len(said) == 1


def test_the_reference_has_everything() -> None:
    """Every setting, command, error and message; each error says when it is raised, what to do, who tries again."""
    assert all(f"`HOLDFAST_{name.upper()}`" in WRITTEN["settings.md"]() for name in Settings.model_fields)
    assert set(SHAPES) == {name for name, _ in cli_commands()}
    assert {kind.__name__ for _, kind in tree()} == set(errors.__all__)
    for _, kind in tree():
        assert all(parts(kind))
        assert again(kind)
    for model in MODELS:
        assert [name for name, field in model.model_fields.items() if not field.description] == [], model.__name__


def test_handlers_are_on_the_page_of_messages() -> None:
    """The table of what can be sent has every update, signal and query of the workflows, and no other."""
    sources = "".join((ROOT / "workflows" / f"{name}.py").read_text(encoding="utf-8") for name in ("agent", "ask"))
    there = set(re.findall(r'@workflow\.(?:signal|update|query)\(name="(\w+)"\)', sources))
    head = (FOLDER / "messages.md").read_text(encoding="utf-8").partition("## Ask")[0]
    told = {name for kind in ("update", "signal", "query") for name in re.findall(rf"{kind} `(\w+)`", head)}
    told |= set(re.findall(r"`(\w+)`", head.partition("The signals ")[2].partition(" are ")[0]))
    assert told == there


# ----------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page: Path) -> None:
    """Each HOLDFAST_ variable that a page names is a setting."""
    named = set(re.findall(r"\bHOLDFAST_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
    assert named - NO_SETTINGS <= {f"HOLDFAST_{name.upper()}" for name in Settings.model_fields}


def test_the_time_scale_names_what_it_multiplies() -> None:
    """Its description has each setting that the code scales, and no other."""
    scaled = {
        name
        for folder in ("holdfast", "activities", "workflows", "memory")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in re.findall(r"scaled\([^()]*settings\.(\w+)\)", path.read_text(encoding="utf-8"))
    }
    told = set(re.findall(r"`(\w+)`", Settings.model_fields["time_scale"].description or ""))
    assert told == scaled | {"settle", "timeout"}, "`settle` is a tool's, `timeout` a plugin's"


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
    """The page of events has each kind that the code emits, and no other."""
    written: set[str] = set()
    for folder in ("activities", "memory", "holdfast"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "emit":
                    written |= {each.value for each in node.args if isinstance(each, ast.Constant)}  # type: ignore[misc]
    assert set(KINDS) == written


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
