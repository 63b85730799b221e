"""The tool calls of one round: started, decided, resolved, each as soon as it can be; all state is in the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, TimeoutType
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from holdfast.contracts import (
    PREVIEW,
    Activity,
    Asked,
    Call,
    Carry,
    Decision,
    RecordDecision,
    Recorded,
    RequestApprovals,
    Resolved,
    ResolveEffect,
    Run,
    Said,
    ToolOutcome,
    ToolStep,
)
from holdfast.workflows import children, details, options

__all__ = ["Round"]

_RECHECK = (30.0, 120.0, 600.0)  # seconds between looks at a call in doubt or a child, should its signal be lost
_LONGER = 6.0  # so many times longer each look at a run that waits for an approval waits than the one before
_LONGEST = 86_400.0  # seconds
_LOOK = 0  # the number of a look among the tasks, which are known by their steps

Keep = Callable[[asyncio.Task[None]], None]


class Round:
    """Carries the calls of `run.calls` through; `finish` may be left for continue-as-new and taken up again."""

    def __init__(self, carry: Carry, run: Run, should_roll: Callable[[], bool], keep: Keep) -> None:
        self._carry = carry
        self._run = run
        self._should_roll = should_roll
        self._keep = keep
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._words: dict[int, asyncio.Task[None]] = {}  # a person's words on calls under way, by step
        self._heard: set[str | None] = set()  # ids of the words that are being carried out
        self._looks = 0
        self._looked = 0  # at the approvals
        self._over = False  # a decision came to nothing, because the run has ended
        self._behind = False  # it was looked at them because a message waits behind this run

    async def finish(self) -> bool:
        """Wait until every call is done. False: the workflow should roll over first, or the run is to stop."""
        run = self._run
        try:
            if not run.asked:
                await self._ask()
            while True:
                details.show(self._carry)
                for call in run.calls:
                    step = self._step_of(call)
                    if step is not None:
                        self._tasks[call.step_no] = asyncio.create_task(step(self, call))
                    if self._has_word(call):
                        self._words[call.step_no] = asyncio.create_task(self._hear(call))
                if self._blocks():
                    self._look()
                if not self._tasks and not self._words and all(call.state == "done" for call in run.calls):
                    return True
                if run.stop is not None or (self._idle() and self._should_roll()):
                    return False
                await self._wait()
                for tasks in (self._tasks, self._words):
                    for number, task in list(tasks.items()):
                        if task.done():
                            del tasks[number]
                            task.result()
        finally:
            tasks_left = [*self._words.values(), *self._tasks.values()]
            for task in tasks_left:
                task.cancel()
            if tasks_left:
                await asyncio.gather(*tasks_left, return_exceptions=True)
            if run.stop is not None:
                self._hear_the_rest()

    def _hear_the_rest(self) -> None:
        """Carry out the words that came together with the stop: whoever was given a receipt finds it in the audit."""
        for call in self._run.calls:
            if call.resolution is not None and call.resolution.decision_id not in self._heard:
                self._keep(asyncio.create_task(self._settle(call)))
            elif call.state == "deciding" and call.pending and call.pending.decision_id not in self._heard:
                self._keep(asyncio.create_task(self._record(call)))

    def _idle(self) -> bool:
        return not self._tasks and not self._words

    def _actionable(self) -> bool:
        run = self._run
        return (
            run.stop is not None
            or any(task.done() for task in (*self._tasks.values(), *self._words.values()))
            or any(self._step_of(call) is not None or self._has_word(call) for call in run.calls)
            or self._blocks()
            or (self._idle() and self._should_roll())
        )

    def _asks(self) -> bool:
        return any(call.state == "approval" for call in self._run.calls)

    def _blocks(self) -> bool:
        """Whether the run may have ended, or a message waits behind it that it was not looked at for yet."""
        behind = bool(self._carry.queue) and not self._behind
        return (self._over or behind) and _LOOK not in self._tasks and self._asks()

    def _look(self) -> None:
        """See in the background whether this run still waits: a Reset may have come after a decision, or its end."""
        self._over, self._behind = False, self._behind or bool(self._carry.queue)
        self._tasks[_LOOK] = asyncio.create_task(self._ask())

    def _step_of(self, call: Call) -> _Step | None:
        """Return what is to be done for a call now, if anything."""
        if call.step_no in self._tasks or (call.state == "ready" and call.resolution is not None):
            return None
        if call.agent is None or call.state != "ready":
            return _STEPS.get(call.state)
        if not call.handoff:
            return Round._ask_child
        # What else the reply asked for is done first, by the agent that asked for it.
        others = (other for other in self._run.calls if not other.handoff or other.step_no < call.step_no)
        return Round._hand_off if all(other.state == "done" for other in others) else None

    def _has_word(self, call: Call) -> bool:
        return call.state == "ready" and call.resolution is not None and call.step_no not in self._words

    async def _whole(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something to its end, also when the run is stopped meanwhile."""
        task = asyncio.create_task(work)
        self._keep(task)
        await asyncio.shield(task)

    async def _ask_child(self, call: Call) -> None:
        # A child that may have been started is known, and can be told to stop.
        await self._whole(children.ask(self._carry, self._run, call))

    async def _child_result(self, call: Call) -> None:
        await children.result(self._carry, self._run, call)

    async def _hand_off(self, call: Call) -> None:
        await children.hand_off(self._carry, self._run, call)

    async def _wait(self) -> None:
        doubtful = [call for call in self._run.calls if call.state in ("in_doubt", "child")]
        timeout = None
        unclear = any(call.state == "in_doubt" for call in doubtful)
        looks_at = "look at calls in doubt" if unclear else "look after the agents that were asked"
        if doubtful:
            timeout = timedelta(seconds=_RECHECK[min(self._looks, len(_RECHECK) - 1)])
        elif self._asks() and _LOOK not in self._tasks:
            looks_at = "check whether this run still waits for a person"
            timeout = timedelta(seconds=min(self._carry.limits.look_after * _LONGER**self._looked, _LONGEST))
        try:
            await workflow.wait_condition(self._actionable, timeout=timeout, timeout_summary=looks_at)
        except TimeoutError:
            if not doubtful:
                self._looked = min(self._looked + 1, 20)
                self._look()
                return
            self._looks += 1
            for call in doubtful:
                if call.state == "in_doubt":
                    call.state = "ready"  # read its ledger row again: proof may have come late
                elif call.state == "child":
                    call.state = "answered"

    async def _ask(self) -> None:
        # Also what was decided before it was asked, as at a roll-over: a decision is recorded with its request.
        waiting = [call for call in self._run.calls if call.state in ("approval", "deciding")]
        if not waiting:
            return
        asked: Asked = await options.execute(
            Activity.REQUEST_APPROVALS,
            RequestApprovals(calls=waiting, definition=self._run.definition, **self._ref(waiting[0])),
            Asked,
            self._carry.limits,
            summary=f"ask for approval: {', '.join(call.tool for call in waiting)}"[:PREVIEW],
        )
        self._run.asked = True
        for call in waiting:
            call.shown = asked.shown.get(call.step_no, "")
            if call.step_no in asked.settled and call.state == "approval":
                call.state = "ready"
        for said in asked.said:
            for call in waiting:  # one that was decided meanwhile hears of it when that word is recorded
                if call.step_no == said.step_no and call.state == "approval":
                    self._decided(call, said)

    def _decided(self, call: Call, said: Said) -> None:
        """Let a decision count that was recorded before a Reset."""
        if not said.approve:
            call.state, call.pending = "rejected", Decision(approve=False, reason=said.reason)
        else:
            call.state, call.pending = "ready", None
            if said.args_hash is not None:
                call.edited, call.args, call.args_hash = True, None, said.args_hash

    def _ref(self, call: Call) -> dict[str, Any]:
        carry = self._carry
        return {"writer": carry.writer, "scope": carry.scope, "run_id": self._run.run_id, "step_no": call.step_no}

    async def _tool(self, call: Call) -> None:
        rejected = None
        if call.state == "rejected":
            rejected = (call.pending.reason if call.pending else None) or "no reason given"
        step = ToolStep(
            definition=self._run.definition,
            call_id=call.call_id,
            tool=call.tool,
            seq=call.seq,
            effect=call.effect,
            args=call.args,
            args_hash=call.args_hash,
            edited=call.edited,
            rejected=rejected,
            **self._ref(call),
        )
        if call.memory_queue and rejected is None:
            outcome = await self._with_memory(call, step)
        else:
            outcome = await self._send(call, step, f"{call.tool} {call.args or ''}")
        if outcome.status == "in_doubt":
            call.state = "in_doubt"
            if call.settled:  # proof has come before the attempt could tell of the doubt: read the row again
                call.state, call.settled = "ready", False
        else:
            call.state, call.pending = "done", None
            call.failed = outcome.preview if outcome.status == "error" and rejected is None else ""

    async def _with_memory(self, call: Call, step: ToolStep) -> ToolOutcome:
        """Let the memory worker carry the call out; if none takes it in time, an agent worker says so, or keeps it."""
        limits = self._carry.limits
        try:
            return await self._send(
                call,
                step,
                f"{call.tool} {call.args or ''}",
                queue=limits.memory_queue,
                schedule_to_start=timedelta(seconds=limits.memory_wait),
            )
        except ActivityError as exc:
            if not isinstance(exc.cause, TemporalTimeoutError) or exc.cause.type != TimeoutType.SCHEDULE_TO_START:
                raise
        without = step.model_copy(update={"unserved": True})
        return await self._send(call, without, f"{call.tool}: the memory worker does not answer")

    async def _send(self, call: Call, step: ToolStep, summary: str, **where: Any) -> ToolOutcome:
        limits = self._carry.limits
        timeout = options.tool_timeout(call, limits)
        outcome: ToolOutcome = await options.start(
            Activity.TOOL_STEP, step, ToolOutcome, limits, summary=summary[:PREVIEW], timeout=timeout, **where
        )
        return outcome

    async def _decide(self, call: Call) -> None:
        await self._whole(self._record(call))  # a decision that was taken has its audit row, also if the run is stopped

    async def _record(self, call: Call) -> None:
        decision = call.pending
        if decision is None:
            call.state = "approval"
            return
        self._heard.add(decision.decision_id)
        recorded: Recorded = await options.execute(
            Activity.RECORD_DECISION,
            RecordDecision(
                decision=decision,
                definition=self._run.definition,
                tool=call.tool,
                args_hash=call.args_hash,
                seq=call.seq,
                call_id=call.call_id,
                **self._ref(call),
            ),
            Recorded,
            self._carry.limits,
            summary=f"{'approve' if decision.approve else 'reject'} {call.tool}"[:PREVIEW],
        )
        if recorded.said is not None:
            self._decided(call, recorded.said)
        elif not recorded.accepted:
            call.state, call.pending = "approval", None
            self._over = recorded.over
        elif not decision.approve:
            call.state = "rejected"
        else:
            call.state, call.pending = "ready", None
            if decision.args is not None:
                call.edited, call.args, call.args_hash = True, None, recorded.args_hash

    async def _resolve(self, call: Call) -> None:
        await self._whole(self._settle(call))

    async def _hear(self, call: Call) -> None:
        """Carry out a word on a call under way: the ledger may have it in doubt before its attempt can tell.

        If the word is carried out, that attempt has nothing left to do, and whatever waits for its next try ends.
        """
        await self._whole(self._settle_under_way(call))

    async def _settle_under_way(self, call: Call) -> None:
        resolved = await self._carry_out(call)
        task = self._tasks.pop(call.step_no, None) if resolved.accepted else None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if call.state == "in_doubt":
            call.state = "ready"  # read its ledger row again

    async def _settle(self, call: Call) -> None:
        word = call.resolution
        if word is None:
            call.state = "in_doubt"
            return
        await self._carry_out(call)
        call.state = "ready"  # the ledger row tells how it stands, whether or not the word was carried out

    async def _carry_out(self, call: Call) -> Resolved:
        word = call.resolution
        if word is None:
            return Resolved(accepted=False)
        self._heard.add(word.decision_id)
        resolved: Resolved = await options.execute(
            Activity.RESOLVE_EFFECT,
            ResolveEffect(resolution=word, **self._ref(call)),
            Resolved,
            self._carry.limits,
            summary=f"{word.outcome} {call.tool}"[:PREVIEW],
        )
        call.resolution = None
        return resolved


_Step = Callable[[Round, Call], Coroutine[Any, Any, None]]
_STEPS: dict[str, _Step] = {
    "ready": Round._tool,
    "answered": Round._child_result,
    "rejected": Round._tool,
    "deciding": Round._decide,
    "resolving": Round._resolve,
}
