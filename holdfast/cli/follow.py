"""Follows a run on the screen or as JSON lines, and asks for approvals on the way. Only the command line uses it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from holdfast.cli.edit import approve_edited
from holdfast.cli.prompt import ask_approval, ask_line, me
from holdfast.cli.say import say
from holdfast.cli.screen import Screen
from holdfast.cli.text import clean, decide_lines, output_text, short
from holdfast.contracts import Event
from holdfast.errors import DecisionRefused, HoldfastError, InvalidInput, RunEnded
from holdfast.visible import is_fitted, visible

if TYPE_CHECKING:
    from holdfast.client import Client, RunHandle
    from holdfast.views import ApprovalView, StepDetail, WaitingCall

__all__ = ["Quiet", "Waits", "ending", "follow", "follow_json", "joined_at", "me", "print_answer", "print_json"]


def print_json(value: dict[str, Any]) -> None:
    """Write one JSON object on a line of its own, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def print_answer(output: Any) -> None:
    """Write the answer to standard output; to a terminal without control characters."""
    text = output_text(output)
    sys.stdout.write((clean(text) if sys.stdout.isatty() else text).rstrip("\n") + "\n")
    sys.stdout.flush()


class Waits(Exception):  # no error: the run waits for a person
    """Raised by `follow` and `follow_json` where nobody is to wait with the run."""

    def __init__(self, calls: list[WaitingCall]) -> None:
        super().__init__(f"{len(calls)} calls wait for a person")
        self.calls = calls


_PERSON = ("approval_requested", "in_doubt")  # kinds of event after which a run may wait for a person


async def _leave(run: RunHandle, event: Event) -> None:
    """Raise Waits if the run waits for a person now: the event may be an old one, decided long ago."""
    if event.kind in _PERSON and (calls := await run.waiting()):
        raise Waits(calls)


async def follow(
    client: Client, run: RunHandle, screen: Screen, *, after: int = 0, ask: bool, wait: bool = True
) -> RunHandle:
    """Show the run's events until its end; return the run that has the answer (a merged one: that it joined).

    Raises:
        Waits: *wait* is false, and the run waits for a person.

    """
    asker = _Asker(client, screen) if ask else None
    quiet = Quiet(run, screen)
    try:
        async for event in run.events(after, tokens=True, children=True):
            quiet.heard()
            screen.show(event)
            own = event.run_id == run.run_id
            if event.kind == "approval_requested":
                if asker is not None:
                    asker.put(event)
                else:
                    _how_to_decide(event, screen)
                    if wait:
                        screen.note("      waiting for a decision; with --no-wait this command would exit instead")
            elif event.kind in ("approval_decided", "ended") and asker is not None:
                asker.settled(event.run_id, event.data.get("step"))
            if not wait:
                await _leave(run, event)
            if own and event.kind == "merged":
                into = await client.get(str(event.data["into"]))
                after = await joined_at(into, run.run_id)
                return await follow(client, into, screen, after=after, ask=ask, wait=wait)
    finally:
        await quiet.close()
        if asker is not None:
            await asker.close()
    return run


async def follow_json(client: Client, run: RunHandle, *, wait: bool = True) -> RunHandle:
    """Write each event as a line of JSON until the run's end; return the run that has the answer.

    What the record has cut is written in full: what the model said, arguments and results of calls.

    Raises:
        Waits: *wait* is false, and the run waits for a person.

    """
    whole = _Whole(client, run)
    async for event in run.events(children=True):
        data = await whole.data(event)
        print_json({"kind": event.kind, **event.model_dump(mode="json", exclude={"kind"}), "data": data})
        if not wait:
            await _leave(run, event)
        if event.kind in _PERSON:
            _say_waiting(event)
        if event.kind == "merged" and event.run_id == run.run_id:
            return await follow_json(client, await client.get(str(event.data["into"])), wait=wait)
    return run


def _say_waiting(event: Event) -> None:
    """Say in one line on standard error that a person must decide: a script may wait here for long."""
    step, name = event.data.get("step"), short(event.run_id)
    tool = clean(str(event.data.get("tool", "")))
    say(f"step {step} of run {name}, {tool}, waits for a person: `holdfast show {name}` has the commands")


class _Whole:
    """Puts back what the record of an event has cut. The steps of a run that has ended are read once."""

    def __init__(self, client: Client, run: RunHandle) -> None:
        self._client = client
        self._runs = {run.run_id: run}
        self._steps: dict[str, dict[int, StepDetail]] = {}

    async def data(self, event: Event) -> dict[str, Any]:
        """Return an event's data with arguments, reply and result in full."""
        data = dict(event.data)
        if event.kind not in ("replied", "tool_done"):
            return data
        detail = await self._step(event.run_id, int(data["step"]))
        if event.kind == "tool_done":
            return {**data, "result": detail.result, "error": detail.error}
        reply = detail.reply or {}
        asked = {call["id"]: call["function"]["arguments"] for call in reply.get("tool_calls") or []}
        calls = data.get("calls") or []
        data["text"] = reply.get("content") or data.get("text")
        data["calls"] = [{**call, "args": asked.get(call["call_id"], call.get("args"))} for call in calls]
        return data

    async def _step(self, run_id: str, number: int) -> StepDetail:
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = await self._client.get(run_id)
        if run_id not in self._steps:
            ended = (await run.status()).ended
            self._steps[run_id] = {step.step_no: step for step in await run.trace()} if ended else {}
        return self._steps[run_id].get(number) or await run.step(number, request=False)


