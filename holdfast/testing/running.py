"""A run under way in a test, and the fixture's function that starts one. Every call blocks; none needs a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from holdfast.contracts import Event, Mode
from holdfast.errors import HoldfastError, InvalidInput, RunWaits
from holdfast.handles import RunHandle
from holdfast.reading import LAST_KINDS
from holdfast.testing.calls import FinishedRun, look, story
from holdfast.views import ApprovalView, StepView

if TYPE_CHECKING:
    from holdfast.testing.models import ScriptedModels
    from holdfast.testing.stack import Stack

__all__ = ["RunAgent", "Running"]

PATIENCE = 60.0  # seconds, before `time_scale`, that a test waits for a run unless it says otherwise
_POLL = 0.05
_STOPPING = 10.0  # seconds that the end of a test waits for a run that it stops

Approve = bool | Callable[[ApprovalView], bool]


class Running:
    """A run that a test has started: watch it, decide, wait for its end."""

    def __init__(self, stack: Stack, handle: RunHandle) -> None:
        """Wrap a run; `run_agent.start` makes these."""
        self._stack = stack
        self.handle = handle
        """The run as the client has it, for `stack.call`."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.handle.run_id

    @property
    def thread(self) -> str:
        """The conversation it belongs to."""
        return self.handle.thread

    def look(self) -> FinishedRun:
        """Return the run as it stands now."""
        return self._stack.call(lambda _: look(self.handle))

    def wait(self, timeout: float = PATIENCE, *, approve: Approve | None = None) -> FinishedRun:
        """Wait for its end, whatever that is, and return it.

        *approve* decides on calls that wait for a person: all of them, or each by what the function says of it.

        Raises:
            RunWaits: it waits for a person, and nothing here decides.
            TimeoutError: it has not ended within *timeout* seconds (before `time_scale`).

        """
        __tracebackhide__ = True

        async def body(_: Any) -> FinishedRun:
            async with self._within(timeout, "ended"):
                while True:
                    status = await self.handle.status()
                    if status.ended:
                        return await look(self.handle)
                    if status.approvals and approve is not None:
                        await self._decide(approve)
                    elif status.approvals or status.in_doubt:
                        raise RunWaits(await self._waits())
                    await asyncio.sleep(_POLL)

        return self._stack.call(body)

    async def _decide(self, approve: Approve) -> None:
        for asked in await self.handle.approvals():
            if asked.state != "pending":
                continue
            if approve if isinstance(approve, bool) else approve(asked):
                await self.handle.approve(str(asked.step_no), actor="test")
            else:
                await self.handle.reject(str(asked.step_no), reason="rejected by the test", actor="test")

    async def _waits(self) -> str:
        now = await look(self.handle)
        pending = [f"approval of step {each.step_no}" for each in now.approvals if each.state == "pending"]
        doubts = [f"word on step {row.step_no}, {row.tool}" for row in now.steps if row.state == "in_doubt"]
        return (
            f"the run waits for a person: {', '.join(pending + doubts)}. Give approve=True or a function, or start it "
            f"with run_agent.start(…) and call approve, reject or resolve.\n{story(now)}"
        )

    def until(self, kind: str, *, tool: str | None = None, timeout: float = PATIENCE) -> Event:
        """Wait for the first event of this kind (and of this tool), and return it; what happened before counts too.

        Raises:
            TimeoutError: it has not come within *timeout* seconds, or the run has ended without it.

        """
        __tracebackhide__ = True

        async def body(_: Any) -> Event:
            async with self._within(timeout, f"come to {kind}{f' of {tool}' if tool else ''}"):
                async for event in self.handle.events():
                    if event.kind == kind and tool in (None, event.data.get("tool")):
                        return event
            raise TimeoutError(f"the run ended without {kind}.\n{story(await look(self.handle))}")

        return self._stack.call(body)

    def until_trouble(self, *, timeout: float = PATIENCE) -> list[str]:
        """Wait until a step has failed and waits to be tried again, and return what Temporal says of it.

        Raises:
            TimeoutError: none has within *timeout* seconds, or the run has ended.

        """
        __tracebackhide__ = True

        async def body(_: Any) -> list[str]:
            async with self._within(timeout, "come to a failed step"):
                while not (await self.handle.status()).ended:
                    trouble = await self.handle.trouble()
                    if trouble:
                        return trouble
                    await asyncio.sleep(_POLL)
            raise TimeoutError(f"the run ended without a step that is tried again.\n{story(await look(self.handle))}")

        return self._stack.call(body)

    def until_called(self, tool: str, *, timeout: float = PATIENCE) -> None:
        """Wait until *tool* has been called: the moment to kill a worker in the middle of it.

        The ledger tells this of every class but `pure`; of a `pure` tool, that the model has asked for it.

        Raises:
            TimeoutError: it was not within *timeout* seconds, or the run has ended without it.

        """
        __tracebackhide__ = True

        async def body(_: Any) -> None:
            async with self._within(timeout, f"called {tool}"):
                while True:
                    events = await self.handle.recorded()
                    if await self._called(tool, events):
                        return
                    if any(event.kind in LAST_KINDS for event in events):
                        break
                    await asyncio.sleep(_POLL / 2)
            raise TimeoutError(f"the run ended without a call of {tool}.\n{story(await look(self.handle))}")

        self._stack.call(body)

    async def _called(self, tool: str, events: list[Event]) -> bool:
        rows: list[StepView] = [row for row in await self.handle.steps() if row.tool == tool]
        if rows:
            return any(row.sends or row.effect in ("local_tx", "pure") for row in rows)
        definition = await self.handle.definition()
        pure = definition is not None and any(each.name == tool and each.effect == "pure" for each in definition.tools)
        calls = [call["tool"] for event in events if event.kind == "replied" for call in event.data.get("calls") or []]
        return pure and tool in calls

    def approve(self, call: str | int | None = None, *, args: dict[str, Any] | None = None) -> None:
        """Approve a pending call, with other arguments if given; as `RunHandle.approve`."""
        self._stack.call(lambda _: self.handle.approve(_name(call), args=args, actor="test"))

    def reject(self, call: str | int | None = None, *, reason: str) -> None:
        """Reject a pending call; as `RunHandle.reject`."""
        self._stack.call(lambda _: self.handle.reject(_name(call), reason=reason, actor="test"))

    def resolve(self, step: int, **word: Any) -> None:
        """Say what became of a call in doubt; as `RunHandle.resolve`."""
        self._stack.call(lambda _: self.handle.resolve(step, **word))

    def stop(self, reason: str | None = None) -> None:
        """Stop the run; as `RunHandle.stop`."""
        self._stack.call(lambda _: self.handle.stop(reason, actor="test"))

    def _within(self, timeout: float, what: str) -> _Patience:
        return _Patience(self, self._stack.settings.scaled(timeout), what)


