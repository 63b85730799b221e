"""What can be said of each command line on the pages without running it: each program has a check that can fail."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import TypeAdapter, ValidationError

from holdfast.cli.app import app
from holdfast.llm.resolve import KEY_VARIABLES
from holdfast.server.binary import find_binary
from holdfast.settings import Settings, load_settings
from tests.pages import ROOT, lines

__all__ = ["check_line"]

_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)", re.S)
_TO_PYTEST = {"-x", "-q", "-s"}
_MENTIONED = "…"  # the rest, or a value, is left to the reader


def check_line(line: str, block: str) -> None:
    """Fail if a line of this console block names what is not there, or gives what is not taken."""
    shown = re.sub(r"(?<=[A-Z]) …$", "", line)  # `resolve RUN STEP …`: options follow
    for part in re.split(r" && ", shown):
        words = shlex.split(part.replace("<this repository>", "URL"))
        while len(words) > 1 and (given := _ASSIGNMENT.fullmatch(words[0])):
            _check_variable(given[1], given[2])
            words = words[1:]
        name = words[0]
        check = _script if name.startswith(("./scripts/", "scripts/")) else _CHECKS.get(name)
        assert check is not None, f"{name}: say in {__name__} how a line of this program is checked"
        check(words, lines(block)[: lines(block).index(line)] if line in lines(block) else [])


# ----------------------------------------------------------------------------------------------------------- holdfast


def _holdfast(words: list[str], before: list[str]) -> None:
    """Check a command's name, its options with their values, and the number of its arguments."""
    shown, rest = shlex.join(words), words[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert rest, f"{shown}: no command is named"
        assert rest[0] in command.commands, f"{shown}: there is no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    options = {name: option for option in command.params for name in option.opts if name.startswith("-")}
    given = 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            given += 1
            continue
        assert word in options, f"{shown}: there is no {word}"
        if not options[word].is_flag:
            assert rest, f"{shown}: {word} has no value"
            rest.pop(0)
    takes = [each for each in command.params if each.param_type_name == "argument"]
    needed = sum(each.required for each in takes)
    assert needed <= given <= len(takes), f"{shown}: {given} arguments, {needed} to {len(takes)} are taken"


# ---------------------------------------------------------------------------------------------------- our own scripts


def _script(words: list[str], before: list[str]) -> None:
    """Check that the script can be run, that files named are there, and that what it starts knows the options."""
    path = ROOT / words[0]
    assert path.is_file(), f"there is no {words[0]}"
    assert os.access(path, os.X_OK), f"{words[0]} cannot be executed"
    source = path.read_text(encoding="utf-8")
    modules = re.findall(r"-m ([\w.]+)", source)
    known = source + "".join(_sources(module) for module in modules)
    for word in words[1:]:
        if word.startswith("-"):
            assert word in _TO_PYTEST if "pytest" in modules else word in known, f"{words[0]} knows no {word}"
        elif word.startswith("tests/"):
            assert (ROOT / word).exists(), f"there is no {word}"
        elif "|" in word:
            assert all(each in known for each in word.split("|")), f"{words[0]} knows not all of {word}"


@cache
def _sources(module: str) -> str:
    folder = ROOT / module.replace(".", "/")
    found = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return "".join(path.read_text(encoding="utf-8") for path in found if path.is_file())


# ------------------------------------------------------------------------------------------------------ others' tools


def _python(words: list[str], before: list[str]) -> None:
    if words[1] == "-m":
        assert importlib.util.find_spec(words[2]) is not None, f"there is no module {words[2]}"
    else:
        assert (ROOT / words[1]).is_file(), f"there is no {words[1]}"


def _check_variable(name: str, value: str) -> None:
    """Check that a variable is a setting, which takes this value, a provider's key, or one that Compose reads."""
    fields = {f"HOLDFAST_{field.upper()}": field for field in Settings.model_fields}
    fields |= {"TEMPORAL_ADDRESS": "temporal_address", "TEMPORAL_NAMESPACE": "temporal_namespace"}
    if name in fields:
        if value != _MENTIONED:
            load_settings(**{fields[name]: value})
        return
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    keys = {key for each in KEY_VARIABLES.values() for key in each}
    assert name in keys or re.search(rf"\$\{{{name}\b", compose), f"nothing reads {name}"


def _export(words: list[str], before: list[str]) -> None:
    for word in words[1:]:
        given = _ASSIGNMENT.fullmatch(word)
        assert given is not None, f"export {word} gives nothing"
        _check_variable(given[1], given[2])


def _docker(words: list[str], before: list[str]) -> None:
    assert words[1:3] in (["compose", "up"], ["compose", "down"]), f"{shlex.join(words)}: not known here"
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    if "--build" in words:
        assert any("build" in service for service in services.values()), "no service is built"
    assert set(words[3:]) <= {"--build", "-d", "-v"}, shlex.join(words)


def _git(words: list[str], before: list[str]) -> None:
    assert words[1:3] == ["clone", "URL"], shlex.join(words)
    assert len(words) == 4, "the folder is named, for the lines that follow"


def _pip(words: list[str], before: list[str]) -> None:
    assert words[1] == "install", shlex.join(words)
    folders = [word for word in words[2:] if not word.startswith("-")]
    cloned = {f"./{line.split()[-1]}" for line in before if line.startswith("git clone")}
    assert folders, shlex.join(words)
    assert set(folders) <= cloned, f"{folders} are not what was cloned before: {cloned}"


def _for(words: list[str], before: list[str]) -> None:
    """Check a loop that writes variables for Compose: it must require each of them."""
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    names = [word.rstrip(";") for word in words[3 : words.index("do")]]
    assert names, "the loop names nothing"
    for name in names:
        assert re.search(rf"\$\{{{name}:\?", compose), f"docker-compose.yml does not require {name}"
    assert words[-1] == ".env", "Compose reads .env"


def _chmod(words: list[str], before: list[str]) -> None:
    assert words[1] == "600", "others may read it"
    assert any(line.endswith(f">> {words[2]}") for line in before), f"nothing before has made {words[2]}"


def _source(words: list[str], before: list[str]) -> None:
    """Check what is sourced: a virtual environment, or a file that a line before has written."""
    if any(line.endswith(f">> {words[1].removeprefix('./')}") for line in before):
        return
    assert Path(words[1]).parts[1:] == ("bin", "activate"), shlex.join(words)


def _cd(words: list[str], before: list[str]) -> None:
    made = {line.split()[-1] for line in before if line.startswith(("holdfast init", "git clone"))}
    assert words[1] in made, f"nothing before has made {words[1]}"


def _kill(words: list[str], before: list[str]) -> None:
    assert signal.Signals(int(words[1].removeprefix("-"))) == signal.SIGKILL
    assert words[2] == "PID"
    assert "holdfast doctor" in before, "nothing before shows process ids"


def _printf(words: list[str], before: list[str]) -> None:
    done = subprocess.run(["bash", "-c", shlex.join(words)], capture_output=True, check=True)
    assert done.stdout.endswith(b"\n"), "the last line is not ended: it may not be read"


def _sudo(words: list[str], before: list[str]) -> None:
    _script(words[1:], before)


# ----------------------------------------------------------------------------------------------------------- temporal


def _temporal(words: list[str], before: list[str]) -> None:
    """Check options against the help of the real program, and that names and JSON are such as the server would take."""
    options = words[next(at for at, word in enumerate(words) if word.startswith("--")) :]
    command = tuple(words[1 : words.index(options[0])])
    known = _help_of(command)
    for option, value in pairwise([*options, ""]):
        if option.startswith("--"):
            assert re.search(rf"{re.escape(option)}\b", known), f"temporal {' '.join(command)} knows no {option}"
            assert value, f"{option} has no value"
            assert not value.startswith("--"), f"{option} has no value"
        if option in ("--input", "--update-input"):
            try:
                TypeAdapter(dict[str, Any]).validate_json(value)
            except ValidationError as exc:
                raise AssertionError(f"{option} is no JSON object: {exc}") from None
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "workflows").glob("*.py")))
    sources += (ROOT / "holdfast" / "contracts" / "base.py").read_text(encoding="utf-8")
    given = dict(pairwise(options))
    kinds = [given[name] for name in ("--name", "--update-name") if name in given]
    kinds += [given["--type"]] if "--type" in given else []
    for name in kinds:
        assert f'"{name}"' in sources, f"no workflow has {name}"


@cache
def _help_of(command: tuple[str, ...]) -> str:
    binary = find_binary(load_settings())
    assert binary is not None, "scripts/setup gets a Temporal binary"
    done = subprocess.run([binary, *command, "--help"], capture_output=True, text=True, check=True, timeout=120)
    assert "Usage" in done.stdout
    return done.stdout


_CHECKS: dict[str, Callable[[list[str], list[str]], None]] = {
    "holdfast": _holdfast,
    "temporal": _temporal,
    "python": _python,
    "python3": _python,
    "export": _export,
    "docker": _docker,
    "git": _git,
    "pip": _pip,
    ".": _source,
    "chmod": _chmod,
    "for": _for,
    "cd": _cd,
    "kill": _kill,
    "printf": _printf,
    "sudo": _sudo,
}
