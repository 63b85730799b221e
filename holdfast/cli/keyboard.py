"""The line a person types on while a run goes on above it. Only `chat` uses it, and only it prompt_toolkit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from prompt_toolkit import PromptSession
from prompt_toolkit.application import in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.output.vt100 import Vt100_Output

__all__ = ["Keyboard", "Paper", "Typed"]


@dataclass(frozen=True, slots=True)
class Typed:
    """What a person did: a line (of several, perhaps), Ctrl-C, or Ctrl-D on an empty line."""

    kind: Literal["line", "interrupt", "end"]
    text: str = ""


class Paper:
    """What is written above the line: a file for a console. Nothing of it tears the line that is being typed."""

    def __init__(self) -> None:
        self._waiting = ""
        self._wake = asyncio.Event()
        self._held = False
        self._task = asyncio.create_task(self._pump(), name="write above the prompt")

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Take text; it is shown a moment later."""
        self._waiting += text
        return len(text)

    def flush(self) -> None:
        """Show what was taken."""
        self._wake.set()

    def isatty(self) -> bool:
        """Say that colours and moving parts are welcome."""
        return True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep everything back meanwhile: an editor has the screen."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._wake.set()

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._waiting and not self._held:
                async with in_terminal():
                    self._empty()

    def _empty(self) -> None:
        text, self._waiting = self._waiting, ""
        sys.stdout.write(text)
        sys.stdout.flush()

    async def close(self) -> None:
        """Show what is left, and write no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._empty()


class _Keys(Vt100Input):
    """The terminal's keys, raw from the beginning of the chat to its end.

    In a terminal's own line mode Enter arrives as a line feed, which is Ctrl-J: a message typed just before the line
    was there, or while something was written above it, would not be sent.
    """

    def cooked_mode(self) -> contextlib.AbstractContextManager[None]:
        """Stay raw while the library writes above the line."""
        return contextlib.nullcontext()

    def lent(self) -> contextlib.AbstractContextManager[None]:
        """Give the terminal back to the kernel meanwhile, for another program."""
        return super().cooked_mode()


class Keyboard:
    """Reads what is typed, inside of `with`. Above the line stands *head*, for which `redraw` asks again."""

    def __init__(self, head: Callable[[], list[tuple[str, str]]], earlier: Sequence[str] = ()) -> None:
        """Let the arrow keys bring back *earlier* lines, oldest first."""
        self._head = head
        self._question: str | None = None
        self.on_begin: Callable[[], None] = lambda: None
        """Called when something is typed on an empty line."""
        self._typed = ""
        self._left = ""
        self._input = _Keys(sys.stdin)
        self._raw = contextlib.ExitStack()
        output = create_output(stdout=sys.stdout)
        if isinstance(output, Vt100_Output):
            output.enable_cpr = False  # asking the terminal where the cursor is leaves marks where nobody answers
        self._session: PromptSession[Typed] = PromptSession(
            self._message,
            multiline=True,
            key_bindings=self._keys(),
            history=InMemoryHistory(list(earlier)),
            prompt_continuation="· ",
            erase_when_done=True,
            reserve_space_for_menu=0,
            complete_while_typing=False,
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
            input=self._input,
            output=output,
        )
        self._session.default_buffer.on_text_changed += self._changed

    def _changed(self, buffer: Buffer) -> None:
        if buffer.text and not self._typed:
            self.on_begin()
        self._typed = buffer.text

    def __enter__(self) -> Keyboard:
        self._raw.enter_context(self._input.raw_mode())
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def lent(self) -> contextlib.AbstractContextManager[None]:
        """Let another program have the keys meanwhile."""
        return self._input.lent()

    def _message(self) -> FormattedText:
        if self._question is not None:
            return FormattedText([("bold", self._question)])
        return FormattedText([*self._head(), ("bold", "> ")])

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _enter(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.text_before_cursor.endswith("\\"):  # a line that ends so goes on
                buffer.delete_before_cursor()
                buffer.insert_text("\n")
            else:
                text = buffer.text
                buffer.append_to_history()
                buffer.reset()
                event.app.exit(result=Typed("line", text))

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def _newline(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _interrupt(event: KeyPressEvent) -> None:
            event.app.exit(result=Typed("interrupt", event.current_buffer.text))

        @keys.add("c-d")
        def _end(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.delete()
            else:
                event.app.exit(result=Typed("end"))

        return keys

    async def read(self) -> Typed:
        """Return the next thing the person does. After Ctrl-C what they had typed comes back, unless dropped."""
        self._typed = self._left
        typed = await self._session.prompt_async(default=self._left)
        self._left = typed.text if typed.kind == "interrupt" else ""
        return typed

    def redraw(self) -> None:
        """Draw *head* anew."""
        if self._session.app.is_running:
            self._session.app.invalidate()

    def drop(self) -> None:
        """Forget what was typed before Ctrl-C."""
        self._left = ""

    async def ask(self, question: str) -> str | None:
        """Return the answer to a question, or None for Ctrl-C or Ctrl-D."""
        self._question = question
        try:
            typed = await self._session.prompt_async(default="")
        finally:
            self._question = None
        return typed.text if typed.kind == "line" else None
