"""Tools that run programs, one for each command a user declares; `shell` makes them. No shell is ever between.

A command is a list of arguments with typed placeholders. A model fills in the placeholders and nothing else: one
placeholder is one argument, or part of one, and never becomes an option. A path is resolved and passed as `./…`,
so that no program takes it for an option, an address or a file of options.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from holdfast.contracts import ApprovalPolicy
from holdfast.errors import ConfigurationError, ToolError
from holdfast.private import make_private, user_cache
from holdfast.secrets import reveal, secret_names
from holdfast.tools.builtin.folder import Folder
from holdfast.tools.builtin.processes import Finished, run_process
from holdfast.tools.context import ToolContext
from holdfast.tools.tool import AnyTool, Tool
from holdfast.tools.toolset import makes_tools

__all__ = ["Command", "shell"]

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([a-z_][a-z0-9_]*)(?::([^{}]+))?\}")  # two braces stand for one, as in format
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_WORD = 1000  # characters of a filled-in text
_MARKS = ("@", ":", "~", "|")  # at the front of a value: a file to read, a pattern, a home, a pipe
_OPTIONS = ("-", "+")  # at the front of an argument
_JOINTS = ("=", ":", ",", "@")  # what may stand before a path in its argument; the last one not behind it
_OPTION = re.compile(r"-[A-Za-z]")


@dataclass(frozen=True)
class Command:
    """One command: its arguments, and what differs from `shell`'s own settings.

    Attributes:
        argv: program and arguments; `{name}` or `{name:text}` takes a text, `{name:int}` a number, `{name:path}` a path
            below the root, `{name:a|b|c}` one of these words. `{name:any}` takes any text, also one that begins with
            `-` or `@`: use it only where the program treats neither specially, such as after its own `--`. A brace
            itself is written twice.
        description: what the model is told it does; unset, the command itself.
        effect: `pure` if it changes nothing and may run again, else `once`.
        timeout: seconds, then it is killed with all it started.
        approval: `always` asks a person before each call.

    """

    argv: Sequence[str]
    description: str = ""
    effect: Literal["pure", "once"] = "once"
    timeout: float | None = None
    approval: ApprovalPolicy | None = None


@makes_tools
def shell(
    commands: Mapping[str, Sequence[str] | Command],
    *,
    root: str | os.PathLike[str] = ".",
    env: Iterable[str] | Mapping[str, str] = (),
    timeout: float = 60.0,
    max_output: int = 64 * 1024,
    approval: ApprovalPolicy = "never",
) -> list[AnyTool]:
    """Return one tool for each command, by its name.

    Args:
        commands: name to argument list, or to a `Command`: `{"log": ["git", "log", "-n", "{count:int}"]}`.
        root: where they run; paths that a model fills in lie below it.
        env: variables they get beside PATH, LANG, TMPDIR and HOME (a folder of their own in the user's cache,
            where no file tool writes): names to pass on from the worker, or names with values, of which
            `secret("NAME")` is replaced for each command.
        timeout: seconds, then a command is killed with all it started.
        max_output: bytes that are kept of each of its two outputs; the rest is read and dropped.
        approval: `always` asks a person before each call.

    Raises:
        ConfigurationError: a command is not a list, or a placeholder is of no known kind.

    """
    if isinstance(commands, str) or not isinstance(commands, Mapping) or not commands:
        raise ConfigurationError('shell: give commands by name, such as {"tests": ["pytest", "-q", "{path:path}"]}.')
    if not (timeout > 0 and max_output > 0):
        raise ConfigurationError("shell: timeout and max_output must be above 0.")
    if isinstance(env, str):
        raise ConfigurationError(f"shell(env={env!r}): give a list of names, or a dict of names and values.")
    place = _Place(Folder(root, "shell"), env, max_output)
    made = []
    for name, given in commands.items():
        command = given if isinstance(given, Command) else Command(given)
        made.append(_tool(name, command, place, command.timeout or timeout, command.approval or approval))
    return made


class _Place:
    """Where commands run, and with what."""

    def __init__(self, folder: Folder, env: Iterable[str] | Mapping[str, str], most: int) -> None:
        self.folder = folder
        self.most = most
        self._given = dict(env) if isinstance(env, Mapping) else dict.fromkeys(env)

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the secrets among the variables."""
        return frozenset(secret_names(self._given))

    async def environment(self) -> dict[str, str]:
        """Return the variables: few, so that no key of the worker's gets out by way of a program's output.

        Raises:
            MissingSecret: a secret among them is not set.

        """
        secrets = {value: await reveal(value) for value in self._given.values() if value is not None}
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ") if name in os.environ}
        kept.setdefault("PATH", os.defpath)
        kept.setdefault("LANG", "C.UTF-8")
        kept["HOME"] = self._home()
        for name, value in self._given.items():
            found = os.environ.get(name) if value is None else secrets.get(value, value)
            if found is not None:
                kept[name] = found
        return kept

    def _home(self) -> str:
        """Return a home where no tool of ours and no checkout writes: a .gitconfig makes `git log` run any program."""
        name = hashlib.sha256(str(self.folder.root).encode()).hexdigest()[:16]
        try:
            return str(make_private(user_cache(), "homes", name))
        except OSError:  # a user without a folder that can be written
            return "/nonexistent"