def _name(call: str | int | None) -> str | None:
    return None if call is None else str(call)


class _Patience:
    """Limits a wait, and tells when it is over how the run stood."""

    def __init__(self, running: Running, seconds: float, what: str) -> None:
        self._running, self._seconds, self._what = running, seconds, what
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        try:
            await self._limit.__aexit__(*raised)
        except TimeoutError:
            now = await look(self._running.handle)
            trouble = await self._running.handle.trouble()
            lines = [f"the run has not {self._what} within {self._seconds:g} s.", story(now), *trouble]
            lines.append(f"Workers log to {self._running._stack.logs}.")
            raise TimeoutError("\n".join(lines)) from None


class RunAgent:
    """Starts runs in a test: call it to start one and wait, or `start` one and go on."""

    def __init__(self, stack: Stack, models: ScriptedModels | None) -> None:
        """Start runs on *stack*; *models* is None where agents use models of their own."""
        self._stack = stack
        self._models = models
        self._started: list[Running] = []

    def __call__(
        self,
        agent: str,
        text: str,
        *,
        replies: list[Any] | None = None,
        approve: Approve | None = None,
        timeout: float = PATIENCE,
        thread: str | None = None,
        message_id: str | None = None,
    ) -> FinishedRun:
        """Send *text* to *agent*, wait for the run's end, and return it, in whatever state it ended.

        Args:
            agent: its name.
            text: the message.
            replies: what the model replies, in order: text, or `{"call": {tool: arguments}}` and all that a script's
                reply may have. Unset: what `model_server.play` was given.
            approve: decides on calls that wait for a person: True, False, or a function of the approval.
            timeout: seconds to wait, before `time_scale`.
            thread: the conversation; unset, a new one.
            message_id: the same id again names the same run.

        Raises:
            RunWaits: it waits for a person, and *approve* is not given.
            TimeoutError: it did not end in time; the message has its story.
            InvalidInput, UnknownAgent, ThreadOwned: it could not be started.

        """
        __tracebackhide__ = True
        running = self.start(agent, text, replies=replies, thread=thread, message_id=message_id)
        return running.wait(timeout, approve=approve)

    def start(
        self,
        agent: str,
        text: str,
        *,
        replies: list[Any] | None = None,
        thread: str | None = None,
        message_id: str | None = None,
        mode: Mode = "next",
    ) -> Running:
        """Send *text* to *agent* and return its run at once; arguments as above."""
        __tracebackhide__ = True
        self._check(agent, scripted=replies is not None)
        if replies is not None and self._models is not None:
            self._models.reply(text, replies)
        handle = self._stack.call(
            lambda client: client.start(agent, text, thread=thread, message_id=message_id, mode=mode)
        )
        running = Running(self._stack, handle)
        self._started.append(running)
        return running

    def _check(self, agent: str, *, scripted: bool) -> None:
        """Refuse what would be answered by another model than the test thinks, and might cost money."""
        if self._models is None:
            if scripted:
                raise InvalidInput('replies are given, but the test is marked holdfast(model="own"): leave one out')
            return
        known = self._stack.agents().get(agent)
        if known is not None and (known.api_base or known.model.startswith("offline/")):
            has = f"api_base {known.api_base}" if known.api_base else f"the model {known.model}"
            raise InvalidInput(
                f"agent {agent!r} names {has}, so the scripted model server is not asked. Let the settings name it "
                '(HOLDFAST_API_BASE, HOLDFAST_MODEL), or mark the test holdfast(model="own").'
            )

    def close(self) -> None:
        """Stop what still runs, so that the next test is alone."""
        started, self._started = self._started, []
        for running in started:
            self._stack.call(lambda _, one=running: _stop(one.handle))  # type: ignore[misc]


async def _stop(handle: RunHandle) -> None:
    with suppress(HoldfastError, TimeoutError):  # it has ended meanwhile, or its stack is gone
        if not (await handle.status()).ended:
            await handle.stop("the test is over")
            await handle.result(_STOPPING)