async def joined_at(into: RunHandle, run_id: str) -> int:
    """Return the number of the event by which a steering message joined: what came before was told to others."""
    async for event in into.events():
        if event.kind == "joined" and event.data.get("run_id") == run_id:
            return event.seq
    return 0


def _how_to_decide(event: Event, screen: Screen) -> None:
    for command in decide_lines(event.run_id, int(event.data["step"])):
        screen.note(f"      {command}")


class Quiet:
    """Asks Temporal what holds a run up when nothing has happened for a while, and says so on the screen."""

    def __init__(self, run: RunHandle, screen: Screen) -> None:
        self._run = run
        self._screen = screen
        self._heard = asyncio.Event()
        self._task = asyncio.create_task(self._watch(), name="watch for silence")

    def heard(self) -> None:
        """Hear that something has happened."""
        self._heard.set()

    async def close(self) -> None:
        """Watch no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        silence = _FIRST_LOOK
        while True:
            self._heard.clear()
            try:
                async with asyncio.timeout(silence):
                    await self._heard.wait()
                silence = _FIRST_LOOK
            except TimeoutError:
                silence = min(2 * silence, _SILENCE)
                try:
                    self._screen.trouble("; ".join(await self._run.trouble()))
                except HoldfastError as exc:
                    self._screen.trouble(str(exc))


_FIRST_LOOK = 0.5  # seconds without an event after which Temporal is asked; doubled while nothing happens
_SILENCE = 4.0
_Key = tuple[str, int]  # run and step of a question


class _Asker:
    """Asks for one approval after the other, beside the stream of events, and drops what others decide meanwhile."""

    def __init__(self, client: Client, screen: Screen) -> None:
        self._client = client
        self._screen = screen
        self._waiting: dict[_Key, Event] = {}
        self._asking: _Key | None = None
        self._again: Event | None = None  # nothing was decided: ask once more
        self._task: asyncio.Task[None] | None = None

    def put(self, event: Event) -> None:
        self._waiting[event.run_id, int(event.data["step"])] = event
        self._next()

    def settled(self, run_id: str, step: int | None) -> None:
        """Forget a question that was answered, by us or by others; all of a run's when it has ended."""
        asking = [self._asking] if self._asking is not None else []
        settled = [key for key in (*self._waiting, *asking) if key[0] == run_id and step in (None, key[1])]
        for key in settled:
            self._waiting.pop(key, None)
        if self._task is not None and self._asking in settled:
            self._task.cancel()
        self._next()

    async def close(self) -> None:
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _next(self) -> None:
        if self._waiting and (self._task is None or self._task.done()):
            key, event = next(iter(self._waiting.items()))
            self._task = asyncio.create_task(self._ask(key, event), name=f"ask about step {key[1]}")
            self._task.add_done_callback(lambda _: asyncio.get_running_loop().call_soon(self._next))

    async def _ask(self, key: _Key, event: Event) -> None:
        run_id, step = key
        try:
            run = await self._client.get(run_id)
            asked = [found for found in await run.approvals() if found.step_no == step]
            if not asked or asked[0].state != "pending":  # an old event, of a run that is being watched again
                return
            self._asking = key
            self._screen.stop()
            if is_fitted(str(event.data.get("args") or "")):  # nobody decides on what they cannot see
                self._screen.note(visible(json.dumps(asked[0].args, ensure_ascii=False, indent=2)), style="")
            whose = self._screen.whose(run_id)
            said = await ask_approval(self._screen.console, f"{asked[0].tool} of {whose}" if whose else asked[0].tool)
            self._asking = None  # from here on it is decided: our own event must not cancel us
            if said is None:
                self._screen.note("    left open; decide later with:")
                _how_to_decide(event, self._screen)
            elif said.edit:
                await self._edit(run, asked[0], event)
            elif said.approve:
                await run.approve(str(step), actor=me())
            else:
                await run.reject(str(step), reason=said.reason or "", actor=me())
        except InvalidInput as exc:  # someone else was faster
            self._screen.note(f"    {exc}", style="yellow")
        except HoldfastError as exc:
            self._screen.note(f"    not decided: {exc}", style="red")
            _how_to_decide(event, self._screen)
        finally:
            self._asking = None
            if self._again is None:
                self._waiting.pop(key, None)
            self._again = None
            self._screen.start()

    async def _edit(self, run: RunHandle, approval: ApprovalView, event: Event) -> None:
        console = self._screen.console
        try:
            done = await approve_edited(run, approval, console, lambda text: ask_line(console, text))
        except DecisionRefused:
            raise
        except InvalidInput as exc:  # no editor, or it failed
            self._screen.note(f"    {exc}", style="yellow")
            done = None
        self._again = event if done is None else None


async def ending(run: RunHandle) -> tuple[dict[str, Any], RunEnded | None]:
    """Return a run's last line as JSON, and the error if it has no answer."""
    try:
        answer = await run.result()
    except RunEnded as exc:
        status = await run.status()
        spent = {"cost_usd", "steps", "rounds", "tokens_below", "cost_usd_below", "unpriced", "unpriced_below"}
        return (
            {
                "kind": "answer",
                **status.model_dump(mode="json", include={"run_id", "thread", "state", "error", "usage"}),
                "output": None,
                **status.model_dump(mode="json", include=spent),
            },
            exc,
        )
    return {"kind": "answer", **answer.model_dump(mode="json", exclude={"text"})}, None
