"""Begins `holdfast chat`: at a terminal as a conversation, on pipes one message per line."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from holdfast.cli.ask import INTERRUPTED
from holdfast.cli.follow import ending, follow, follow_json, print_answer, print_json
from holdfast.cli.prompt import can_ask, read_line
from holdfast.cli.screen import Screen
from holdfast.cli.stack import ensure_stack, progress
from holdfast.cli.waiting import Waiting
from holdfast.client import Client, RunHandle
from holdfast.errors import InvalidInput
from holdfast.settings import Settings

__all__ = ["can_chat", "converse"]


def can_chat() -> bool:
    """Whether a person sits at a terminal that can move its cursor."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "")


def converse(settings: Settings, agent: str, thread: str | None, *, given: Path | None, as_json: bool) -> int:
    """Talk with an agent until the person, or the input, ends; return the exit code.

    On pipes: 0 if every line was answered, else 1.
    """
    thread = thread if thread is not None else f"t-{uuid.uuid4().hex[:12]}"
    console = progress(as_json=as_json)
    try:
        settings = ensure_stack(settings, given, console)
    except KeyboardInterrupt:
        return INTERRUPTED
    try:
        if can_chat() and not as_json:
            return asyncio.run(_chat(settings, agent, thread))
        return asyncio.run(_Lines(agent, thread, console, as_json=as_json).talk(settings))
    except KeyboardInterrupt:
        console.print(Text(f"left; what runs goes on. Come back with: holdfast chat {agent} --thread {thread}", "dim"))
        return INTERRUPTED


async def _chat(settings: Settings, agent: str, thread: str) -> int:
    from holdfast.cli.chat import Chat

    with Waiting(progress(), "connecting"):
        connected = await Client.connect(settings)
    async with connected as client:
        return await Chat(client, agent, thread).talk()


class _Lines:
    """A conversation without a screen: a line in, its answer out, then the next."""

    def __init__(self, agent: str, thread: str, console: Console, *, as_json: bool) -> None:
        self._agent, self._thread, self._console, self._as_json = agent, thread, console, as_json

    async def talk(self, settings: Settings) -> int:
        code = 0
        async with await Client.connect(settings) as client:
            await client.check_agent(self._agent, self._thread)
            self._console.print(Text(f"  thread {self._thread}", style="dim"))
            if can_ask() and not self._as_json:
                self._console.print(Text("  each line is a message; Ctrl-D leaves", style="dim"))
            async for line in _lines():
                if not line.strip():
                    continue
                try:
                    run = await client.start(self._agent, line, thread=self._thread)
                except InvalidInput as exc:  # this line cannot be sent; the next may
                    self._console.print(Text(f"not sent: {exc}", style="red"))
                    if self._as_json:
                        print_json({"kind": "refused", "run_id": None, "thread": self._thread, "error": str(exc)})
                    code = 1
                    continue
                code = max(code, await self._answer(client, run))
        return code

    async def _answer(self, client: Client, run: RunHandle) -> int:
        if self._as_json:
            last, error = await ending(await follow_json(client, run))
            print_json(last)
        else:
            with Screen(self._console) as screen:
                answering = await follow(client, run, screen, ask=can_ask())
            last, error = await ending(answering)
            if error is None:
                print_answer(last["output"])
        return 0 if error is None else 1


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of standard input as they come."""
    if sys.stdin.isatty():
        while (line := await read_line()) is not None:
            yield line
        return
    while data := await asyncio.to_thread(sys.stdin.buffer.readline):
        try:
            yield data.decode().rstrip("\r\n")
        except UnicodeDecodeError as exc:
            raise InvalidInput(f"standard input is no UTF-8 text: {exc}") from None