def _tool(name: str, command: Command, place: _Place, timeout: float, approval: ApprovalPolicy) -> AnyTool:
    argv = command.argv
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"shell: {name!r} is no name for a tool: use letters, digits, _ and -.")
    if isinstance(argv, str) or not argv or not all(isinstance(part, str) and "\x00" not in part for part in argv):
        raise ConfigurationError(f'shell: {name} must be a list of arguments, such as ["git", "status"], not {argv!r}.')
    if command.effect not in ("pure", "once"):
        raise ConfigurationError(
            f"shell: {name} is {command.effect!r}; a command is 'once', or 'pure' if it only reads."
        )
    if _placeholders(argv[0]):
        raise ConfigurationError(f"shell: {name} lets the model choose the program. Write the program's name.")
    kinds = _kinds(name, argv)
    changes = command.effect != "pure"

    async def run(**values: Any) -> str:
        ctx: ToolContext = values.pop("ctx")
        checked = {each: _checked(place, each, value, kinds[each], changes) for each, value in values.items()}
        filled = _filled(argv, checked, kinds)
        environment = await place.environment()
        program = shutil.which(filled[0], path=environment["PATH"]) if "/" not in filled[0] else filled[0]
        if program is None:
            raise ToolError(f"there is no program {filled[0]!r} on this machine. Nothing was run.")
        until = min(timeout, ctx.deadline - time.monotonic() - 1.0)
        try:
            done = await run_process(
                [program, *filled[1:]],
                cwd=place.folder.root,
                env=environment,
                timeout=until,
                most=place.most,
                guarded=True,
            )
        except (OSError, ValueError) as exc:
            raise ToolError(f"{filled[0]!r} could not be started: {exc}. Nothing was run.") from None
        return _told(done, until)

    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=ToolContext)]
    parameters += [
        inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, annotation=_type(name, kind))
        for each, kind in kinds.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__name__ = run.__qualname__ = name
    run.__doc__ = command.description or "Run: " + " ".join(_put(part, lambda name: f"{{{name}}}") for part in argv)
    tool = Tool(run, name=name, effect=command.effect, approval=approval, timeout=timeout + 5.0)
    tool.secrets = place.secrets
    return tool


def _placeholders(part: str) -> list[tuple[str, str]]:
    """Return (name, kind) of each placeholder of an argument."""
    return [(match[1], match[2] or "") for match in _PLACEHOLDER.finditer(part) if match[1]]


def _put(part: str, value: Callable[[str], str]) -> str:
    """Return an argument with its placeholders filled in."""
    return _PLACEHOLDER.sub(lambda match: value(match[1]) if match[1] else match[0][0], part)


