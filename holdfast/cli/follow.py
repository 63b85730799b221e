"""Follows a run on the screen or as JSON lines, and asks for approvals on the way. Only the command line uses it."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from typing import TYPE_CHECKING, Any

from holdfast.cli.prompt import ask_approval
from holdfast.cli.screen import Screen
from holdfast.cli.text import clean, short
from holdfast.contracts import Event
from holdfast.errors import HoldfastError, InvalidInput, RunEnded

if TYPE_CHECKING:
    from holdfast.client import Client, RunHandle

__all__ = ["ending", "follow", "follow_json", "me", "print_answer", "print_json"]


def me() -> str:
    """Return who decides: the name this person logged in by."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "terminal"


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object on a line of its own, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def print_answer(text: str) -> None:
    """Write the answer to standard output; to a terminal without control characters."""
    sys.stdout.write((clean(text) if sys.stdout.isatty() else text).rstrip("\n") + "\n")
    sys.stdout.flush()


async def follow(client: Client, run: RunHandle, screen: Screen, *, after: int = 0, ask: bool) -> RunHandle:
    """Show the run's events until its end; return the run that has the answer (a merged one: that it joined)."""
    asker = _Asker(run, screen) if ask else None
    quiet = _Quiet(run, screen)
    try:
        async for event in run.events(after, tokens=True):
            quiet.heard()
            screen.show(event)
            if event.kind == "approval_requested":
                if asker is not None:
                    asker.put(event)
                else:
                    _how_to_decide(run, event, screen)
            elif event.kind in ("approval_decided", "ended") and asker is not None:
                asker.settled(event.data.get("step"))
            if event.kind == "merged":
                into = await client.get(str(event.data["into"]))
                return await follow(client, into, screen, after=await _joined_at(into, run.run_id), ask=ask)
    finally:
        await quiet.close()
        if asker is not None:
            await asker.close()
    return run


async def follow_json(client: Client, run: RunHandle) -> RunHandle:
    """Write each event as a line of JSON until the run's end; return the run that has the answer."""
    async for event in run.events():
        print_json({"kind": event.kind, **event.model_dump(mode="json", exclude={"kind"}), "data": event.data})
        if event.kind == "approval_requested":
            sys.stderr.write(f"waiting for a decision: {' or '.join(_commands(run, event))}\n")
        if event.kind == "merged":
            return await follow_json(client, await client.get(str(event.data["into"])))
    return run


async def _joined_at(into: RunHandle, run_id: str) -> int:
    """Return the number of the event by which a steering message joined: what came before was told to others."""
    async for event in into.events():
        if event.kind == "joined" and event.data.get("run_id") == run_id:
            return event.seq
    return 0


def _commands(run: RunHandle, event: Event) -> list[str]:
    step = event.data.get("step")
    return [
        f"holdfast approve {short(run.run_id)} {step}",
        f"holdfast reject {short(run.run_id)} {step} --reason '…'",
    ]


def _how_to_decide(run: RunHandle, event: Event, screen: Screen) -> None:
    for command in _commands(run, event):
        screen.note(f"      {command}")


class _Quiet:
    """Asks Temporal what holds a run up when nothing has happened for a while, and says so on the screen."""

    def __init__(self, run: RunHandle, screen: Screen) -> None:
        self._run = run
        self._screen = screen
        self._heard = asyncio.Event()
        self._task = asyncio.create_task(self._watch(), name="watch for silence")

    def heard(self) -> None:
        self._heard.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self._heard.clear()
            try:
                async with asyncio.timeout(_SILENCE):
                    await self._heard.wait()
            except TimeoutError:
                try:
                    self._screen.trouble("; ".join(await self._run.trouble()))
                except HoldfastError as exc:
                    self._screen.trouble(str(exc))


_SILENCE = 4.0  # seconds without an event
ARGS_SHOWN = 2000  # characters of arguments that the event carries


class _Asker:
    """Asks for one approval after the other, beside the stream of events, and drops what others decide meanwhile."""

    def __init__(self, run: RunHandle, screen: Screen) -> None:
        self._run = run
        self._screen = screen
        self._waiting: dict[int, Event] = {}
        self._asking: int | None = None
        self._task: asyncio.Task[None] | None = None

    def put(self, event: Event) -> None:
        self._waiting[int(event.data["step"])] = event
        self._next()

    def settled(self, step: int | None) -> None:
        """Forget a question that was answered, by us or by others; all of them when the run has ended."""
        for settled in [step] if step is not None else list(self._waiting):
            self._waiting.pop(settled, None)
        if self._task is not None and self._asking is not None and (step is None or step == self._asking):
            self._task.cancel()
        self._next()

    async def close(self) -> None:
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _next(self) -> None:
        if self._waiting and (self._task is None or self._task.done()):
            step, event = next(iter(self._waiting.items()))
            self._task = asyncio.create_task(self._ask(step, event), name=f"ask about step {step}")
            self._task.add_done_callback(lambda _: asyncio.get_running_loop().call_soon(self._next))

    async def _ask(self, step: int, event: Event) -> None:
        try:
            asked = [found for found in await self._run.approvals() if found.step_no == step]
            if not asked or asked[0].state != "pending":  # an old event, of a run that is being watched again
                return
            self._asking = step
            self._screen.stop()
            if len(str(event.data.get("args") or "")) >= ARGS_SHOWN:  # nobody decides on what they cannot see
                self._screen.note(clean(json.dumps(asked[0].args, ensure_ascii=False, indent=2)), style="")
            said = await ask_approval(self._screen.console)
            self._asking = None  # from here on it is decided: our own event must not cancel us
            if said is None:
                self._screen.note("    left open; decide later with:")
                _how_to_decide(self._run, event, self._screen)
            elif said.approve:
                await self._run.approve(str(step), actor=me())
            else:
                await self._run.reject(str(step), reason=said.reason or "", actor=me())
        except InvalidInput as exc:  # someone else was faster
            self._screen.note(f"    {exc}", style="yellow")
        except HoldfastError as exc:
            self._screen.note(f"    not decided: {exc}", style="red")
            _how_to_decide(self._run, event, self._screen)
        finally:
            self._asking = None
            self._waiting.pop(step, None)
            self._screen.start()


async def ending(run: RunHandle) -> tuple[dict[str, Any], RunEnded | None]:
    """Return a run's last line as JSON, and the error if it has no answer."""
    try:
        answer = await run.result()
    except RunEnded as exc:
        status = await run.status()
        return (
            {
                "kind": "answer",
                **status.model_dump(mode="json", include={"run_id", "thread", "state", "error", "usage"}),
                "output": None,
                **status.model_dump(mode="json", include={"cost_usd", "steps", "rounds"}),
            },
            exc,
        )
    return {"kind": "answer", **answer.model_dump(mode="json")}, None
