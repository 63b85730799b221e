"""The page of the command line: every command with what it takes, from the commands themselves, and what it writes."""

from __future__ import annotations

import textwrap
from typing import Any

import typer

from holdfast.cli.app import app
from scripts.reference.markdown import code, escaped, fill, table
from scripts.reference.shapes import SHAPES, Shape

__all__ = ["commands", "render"]


def commands(group: Any = None, name: str = "") -> list[tuple[str, Any]]:
    """Return every command with its whole name, in the order of the help."""
    group = typer.main.get_command(app) if group is None else group
    if not hasattr(group, "commands"):
        return [(name, group)]
    return [pair for key, each in group.commands.items() for pair in commands(each, f"{name} {key}".strip())]


def render() -> str:
    """Return the page."""
    found = sorted(commands(), key=lambda pair: " " in pair[0])  # groups behind the commands of everyday
    listed = "\n".join(f"- [`holdfast {name}`](#holdfast-{_anchor(name)}): {_about(each)}" for name, each in found)
    out = []
    for name, command in found:
        out.append(f"## holdfast {name}\n\n{_usage(name, command)}\n\n{_about(command)}\n")
        out += [part for part in (_arguments_of(command), _options_of(command)) if part]
        out.append(_writes(SHAPES[name]) + "\n")
    options = _options_of(typer.main.get_command(app))
    return fill("cli", options=options, list=listed, commands="\n".join(out).rstrip("\n"))


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _about(command: Any) -> str:
    return escaped(" ".join((command.help or "").split()))


def _usage(name: str, command: Any) -> str:
    words = [f"holdfast {name}", *(_argument(each) for each in _arguments(command))]
    required = [f"{each.opts[0]} {_value(each)}" for each in _options(command) if each.required]
    return f"`{' '.join([*words, *required, '[OPTIONS]'])}`"


def _arguments(command: Any) -> list[Any]:
    return [each for each in command.params if each.param_type_name == "argument"]


def _options(command: Any) -> list[Any]:
    """Return the options that a person may give, but those that every command has from its library."""
    return [each for each in command.params if each.param_type_name == "option" and each.name != "help" and each.opts]


def _argument(each: Any) -> str:
    name = str(each.metavar or each.name.upper())
    return name if each.required or name.startswith("[") else f"[{name}]"


def _value(option: Any) -> str:
    """Return the word that stands for an option's value in help; none for a switch."""
    return "" if option.is_flag else str(option.metavar or option.name.rstrip("_").upper())


def _arguments_of(command: Any) -> str:
    rows = [(code(_argument(each).strip("[]")), _default(each), _help(each)) for each in _arguments(command)]
    return table(("argument", "default", "what it is"), rows) + "\n" if rows else ""


def _options_of(command: Any) -> str:
    rows = []
    for each in _options(command):
        names = [*each.opts, *each.secondary_opts]
        shown = ", ".join(code(f"{name} {_value(each)}".strip()) for name in names)
        rows.append((shown, _default(each), _help(each)))
    return table(("option", "default", "what it does"), rows) + "\n" if rows else ""


def _default(each: Any) -> str:
    if each.required:
        return "required"
    if isinstance(each.show_default, str):
        return escaped(each.show_default)
    if each.default in (None, False, [], ()):
        return ""
    return code(str(each.default))


def _help(each: Any) -> str:
    text = escaped(" ".join((each.help or "").split()))
    low, high = getattr(each, "min", None), getattr(each, "max", None)
    if low is not None or high is not None:
        bounds = " to ".join(str(bound) for bound in (low, high) if bound is not None)
        text += f" {bounds}." if high is not None else f" At least {bounds}."
    return text


def _writes(shapes: list[Shape]) -> str:
    out = []
    for shape in shapes:
        members = (f'"{name.rstrip("?")}"{"?" * name.endswith("?")}: {kind}' for name, kind in shape.fields.items())
        lines = textwrap.wrap(f"{{{', '.join(members)}}}", 110, subsequent_indent=" ", break_long_words=False)
        out.append(f"JSON{', ' + shape.when if shape.when else ''}:\n\n```text\n" + "\n".join(lines) + "\n```\n")
    return "\n".join(out).rstrip("\n")
