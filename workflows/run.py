"""One run, from its place in the thread to its end: rounds of a model call and its tools, within budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from holdfast.contracts import (
    PREVIEW,
    Activity,
    BeginRun,
    Begun,
    Carry,
    Compact,
    Compacted,
    Ended,
    EndRun,
    ModelReply,
    ModelStep,
    Recall,
    Recalled,
    RecallMissed,
    Remember,
    Remembered,
    Run,
    RunState,
    ThreadResult,
)
from holdfast.visible import first_line
from holdfast.workflows import children, details, options, policy
from holdfast.workflows.calls import Round
from holdfast.workflows.refusals import Refusals

__all__ = ["RunLoop", "tell"]

AGENT = SearchAttributeKey.for_keyword("HoldfastAgent")
TENANT = SearchAttributeKey.for_keyword("HoldfastTenant")
STATE = SearchAttributeKey.for_keyword("HoldfastState")
NEEDS_APPROVAL = SearchAttributeKey.for_bool("HoldfastNeedsApproval")
COST = SearchAttributeKey.for_float("HoldfastCostUsd")
PARENT = SearchAttributeKey.for_keyword("HoldfastParentRun")

_SAID = 2000  # characters of an error that travel in a history
_SHOWN = 200  # of those, in the result of the workflow


class _Finished(Exception):  # carries the end of a run out of its rounds
    def __init__(
        self, state: RunState, *, error: str | None = None, answer_seq: int | None = None, preview: str = ""
    ) -> None:
        super().__init__(state)
        self.state, self.error, self.answer_seq, self.preview = state, error, answer_seq, preview


class RunLoop:
    """Works on one run; all that must survive continue-as-new is in `carry`."""

    def __init__(
        self,
        carry: Carry,
        should_roll: Callable[[], bool],
        keep: Callable[[asyncio.Task[None]], None],
        refusals: Refusals,
    ) -> None:
        self._carry = carry
        self._should_roll = should_roll
        self._keep = keep
        self._refusals = refusals

    async def work(self, run: Run) -> bool:
        """Carry the run on to its end; False: roll the workflow over first, then call this again."""
        try:
            await self._begin(run)
            while True:
                if not await self._round(run):
                    return False
        except _Finished as end:
            await self._end(run, end)
        except ActivityError as exc:
            if is_cancelled_exception(exc):
                raise asyncio.CancelledError from exc  # the workflow is cancelled: whoever did that ends the run
            # Only what no retry can mend gets here: its activity said so.
            cause = exc.cause
            message = cause.message if isinstance(cause, ApplicationError) else str(cause or exc)
            await self._end(run, _Finished(RunState.FAILED, error=message[:_SAID]))
        return True

    def _step(self, run: Run) -> dict[str, Any]:
        self._carry.step_no += 1
        run.steps += 1
        carry = self._carry
        return {"writer": carry.writer, "scope": carry.scope, "run_id": run.run_id, "step_no": carry.step_no}

    async def _begin(self, run: Run) -> None:
        self._check_stop(run)
        if not run.begun:
            begin = BeginRun(definition=run.definition, **self._step(run))
            base: Begun = await self._do(Activity.BEGIN_RUN, begin, Begun, "begin")
            if base.over is not None:  # as after a Reset, or where its message came again as it ended
                self._carry.step_no = base.step_no
                raise _Finished(base.over)
            if base.moved is not None:
                children.move(run, base.moved)
                run.budget = base.moved.budget
            self._carry.step_no = base.step_no
            run.begun, run.rounds, run.steps = True, base.rounds, base.steps + 1
            run.tokens, run.cost_usd, run.unpriced = base.tokens, base.cost_usd, base.unpriced
            tenant = workflow.info().workflow_id.partition(":")[0]
            found = [AGENT.value_set(run.agent), TENANT.value_set(tenant), STATE.value_set(RunState.RUNNING.value)]
            if run.parent is not None:
                found.append(PARENT.value_set(run.parent))
            workflow.upsert_search_attributes(found)
        if run.memory and not run.recalled:
            await self._recall(run)

    async def _round(self, run: Run) -> bool:
        if run.calls:
            await self._calls(run)
        self._check_stop(run)
        if run.calls or self._should_roll():
            return False
        spent = policy.budget_spent(run)
        if spent is not None:
            raise _Finished(RunState.OVER_BUDGET, error=f"over budget: {spent}")
        await self._join(run)
        if run.compact:
            await self._compact(run)
        reply = await self._model(run)
        if reply.status == "too_long":
            if not await self._compact(run):
                raise _Finished(
                    RunState.FAILED,
                    error="the message alone does not fit the model's window: shorten it",
                )
            return True
        if reply.status in ("over_budget", "stopped"):
            raise _Finished(RunState(reply.status), error=reply.error)
        run.rounds += 1
        run.tokens += reply.tokens
        run.cost_usd += reply.cost_usd
        run.unpriced += reply.unpriced
        run.compact = reply.compact
        self._carry.step_no += len(reply.calls)
        run.steps += len(reply.calls)
        if reply.status == "invalid":
            if reply.error is not None:
                raise _Finished(RunState.FAILED, error=reply.error[:_SAID])
            return True
        if not reply.calls:
            raise _Finished(RunState.DONE, answer_seq=reply.seq, preview=reply.preview)
        run.calls, run.asked = reply.calls, False
        repeated = policy.count_repeat(run)
        if repeated is not None:
            raise _Finished(RunState.LOOPING, error=f"going in circles: {repeated}")
        return True

    async def _calls(self, run: Run) -> None:
        for call in run.calls:
            if call.error:
                call.state = "done"
        needs_approval = any(call.state == "approval" for call in run.calls)
        if needs_approval and not run.asked:
            self._show(run, RunState.WAITING, approval=True)
        if await Round(self._carry, run, self._should_roll, self._keep).finish():
            run.failures = ", ".join(sorted({call.tool for call in run.calls if call.failed}))[:PREVIEW]
            run.calls = []
            # Not by what the calls were at first: after a roll-over a decision may come with the first task or, when
            # that one is done again, before it. Histories from before the mend go by it all the same.
            if run.asked and (workflow.patched("shown-when-asked") or needs_approval):
                self._show(run, RunState.RUNNING, approval=False)

    async def _model(self, run: Run) -> ModelReply:
        details.show(self._carry)
        failed = f", after {run.failures} failed" if run.failures else ""
        handle = options.start(
            Activity.MODEL_STEP,
            ModelStep(definition=run.definition, recall_step=run.recall_step, **self._step(run)),
            ModelReply,
            self._carry.limits,
            summary=f"{run.agent[:PREVIEW]} round {run.rounds + 1}{failed}",
            timeout=timedelta(seconds=self._carry.limits.model_timeout + self._carry.limits.hook_time + 30),
        )
        await workflow.wait_condition(lambda: handle.done() or run.stop is not None)
        if not handle.done():
            handle.cancel()
            self._check_stop(run)
        reply: ModelReply = await handle
        return reply

    async def _join(self, run: Run) -> None:
        """Let steering messages join before the model speaks next, never between calls and their results."""
        carry = self._carry  # one that was accepted before this model call is stored first, and joins it
        await workflow.wait_condition(lambda: bool(run.stop) or all(each.mode != "steer" for each in carry.inbox))
        self._check_stop(run)
        for steer in [other for other in self._carry.queue if other.mode == "steer" and other.stop is None]:
            self._carry.queue.remove(steer)
            joined: Begun = await self._do(
                Activity.BEGIN_RUN,
                # No step of its own: after a Reset it has joined already, and numbers must not shift.
                BeginRun(
                    writer=self._carry.writer,
                    scope=self._carry.scope,
                    run_id=steer.run_id,
                    step_no=self._carry.step_no,
                    into=run.run_id,
                ),
                Begun,
                "steer",
            )
            if joined.over is not None:  # nobody would answer it there: it becomes a run of its own
                self._carry.queue.insert(0, steer)
                raise _Finished(joined.over)
            self._tell(steer)

    async def _compact(self, run: Run) -> bool:
        run.compact = False
        done: Compacted = await self._do(
            Activity.COMPACT, Compact(definition=run.definition, **self._step(run)), Compacted, "compact"
        )
        return done.changed

    async def _recall(self, run: Run) -> None:
        ref = self._step(run)
        limits = self._carry.limits
        try:
            found: Recalled = await options.start(
                Activity.RECALL,
                Recall(**ref),
                Recalled,
                limits,
                summary="recall",
                queue=limits.memory_queue,
                retry=options.MEMORY_ONCE,
                schedule_to_start=timedelta(seconds=limits.memory_wait),
                timeout=timedelta(seconds=5 * limits.memory_wait),
            )
            run.recall_step = ref["step_no"] if found.count else None
        except ActivityError as exc:
            if is_cancelled_exception(exc):
                raise
            await self._do(Activity.RECALL_MISSED, RecallMissed(**ref), type(None), "memory unavailable")
        run.recalled = True

    async def _end(self, run: Run, end: _Finished) -> None:
        if any(call.child is not None and call.state != "done" for call in run.calls):
            run.stop = run.stop or end.error or end.state.value
            self._keep(asyncio.create_task(children.stop_all(self._carry, run.calls, run.stop)))
        asked = run.stop_request
        ended: Ended = await self._do(
            Activity.END_RUN,
            EndRun(
                state=end.state,
                error=end.error,
                answer_seq=end.answer_seq,
                steps=run.steps,
                memory=run.memory,
                stop=asked,
                **self._step(run),
            ),
            Ended,
            f"end: {end.state}",
        )
        run.calls = []
        if run.stop_request is not None and asked is None:
            self._refusals.note(run.stop_request, f"it came too late: the run is {ended.state.value}")
        run.stop_request = None
        said = ended if ended.before else end  # what is on record counts
        self._carry.brief = run.notify is not None
        self._carry.last = ThreadResult(
            run_id=run.run_id,
            agent=run.agent,
            state=ended.state.value,
            question=run.preview,
            answer=first_line(said.preview, PREVIEW),
            error=said.error[:_SHOWN] if said.error is not None else None,
        )
        # Where a price is not known, the sum of the others would say less than was spent.
        cost = COST.value_unset() if run.unpriced else COST.value_set(run.cost_usd)
        workflow.upsert_search_attributes([STATE.value_set(ended.state.value), NEEDS_APPROVAL.value_set(False), cost])
        if ended.outbox:
            self._keep(asyncio.create_task(self._remember(run)))
        self._tell(run)

    async def _remember(self, run: Run) -> None:
        limits = self._carry.limits
        try:
            await options.start(
                Activity.REMEMBER,
                Remember(run_id=run.run_id),
                Remembered,
                limits,
                summary="remember",
                queue=limits.memory_queue,
                retry=options.MEMORY_ONCE,
                schedule_to_start=timedelta(seconds=limits.memory_wait),
                timeout=timedelta(seconds=10 * limits.memory_wait),
            )
        except ActivityError:
            workflow.logger.info("memory is unavailable: the outbox keeps what run %s leaves", run.run_id)

    def _tell(self, run: Run) -> None:
        if run.notify is not None:
            self._keep(asyncio.create_task(tell(run)))

    async def _do(self, activity: Activity, arg: Any, result_type: type, summary: str) -> Any:
        return await options.execute(activity, arg, result_type, self._carry.limits, summary=summary[:PREVIEW])

    def _check_stop(self, run: Run) -> None:
        if run.stop is not None:
            raise _Finished(RunState.STOPPED, error=run.stop)

    def _show(self, run: Run, state: RunState, *, approval: bool) -> None:
        workflow.upsert_search_attributes([STATE.value_set(state.value), NEEDS_APPROVAL.value_set(approval)])


async def tell(run: Run) -> None:
    """Tell whoever asked that a run has ended; AskWorkflow also looks by itself now and then."""
    if run.notify is None:
        return
    try:
        await workflow.get_external_workflow_handle(run.notify).signal("ended", run.run_id)
    except Exception as exc:  # noqa: BLE001  # the asker may be gone: its own business
        workflow.logger.info("nobody to tell: %s", exc)
