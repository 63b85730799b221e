"""Edits the arguments of a call in a person's editor, until they fit, and shows what was changed. The CLI uses it."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console
from rich.text import Text

from holdfast.cli.prompt import me
from holdfast.cli.text import clean
from holdfast.errors import DecisionRefused, InvalidInput, ToolArgumentsInvalid
from holdfast.visible import visible

if TYPE_CHECKING:
    from holdfast.client import RunHandle
    from holdfast.contracts import Receipt
    from holdfast.views import ApprovalView

__all__ = ["Editing", "approve_edited", "editor_command", "parse_edited", "render_call"]

_COMMENT = "//"  # at the beginning of a line; no line of JSON begins so, not even inside of a text
Lend: TypeAlias = Callable[[], contextlib.AbstractContextManager[None]]
_USUAL = ("nano", "vim", "vi")


def editor_command() -> list[str]:
    """Return the editor's command line: $VISUAL, else $EDITOR, else one that is usually there.

    Raises:
        InvalidInput: there is none.

    """
    for variable in ("VISUAL", "EDITOR"):
        wanted = os.environ.get(variable, "").strip()
        if wanted:
            try:
                command = shlex.split(wanted)
            except ValueError as exc:
                raise InvalidInput(f"{variable}={wanted!r} is no command line ({exc}). Mend or unset it.") from None
            if shutil.which(command[0]) is None:
                raise InvalidInput(f"{variable}={wanted!r}: there is no program {command[0]}. Mend or unset it.")
            return command
    found = next((path for name in _USUAL if (path := shutil.which(name))), None)
    if found is None:
        raise InvalidInput("No editor was found: set EDITOR, for example EDITOR=nano, or give --args '{…}'.")
    return [found]


def render_call(tool: str, args: Any, schema: dict[str, Any], problem: str = "") -> str:
    """Return the text to edit: what is wrong, what the tool takes, and the arguments as JSON."""
    return _head(tool, schema, problem) + _json(args) + "\n"


def _json(args: Any) -> str:
    return visible(json.dumps(args, ensure_ascii=False, indent=2))  # in JSON an escape means the same


def _head(tool: str, schema: dict[str, Any], problem: str) -> str:
    lines = [f"NOT SENT: {line}" if number == 0 else line for number, line in enumerate(problem.splitlines())]
    lines += [""] if lines else []
    lines += [f"Arguments of {tool}. Save and leave to go on; leave nothing here to change nothing."]
    required = schema.get("required") or []
    for name, part in (schema.get("properties") or {}).items():
        told = part if isinstance(part, dict) else {}
        kind = told.get("type") or ("one of " + _json(told["enum"]).replace("\n", "") if "enum" in told else "any")
        what = [kind if isinstance(kind, str) else " or ".join(map(str, kind)), "required" if name in required else ""]
        line = f"  {name}: {', '.join(word for word in what if word)}"
        lines.append(line + (f". {told['description']}" if told.get("description") else ""))
    return "".join(f"{_COMMENT} {' '.join(clean(line).split()) if line else ''}".rstrip() + "\n" for line in lines)


def parse_edited(text: str, tool: str, schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments in an edited text, or None if it was emptied.

    Raises:
        InvalidInput: it is no JSON object, or does not fit the *schema*; the message has the line or the argument.

    """
    from holdfast.mcp.arguments import ArgumentCheck

    lines = text.split("\n")  # and not at what else Unicode takes for a line's end: that may stand inside of a text
    body = "\n".join("" if line.lstrip().startswith(_COMMENT) else line for line in lines)  # line numbers stay
    if not body.strip():
        return None
    try:
        value = json.loads(body)
    except ValueError as exc:
        raise InvalidInput(f"this is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise InvalidInput("the arguments must be one JSON object: { … }")
    try:
        return ArgumentCheck(tool, schema)(value)
    except ToolArgumentsInvalid as exc:
        wrong = [line for line in str(exc).splitlines() if line.startswith("- ")]
        raise InvalidInput("\n".join(["the arguments do not fit", *wrong]) if wrong else str(exc)) from None


def show_difference(console: Console, before: Any, after: Any) -> None:
    """Write what was changed, line by line."""
    old, new = (clean(_json(value)).splitlines() for value in (before, after))
    for line in list(difflib.unified_diff(old, new, "asked for", "edited", lineterm="", n=2)):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
        console.print(Text(f"    {line}", style="bold" if line[:3] in ("+++", "---") else style), soft_wrap=True)


async def _in_editor(text: str) -> str:
    """Return *text* as the person leaves it. Only they can read the file meanwhile, and it is removed."""
    command = editor_command()
    descriptor, name = tempfile.mkstemp(prefix="holdfast-", suffix=".jsonc")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        screen = sys.stdout if sys.stdout.isatty() else sys.stderr
        process = await asyncio.create_subprocess_exec(*command, name, stdout=screen.fileno())
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the editor now
        try:
            code = await process.wait()
        except asyncio.CancelledError:  # decided elsewhere meanwhile
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        finally:
            signal.signal(signal.SIGINT, before)
        if code != 0:
            raise InvalidInput(f"the editor {command[0]} ended with code {code}; nothing was sent")
        return await asyncio.to_thread(path.read_text, encoding="utf-8", errors="replace")
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240  # also when cancelled: nothing may be awaited here


class Editing:
    """One call's arguments on their way to what a person wants them to be."""

    def __init__(
        self, tool: str, args: Any, schema: dict[str, Any], console: Console, lend: Lend = contextlib.nullcontext
    ) -> None:
        """Begin with what the model asked for. *lend* gives the terminal to the editor meanwhile."""
        self._lend = lend
        self.tool, self.asked, self.schema = tool, args, schema
        self._console = console
        self._text = render_call(tool, args, schema)

    def refused(self, why: str) -> None:
        """Hear that what was sent was refused: the editor opens again with the reason above it."""
        body = "\n".join(line for line in self._text.split("\n") if not line.lstrip().startswith(_COMMENT))
        self._text = _head(self.tool, self.schema, why) + body.strip("\n") + "\n"

    async def edit(self, ask: Callable[[str], Awaitable[str | None]]) -> dict[str, Any] | None:
        """Open the editor until the arguments fit and the person wants them sent; None: nothing shall be sent.

        *ask* puts a question and returns what was typed, or None if that was the end of input.

        Raises:
            InvalidInput: there is no editor, or it failed.

        """
        while True:
            before = self._text
            with self._lend():
                self._text = await _in_editor(self._text)
            try:
                args = parse_edited(self._text, self.tool, self.schema)
            except InvalidInput as exc:
                if self._text == before:  # left as it was, with what is wrong before their eyes
                    self._console.print(Text(f"    nothing was sent: {clean(str(exc))}", style="yellow"))
                    return None
                self.refused(str(exc))
                continue
            if args is None or args == self.asked:
                self._console.print(Text("    nothing was changed", style="yellow"))
                return None
            show_difference(self._console, self.asked, args)
            answer = await ask("    send this? [y]es, [e]dit again, [n]o: ")
            word = (answer or "n").strip().lower()
            if word in ("y", "yes"):
                return args
            if word not in ("e", "edit"):
                self._console.print(Text("    nothing was sent", style="yellow"))
                return None


async def approve_edited(
    run: RunHandle,
    approval: ApprovalView,
    console: Console,
    ask: Callable[[str], Awaitable[str | None]],
    *,
    lend: Lend = contextlib.nullcontext,
) -> Receipt | None:
    """Have a pending call's arguments edited and approve it with them; None if the person sent nothing.

    What the worker refuses, because its types know more than the schema, opens the editor again.

    Raises:
        InvalidInput: there is no editor, or it failed.
        DecisionRefused: the call was decided meanwhile.
        StackError: nobody took the decision; saying it again is safe.

    """
    definition = await run.definition()
    tools = definition.tools if definition is not None else []
    schema = next((tool.parameters for tool in tools if tool.name == approval.tool), {})
    editing = Editing(approval.tool, approval.args, schema, console, lend)
    while True:
        args = await editing.edit(ask)
        if args is None:
            return None
        try:
            return await run.approve(str(approval.step_no), args=args, actor=me())
        except DecisionRefused as exc:
            pending = [found for found in await run.approvals() if found.state == "pending"]
            if all(found.step_no != approval.step_no for found in pending):
                raise
            editing.refused(str(exc))