def _kinds(owner: str, argv: Sequence[str]) -> dict[str, str]:
    """Return the kind of each placeholder, by its name.

    Raises:
        ConfigurationError: a placeholder is written or used wrongly.

    """
    kinds: dict[str, str] = {}
    for part in argv:
        if "{" in _PLACEHOLDER.sub("", part):
            raise ConfigurationError(f"shell: {owner} has {part!r}: write a placeholder as {{name}} or {{name:kind}}.")
        for parameter, kind in _placeholders(part):
            _type(owner, kind)
            if parameter == "ctx" or (kind and kinds.get(parameter, kind) != kind):
                raise ConfigurationError(f"shell: {owner} cannot use the name {parameter!r} here: choose another name.")
            kinds.setdefault(parameter, kind or "text")
    for part in argv:
        _check_paths(owner, part, kinds)
    return kinds


def _check_paths(owner: str, part: str, kinds: Mapping[str, str]) -> None:
    """Refuse a path with text joined to it: what the program opened would not be what was checked."""
    end = 0
    for match in _PLACEHOLDER.finditer(part):
        if match[1] and kinds[match[1]] == "path":
            before, after = part[end : match.start()], part[match.end() : match.end() + 1]
            apart = not before if match.start() == 0 else before.endswith(_JOINTS) or _OPTION.fullmatch(before)
            if not apart or (after and after not in _JOINTS[:3]):
                raise ConfigurationError(
                    f"shell: {owner} has {part!r}: the path must be an argument of its own, or follow an option or one "
                    "of = : , @, with no text joined to it. For paths below another folder, set shell(root=…)."
                )
        end = match.end()


def _type(owner: str, kind: str) -> Any:
    if kind in ("", "text", "any"):
        return Annotated[str, Field(min_length=1, max_length=_WORD)]
    if kind == "int":
        return Annotated[int, Field(ge=-(10**15), le=10**15)]
    if kind == "path":
        return Annotated[str, Field(min_length=1, max_length=_WORD, description="path below the root")]
    if "|" in kind:
        return Literal[tuple(kind.split("|"))]
    raise ConfigurationError(f"shell: {owner} has a placeholder of kind {kind!r}: use text, int, path, a|b|c or any.")


def _checked(place: _Place, name: str, value: Any, kind: str, changes: bool) -> str:
    """Return a value as the program is given it.

    Raises:
        ToolError: it may not be filled in; nothing was run.

    """
    text = str(value)
    allowed = "\n\t" if kind == "any" else ""
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char not in allowed for char in text):
        raise ToolError(f"{name} contains a line end or another control character: remove it. Nothing was run.")
    if kind == "text" and text.startswith(_MARKS):
        raise ToolError(
            f"{name} must not begin with {text[0]!r}: a program could read it as a file or a pattern. Nothing was run."
        )
    if kind != "path":
        return text
    if text.startswith((*_MARKS, *_OPTIONS)):
        raise ToolError(f"{name} must not begin with {text[0]!r}: write ./{text[:100]}. Nothing was run.")
    real = place.folder.locate(text)
    if changes:
        place.folder.check_not_loaded(real)
    inner = real.relative_to(place.folder.root).as_posix()
    return "." if inner == "." else f"./{inner}"


def _filled(argv: Sequence[str], values: Mapping[str, str], kinds: Mapping[str, str]) -> list[str]:
    """Put values into the arguments; none of them may turn into an option."""
    filled: list[str] = []
    for part in argv:
        done = _put(part, lambda name: values[name])
        begins = _PLACEHOLDER.match(part)
        if begins and begins[1] and kinds[begins[1]] in ("text", "int") and done.startswith(_OPTIONS):
            raise ToolError(
                f"{done[:100]!r} could be taken for an option: it must not begin with {done[0]!r}. Nothing was run."
            )
        filled.append(done)
    return filled


def _told(done: Finished, timeout: float) -> str:
    head = f"exit code {done.code}" if done.code >= 0 else f"ended by signal {-done.code}"
    if done.timed_out:
        head = f"killed after {timeout:g} s, with all it had started; what it did until then stands"
    parts = [f"{head} ({done.seconds:.1f} s)"]
    for label, data, size in (("", done.out, done.sizes[0]), ("standard error:", done.err, done.sizes[1])):
        text = data.decode("utf-8", "replace").rstrip("\n")
        if text:
            parts += [label] if label else []
            parts.append(text)
        if size > len(data):
            parts.append(f"[… {size - len(data):,} of {size:,} bytes left out here …]")
    return "\n".join(parts)
