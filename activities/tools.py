"""The activity `tool_step`: finds tool and arguments, runs what is pure, and sends the rest through the ledger."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog
from temporalio import activity

from holdfast.activities.calls import ToolAttempt, arguments_of, fitting, step_of
from holdfast.activities.claims import TryAgain, settled_by, take
from holdfast.activities.deps import Deps, Here, here
from holdfast.activities.effects import EffectCall
from holdfast.activities.hooks import placed
from holdfast.activities.memory import MemoryToolRunner
from holdfast.activities.outcome import Outcome, commit_outcome, fill, recorded_outcome
from holdfast.activities.pure import run_pure
from holdfast.activities.stored import Stored
from holdfast.advice import GO_ON
from holdfast.agent import definition_hash
from holdfast.contracts import Activity, ToolDefinition, ToolOutcome, ToolStep
from holdfast.errors import ToolArgumentsInvalid
from holdfast.memory import ledger, runs
from holdfast.memory.ledger import Step
from holdfast.secrets import use
from holdfast.tools.builtin.longterm import LONG_TERM
from holdfast.tools.context import ToolContext

__all__ = ["ToolActivities"]

_HANDED_BACK = 12  # times by one worker, in a minute or more; then there is no newer code, and the model hears it
_REMEMBERED = 10_000  # calls that were handed back


class ToolActivities:
    """Carries out one tool call; every call ends in its slot, or waits for a person."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name=Activity.TOOL_STEP)
    async def tool_step(self, inp: ToolStep) -> ToolOutcome:
        """Return what became of the call."""
        at = await placed(self._deps, here(), inp)
        use(self._deps.secrets)
        if inp.unserved and not isinstance(self._deps.runner, MemoryToolRunner):
            runner = MemoryToolRunner(None, self._deps.settings, self._deps.pool)
            return await ToolActivities(self._deps.with_runner(runner)).tool_step(inp)
        step = step_of(at, inp)
        if inp.rejected is not None:
            text = f"rejected: a person did not allow this call. Reason: {inp.rejected}"
            return await commit_outcome(self._deps, at, inp, Outcome(text, status="error"))
        definition = await self._deps.definition(inp.definition)
        declared = next((tool for tool in definition.tools if tool.name == inp.tool), None)
        # Those two are no agent's own code: the memory process may have loaded an older agents file, or none.
        tool = LONG_TERM.get(inp.tool) if _routed(declared) else self._deps.tool(definition.name, inp.tool)
        if declared is None or tool is None:
            await self._leave_to_newer_code(step.key, definition.name, inp)
            return await self._gone(at, inp, step, f"error: the tool {inp.tool} is no longer there. {GO_ON}")
        try:
            args = fitting(tool, await arguments_of(self._deps, at, inp))
        except ToolArgumentsInvalid as exc:  # the tool's code changed since the call was accepted
            await self._leave_to_newer_code(step.key, definition.name, inp)
            return await self._gone(at, inp, step, f"error: {exc}")
        ctx = ToolContext(
            idempotency_key=step.key,
            tenant=at.tenant,
            thread=at.thread,
            run_id=inp.run_id,
            step_no=inp.step_no,
            attempt=at.attempt,
            deadline=time.monotonic() + declared.timeout,
            log=structlog.get_logger("holdfast.tool").bind(
                thread=at.workflow_id, run_id=inp.run_id, step_no=inp.step_no, tool=inp.tool
            ),
            _stored=Stored(self._deps.stored_pool, at.tenant, at.thread)
            if self._deps.stored_pool is not None
            else None,
        )
        attempt = ToolAttempt(self._deps, at, inp, step, declared, tool, args, ctx)
        return await (run_pure(attempt) if inp.effect == "pure" else EffectCall(attempt).run())

    async def _leave_to_newer_code(self, key: str, agent: str, inp: ToolStep) -> None:
        """Hand the call back, for a while, if other workers have newer code of this agent and the tool is in it.

        While workers are replaced one by one, new definitions meet old code. Nothing has been claimed yet. Temporal's
        count of attempts is of no use: it has the outages in it, in which nobody else could take the call either.
        """
        own = self._deps.agents.get(agent)
        async with self._deps.pool.acquire() as conn:
            known = await runs.agent(conn, agent, self._deps.settings.task_queue)
        if known is None or all(tool.name != inp.tool for tool in known[1].tools):
            return
        if own is None or known[0] != definition_hash(own.definition):
            handed_back = self._deps.handed_back
            tries = handed_back.get(key, 0) + 1
            if tries > _HANDED_BACK:
                return
            handed_back[key] = tries
            if len(handed_back) > _REMEMBERED:
                del handed_back[next(iter(handed_back))]
            raise TryAgain(f"this worker's code of {agent} is older than the call: another one has {inp.tool}")

    async def _gone(self, at: Here, inp: ToolStep, step: Step, text: str) -> ToolOutcome:
        """Answer for a call that this code cannot make.

        It may have been sent by code that could: without the tool nobody can look it up or repeat it, so it is claimed
        like a `once` call. Only if it is this attempt's to make does the model read that it cannot be made.
        """
        if inp.effect == "pure":
            async with self._deps.pool.acquire() as conn:
                done = await ledger.stored(conn, step.key)
            if done is not None:
                return await recorded_outcome(self._deps, at, inp, step.key, done[0])
            return await commit_outcome(self._deps, at, inp, Outcome(text, status="error"))
        step = replace(step, effect="once")
        claim = await take(self._deps, at, inp, step)
        settled = await settled_by(self._deps, at, inp, step, claim)
        if settled is not None:
            return settled
        outcome = Outcome(text, status="error")
        async with self._deps.pool.acquire() as conn, conn.transaction():
            if not await ledger.fail(conn, step.key, claim.fence, text, outcome.contract().model_dump(mode="json")):
                raise TryAgain("another attempt has taken this call over")
            seq = await fill(conn, self._deps, at, inp, outcome)
        if seq is not None:
            self._deps.notifier.poke(inp.run_id, seq)
        return outcome.contract()


def _routed(declared: ToolDefinition | None) -> bool:
    return declared is not None and declared.queue == "memory"
