"""The command `chat`: a conversation in the terminal. Runs outlive it; the thread is where it goes on."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any, Literal

from rich.padding import Padding
from rich.text import Text

from holdfast.cli.ask import INTERRUPTED
from holdfast.cli.edit import approve_edited
from holdfast.cli.follow import Quiet, joined_at
from holdfast.cli.keyboard import Keyboard, Paper, Typed
from holdfast.cli.prompt import me
from holdfast.cli.questions import Question, Questions, is_bare_answer
from holdfast.cli.say import console as new_console
from holdfast.cli.talk import TalkScreen, show_history, show_said
from holdfast.cli.text import WHOLE, call_text, cost, output_text, short
from holdfast.client import Client, RunHandle
from holdfast.contracts import OPEN_STATES, Event
from holdfast.errors import DecisionRefused, HoldfastError, InvalidInput, RunEnded, StackError
from holdfast.visible import is_fitted

__all__ = ["Chat"]

_TWICE = 2.0  # seconds within which a second Ctrl-C leaves
_REFRESH = 0.125  # seconds between two pictures of what is going on
_HISTORY = 12  # messages shown when a thread is taken up again

_HELP = """\
Type and press Enter. A new line: end it with \\, or Alt-Enter, or Ctrl-J; pasted lines stay together.
While it works, what you type joins the run at its next model call.

/approve [STEP]         approve a call that waits
/reject [STEP] [REASON] reject it; the model reads the reason
/edit [STEP]            change its arguments in your editor, then approve it
/stop            stop the run under way (Ctrl-C does the same; twice leaves)
/thread [NAME]   show this thread, or change to another; "new" begins one
/cost            what this thread has cost
/quit            leave (or Ctrl-D); runs go on
/help            this

