"""The commands `run` and `show --follow`: send, watch, answer. Ctrl-C leaves the run going."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from holdfast.cli.follow import Waits, ending, follow, follow_json, print_answer, print_json
from holdfast.cli.prompt import can_ask
from holdfast.cli.say import say
from holdfast.cli.screen import Screen
from holdfast.cli.stack import ensure_stack, progress
from holdfast.cli.text import one_line, short, waiting_commands, waiting_line
from holdfast.cli.waiting import Waiting
from holdfast.client import Client, RunHandle
from holdfast.settings import Settings
from holdfast.views import WaitingCall
from holdfast.visible import fitted

__all__ = ["INTERRUPTED", "WAITS", "Question", "run", "watch"]

_UNUSUAL = 3.0  # seconds after which a person wonders what is going on
_SHOWN = 1000  # characters of a call that waits for approval: its beginning and its end
INTERRUPTED = 130  # as shells report a program ended by Ctrl-C
WAITS = 3  # exit code of --no-wait: the run waits for a person


@dataclass(frozen=True, slots=True)
class Question:
    """What to send, and to whom."""

    agent: str
    text: str
    thread: str | None = None
    message_id: str | None = None
    steer: bool = False


class _Watch:
    """What is being watched: kept outside the event loop, so that Ctrl-C can say how to come back to it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.run: RunHandle | None = None

    def left(self) -> int:
        if self.run is None:
            self.console.print(Text("interrupted before the message was taken", style="yellow"))
        else:
            name = short(self.run.run_id)
            self.console.print(Text(f"run {name} goes on", style="yellow"))
            self.console.print(Text(f"  holdfast show {name} --follow   watch it\n  holdfast stop {name}", style="dim"))
        return INTERRUPTED


def run(
    settings: Settings, question: Question, *, given: Path | None, as_json: bool, detach: bool, wait: bool = True
) -> int:
    """Send the question and follow its run, unless *wait* only until it waits for a person; return the exit code."""
    watch = _Watch(progress(as_json=as_json))
    try:
        settings = ensure_stack(settings, given, watch.console)
        return asyncio.run(_run(settings, question, watch, as_json=as_json, detach=detach, wait=wait))
    except KeyboardInterrupt:
        return watch.left()


async def _run(
    settings: Settings, question: Question, watch: _Watch, *, as_json: bool, detach: bool, wait: bool
) -> int:
    with Waiting(watch.console, "connecting"):
        connected = await Client.connect(settings)
    async with connected as client:
        sending = asyncio.create_task(
            client.start(
                question.agent,
                question.text,
                thread=question.thread,
                message_id=question.message_id,
                mode="steer" if question.steer else "next",
            )
        )
        with Waiting(watch.console, "sending"):
            await asyncio.wait([sending], timeout=_UNUSUAL)
        if not sending.done():
            watch.console.print(Text("waiting for a worker to take the message; it is not sent yet", style="yellow"))
        watch.run = await sending
        if detach:
            return await _detach(watch, as_json=as_json)
        return await _follow(client, watch, as_json=as_json, ask=can_ask() and wait, wait=wait)


def _waits(run: RunHandle, calls: list[WaitingCall], *, as_json: bool) -> int:
    """Say what the run waits for, in one line on standard error; a script is told on standard output as well."""
    first, more = calls[0], len(calls) - 1
    others = f", and {more} more call{'s' if more > 1 else ''}" if more else ""
    name, what = short(run.run_id), waiting_line(first, run.run_id)
    what = fitted(what, _SHOWN).replace("\n", " ") if first.kind == "approval" else one_line(what, 300)
    say(f"run {name} waits for a person: {what}{others}. See `holdfast show {name}`.")
    if as_json:
        waiting = [{**call.model_dump(mode="json"), "commands": waiting_commands(call)} for call in calls]
        print_json({"kind": "waiting", "run_id": run.run_id, "thread": run.thread, "waiting": waiting})
    return WAITS


async def _detach(watch: _Watch, *, as_json: bool) -> int:
    assert watch.run is not None
    try:  # so that `holdfast show` knows it; it is safe either way
        async with asyncio.timeout(5.0):
            async for _ in watch.run.events():
                break
    except TimeoutError:
        watch.console.print(Text("accepted; no worker has come to it yet", style="yellow"))
    if as_json:
        print_json({"kind": "detached", "run_id": watch.run.run_id, "thread": watch.run.thread})
    else:
        sys.stdout.write(f"{watch.run.run_id}\n")
        watch.console.print(Text(f"  holdfast show {short(watch.run.run_id)} --follow   watch it", style="dim"))
    return 0


def watch(settings: Settings, run_id: str, *, as_json: bool, wait: bool = True) -> int:
    """Follow a run that was started elsewhere, unless *wait* only until it waits for a person; return the exit code."""
    watching = _Watch(progress(as_json=as_json))

    async def body() -> int:
        async with await Client.connect(settings, temporal=False) as client:
            watching.run = await client.get(run_id)
            return await _follow(client, watching, as_json=as_json, ask=False, wait=wait)

    try:
        return asyncio.run(body())
    except KeyboardInterrupt:
        return watching.left()


async def _follow(client: Client, watch: _Watch, *, as_json: bool, ask: bool, wait: bool) -> int:
    assert watch.run is not None
    try:
        if as_json:
            last, error = await ending(await follow_json(client, watch.run, wait=wait))
            print_json(last)
            return 0 if error is None else 1
        thread = Text(f"  thread {watch.run.thread}", style="dim")
        watch.console.print(thread)
        with Screen(watch.console) as screen:
            answering = await follow(client, watch.run, screen, ask=ask, wait=wait)
    except Waits as exc:
        return _waits(watch.run, exc.calls, as_json=as_json)
    last, error = await ending(answering)
    if error is not None:
        return 1  # why is on the screen
    if sys.stdout.isatty():
        watch.console.print()
    print_answer(last["output"])
    return 0