To say something that begins with /, put a blank before it."""


_BARE = (
    "not sent, and nothing was decided: {!r} could be meant for the agent or for the call that waits. To decide, "
    "type /approve "
    "or /reject; to send it to the agent, type a space before it."
)


class Chat:
    """One conversation at one terminal."""

    def __init__(self, client: Client, agent: str, thread: str) -> None:
        """Prepare the screen; `talk` begins."""
        self._client, self._wanted, self.thread = client, agent, thread
        self._agent = agent  # who answers on this thread: another once it has been handed over
        self._paper = Paper()
        self._console = new_console(file=self._paper, force_terminal=True)  # as much of a file as rich needs
        self._screen = TalkScreen(self._console)
        self._runs: asyncio.Queue[tuple[RunHandle, int]] = asyncio.Queue()
        self._followed: set[str] = set()
        self._texts: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._open = 0  # messages that were said and whose runs have not been seen to their end
        self._sending = 0
        self._run: RunHandle | None = None
        self._asked = Questions()
        self._interrupted = -_TWICE
        self._unsent: tuple[str, str] | None = None
        self._keyboard: Keyboard | None = None

    # ------------------------------------------------------------------------------------ the conversation

    async def talk(self) -> int:
        """Converse until the person leaves; return the exit code."""
        await self._enter(self.thread)
        history = await self._client.history(self.thread, _HISTORY)
        said = [str(m.body["content"]) for m in history if m.role == "user" and m.body and m.body.get("content")]
        with Keyboard(self._head, said) as keyboard:
            self._keyboard = keyboard
            keyboard.on_begin = self._asked.line_begun
            return await self._converse(keyboard)

    async def _converse(self, keyboard: Keyboard) -> int:
        work = [asyncio.create_task(each) for each in (self._send(), self._follow(), self._redraw())]
        try:
            self._note(f"{self._agent}, thread {self.thread}; /help tells what else there is")
            await self._take_up()
            while (code := await self._heard(await _unless_failed(keyboard.read(), work))) is None:
                pass
        finally:
            self._farewell()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self._paper.close()
        return code

    async def _enter(self, thread: str) -> None:
        """Change to a thread of our agent, or one that it has handed over; any other is refused."""
        self._agent = await self._client.check_agent(self._wanted, thread)
        self.thread = thread

    async def _take_up(self) -> None:
        """Show what was said on the thread, and go on with the runs that have not ended."""
        show_history(self._console, await self._client.history(self.thread, _HISTORY))
        if self._agent != self._wanted:
            self._note(f"{self._wanted} has handed this thread over: {self._agent} answers")
        for summary in reversed(await self._client.runs(thread=self.thread, limit=100)):
            if summary.state in OPEN_STATES:
                self._open += 1
                self._runs.put_nowait((await self._client.get(summary.run_id), 0))

    def _farewell(self) -> None:
        if self._run is not None:
            self._note(f"run {short(self._run.run_id)} goes on")
        elif self._sending:
            self._note("what you said last may not have been taken; the history shows it", "yellow")
        self._note(f"come back with: holdfast chat {self._agent} --thread {self.thread}")

    async def _heard(self, typed: Typed) -> int | None:
        """Do what the person wants; return an exit code if that is to leave."""
        if typed.kind == "end":
            return 0
        if typed.kind == "interrupt":
            return await self._interrupt(typed.text)
        if not typed.text.strip():
            return None
        if typed.text.startswith("/"):
            return await self._command(typed.text.strip())
        if self._asked and is_bare_answer(typed.text) and not typed.text.startswith(" "):
            self._note(_BARE.format(typed.text.strip()), "yellow")
            return None
        show_said(self._console, typed.text.strip())
        self._open += 1
        self._sending += 1
        self._texts.put_nowait((self.thread, typed.text.strip()))
        return None

    def _busy(self) -> bool:
        return self._open > 0

    def _head(self) -> list[tuple[str, str]]:
        head = self._screen.head(busy=self._busy())
        return head + self._asked.head(shutil.get_terminal_size().columns)

    async def _redraw(self) -> None:
        """Keep what moves moving; while nothing does, the terminal is left alone."""
        moved = True
        while True:
            moves = self._busy()
            if (moves or moved) and self._keyboard is not None:
                self._keyboard.redraw()
            moved = moves
            await asyncio.sleep(_REFRESH)

    def _note(self, text: str, style: str = "dim") -> None:
        self._console.print(Padding(Text(text, style=style), (0, 0, 0, 2)))

    # ------------------------------------------------------------------------------------ what goes out

    async def _send(self) -> None:
        """Send one message after the other: the run under way takes what is said meanwhile."""
        while True:
            thread, text = await self._texts.get()
            message_id = uuid.uuid4().hex
            if self._unsent is not None and self._unsent[0] == text:  # said again: if it did arrive, it is the same run
                message_id = self._unsent[1]
            if self._run is None:
                self._screen.activity("sending")
            try:
                mode: Literal["steer", "next"] = "steer" if self._run else "next"
                run = await self._client.start(self._agent, text, thread=thread, message_id=message_id, mode=mode)
            except HoldfastError as exc:
                self._open -= 1
                self._note(f"not sent: {exc}", "red")
                self._unsent = (text, message_id) if isinstance(exc, StackError) else None
            else:
                self._unsent = None
                self._runs.put_nowait((run, 0))
            finally:
                self._sending -= 1

    async def _interrupt(self, text: str) -> int | None:
        now = time.monotonic()
        if now - self._interrupted < _TWICE:
            return INTERRUPTED
        self._interrupted = now
        if self._run is not None:
            await self._stop(None)
        elif text:
            self._interrupted = -_TWICE  # that was for the line alone
            assert self._keyboard is not None
            self._keyboard.drop()
        else:
            self._note("Ctrl-C again leaves")
        return None

    async def _stop(self, reason: str | None) -> None:
        run = self._run
        if run is None:
            self._note("nothing is under way")
            return
        self._screen.activity("stopping; Ctrl-C again leaves")
        try:
            await run.stop(reason, actor=me())
        except HoldfastError as exc:
            self._note(str(exc), "yellow")

    # ------------------------------------------------------------------------------------ what comes in

    async def _follow(self) -> None:
        """Show one run after the other to its end. A message that joined another run ends at once."""
        while True:
            run, seen = await self._runs.get()
            self._run = run
            self._followed.add(run.run_id)
            shown: dict[str, int] = {}
            try:
                while not await self._events(run, seen, shown):
                    pass  # the database was away: go on behind what was shown
            finally:
                self._run = None
                self._open -= 1
                self._asked.clear()

    async def _events(self, run: RunHandle, seen: int, shown: dict[str, int]) -> bool:
        """Show the events after number *seen*, its children's too, until the run's end; say whether that was reached.

        *shown* has the last number shown of each run: what broke off goes on without a word said twice.
        """
        quiet = Quiet(run, self._screen)
        try:
            async for event in run.events(seen, tokens=True, children=True):
                quiet.heard()
                if event.kind != "tokens":  # those carry the last number
                    if event.seq <= shown.get(event.run_id, 0):
                        continue
                    shown[event.run_id] = event.seq
                if event.run_id == run.run_id and event.kind == "ended" and event.data.get("state") == "done":
                    await self._answer(run)
                self._screen.show(event)
                await self._look_at(run, event)
        except StackError as exc:  # after all the client's patience
            self._note(f"{exc} Trying on; Ctrl-C twice leaves.", "red")
            return False
        except HoldfastError as exc:
            self._note(str(exc), "red")
        finally:
            await quiet.close()
        return True

    async def _answer(self, run: RunHandle) -> None:
        try:
            answer = await run.result()
        except RunEnded as exc:
            self._note(str(exc), "red")
        else:
            self._screen.answer(output_text(answer.output))

    async def _look_at(self, run: RunHandle, event: Event) -> None:
        key = (event.run_id, int(event.data.get("step") or 0))
        own = event.run_id == run.run_id
        if event.kind == "approval_requested":
            asks = run if own else await self._client.get(event.run_id)
            asked = [found for found in await asks.approvals() if found.step_no == key[1] and found.state == "pending"]
            if asked:
                whose = self._screen.whose(event.run_id)
                self._asked.add(Question(asks, key[1], f"{asked[0].tool} of {whose}" if whose else asked[0].tool))
                if is_fitted(str(event.data.get("args") or "")):  # nobody decides on what they cannot see
                    self._note(call_text(asked[0].tool, asked[0].args, WHOLE), "")
        elif event.kind == "approval_decided":
            self._asked.drop(*key)
        elif event.kind == "ended":
            self._asked.drop(event.run_id)
        elif event.kind == "handed_off" and own:
            self._agent = str(event.data["agent"])
        elif event.kind == "merged" and own and event.data["into"] not in self._followed:  # begun elsewhere
            into = await self._client.get(str(event.data["into"]))
            self._open += 1
            self._runs.put_nowait((into, await joined_at(into, run.run_id)))

    # ------------------------------------------------------------------------------------ decisions

    async def _decide(self, name: str, words: str) -> None:
        """Carry out a command on a call that waits."""
        assert self._keyboard is not None
        asked, rest = self._asked.meant(words)
        run, step = asked.run, asked.step
        try:
            if name == "/edit":
                await self._edit(run, step)
                return
            if name == "/approve":
                if rest:
                    raise InvalidInput(f"nothing was decided: /approve takes the number of a step, not {rest!r:.60}")
                await run.approve(str(step), actor=me())
            else:
                reason = rest or await self._keyboard.ask("  reason (the model sees it; Enter for none): ")
                if reason is None:
                    return
                await run.reject(str(step), reason=reason.strip()[:2000] or "rejected by the user", actor=me())
        except DecisionRefused:  # somebody else was faster
            self._asked.drop(*asked.key)
            raise
        except StackError as exc:
            raise InvalidInput(f"not decided: {exc}") from exc
        self._asked.drop(*asked.key)

    async def _edit(self, run: RunHandle, step: int) -> None:
        assert self._keyboard is not None
        approval = next((found for found in await run.approvals() if found.step_no == step), None)
        if approval is None:
            return
        with self._paper.held():
            plain = new_console()  # the line is not there now, so nothing can be torn
            done = await approve_edited(run, approval, plain, self._keyboard.ask, lend=self._keyboard.lent)
        if done is not None:
            self._asked.drop(run.run_id, step)

    # ------------------------------------------------------------------------------------ commands

    async def _command(self, line: str) -> int | None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        try:
            if name in ("/quit", "/exit", "/q"):
                return 0
            if name == "/stop":
                await self._stop(rest or None)
            elif name == "/thread":
                await self._change(rest)
            elif name in ("/approve", "/reject", "/edit"):
                await self._decide(name, rest)
            elif name == "/cost":
                await self._cost()
            elif name == "/help":
                self._note(_HELP)
            else:
                self._note(f"there is no {name}; /help shows what there is. A blank before it says it to the agent.")
        except HoldfastError as exc:
            self._note(str(exc), "yellow")
        return None

    async def _change(self, name: str) -> None:
        if not name:
            self._note(f"thread {self.thread}; from elsewhere: holdfast chat {self._agent} --thread {self.thread}")
            return
        if self._busy():
            raise InvalidInput("a run is under way here: wait for it or /stop it, then change the thread")
        thread = f"t-{uuid.uuid4().hex[:12]}" if name == "new" else name
        await self._enter(thread)
        self._note(f"thread {thread}")
        await self._take_up()

    async def _cost(self) -> None:
        found = await self._client.runs(thread=self.thread, limit=1000)
        tokens = sum(run.tokens + run.tokens_below for run in found)
        spent = sum(run.cost_usd + run.cost_usd_below for run in found)
        unpriced = sum(run.unpriced + run.unpriced_below for run in found)
        many = "the last 1,000 runs" if len(found) == 1000 else f"{len(found)} run{'s' if len(found) != 1 else ''}"
        here = (
            f"; since you joined: {self._screen.tokens:,} tokens, {cost(self._screen.cost_usd, self._screen.unpriced)}"
        )
        self._note(f"{many} on this thread: {tokens:,} tokens, {cost(spent, unpriced)}{here}")


async def _unless_failed(reading: Coroutine[Any, Any, Typed], work: Sequence[asyncio.Task[None]]) -> Typed:
    """Return what was typed; raise what ended the work beside, which should never end."""
    typing = asyncio.create_task(reading)
    try:
        await asyncio.wait([typing, *work], return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            if task.done():
                task.result()
        return await typing
    finally:
        typing.cancel()
        await asyncio.gather(typing, return_exceptions=True)
