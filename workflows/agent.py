"""AgentWorkflow: one thread, one writer. It lives while there is work and a little longer, rolling over in between."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from holdfast.contracts import (
    AGENT_WORKFLOW,
    Accepted,
    Activity,
    Admit,
    Admitted,
    Carry,
    ChildStart,
    Decision,
    Message,
    Receipt,
    Resolution,
    StopRequest,
    ThreadResult,
    ThreadStart,
    ThreadState,
)
from holdfast.errors import InvalidInput
from holdfast.ids import run_id_for, split_workflow_id
from holdfast.workflows import children, details, inbox, options
from holdfast.workflows.inputs import parse
from holdfast.workflows.refusals import Refusals
from holdfast.workflows.run import RunLoop, tell

_STOPPING = "the run is already being stopped"


@workflow.defn(name=AGENT_WORKFLOW)
class AgentWorkflow:
    """The durable loop of one thread. Its id is `tenant:thread`; messages come by the update `message`."""

    @workflow.init
    def __init__(self, given: Any = None) -> None:
        info = workflow.info()
        self._malformed, start = None, ThreadStart()
        try:
            start = parse(ThreadStart, given)
            if start.child is not None:
                inbox.check_message(start.child.message)
        except (ApplicationError, InvalidInput) as exc:  # raised here it would fail the task, and be tried for ever
            self._malformed = exc
        self._carry = start.carry or Carry(writer=info.first_execution_run_id, started=info.start_time)
        if start.child is not None and start.carry is None and self._malformed is None:
            self._carry.scope = start.child.scope
            self._take_child(start.child)
        self._carry.executions += 1
        self._admitting = False
        self._leaving = False
        self._background: set[asyncio.Task[None]] = set()
        self._refusals = Refusals(self._carry, self._keep)

    # ------------------------------------------------------------------------------------ the loop

    @workflow.run
    async def run(self, given: Any = None) -> ThreadResult | None:
        """Work until the thread has been idle for a while, and return how its last run ended.

        The input, `{}` or none, is taken by `__init__`.
        """
        try:
            if self._malformed is not None:
                raise self._malformed
            split_workflow_id(workflow.info().workflow_id)
        except InvalidInput as exc:
            raise ApplicationError(str(exc), type="InvalidInput", non_retryable=True) from exc
        admitter = asyncio.create_task(self._admit_all())
        work = asyncio.create_task(self._work())
        try:
            await workflow.wait_condition(lambda: work.done() or admitter.done())
        except asyncio.CancelledError:
            work.cancel()
            await self._cancelled(admitter)
            admitter.cancel()
            raise
        if admitter.done():
            work.cancel()
            admitter.result()  # it ends only by an error no retry can mend, such as a newer writer
        admitter.cancel()
        work.result()
        return self._carry.last

    async def _work(self) -> None:
        carry = self._carry
        while True:
            await workflow.wait_condition(lambda: carry.opened)
            if carry.current is None and carry.queue:
                carry.current = carry.queue.pop(0)
            if carry.current is not None:
                if not await self._loop().work(carry.current):
                    await self._roll()
                carry.current = None
                details.show(carry)
                continue
            if self._should_roll():
                await self._roll()
            await self._idle()
            # What goes on beside, such as remembering, is waited for without a timer.
            await workflow.wait_condition(lambda: bool(carry.queue) or (self._quiet() and not carry.inbox))
            if not carry.queue:
                return
            self._leaving = False

    def _loop(self) -> RunLoop:
        return RunLoop(self._carry, self._should_roll, self._keep, self._refusals)

    async def _idle(self) -> None:
        """Wait a while for the next message; not on a thread that another run asked for, where none is expected."""
        limits = self._carry.limits
        seconds = min(limits.linger, limits.linger_asked) if self._carry.brief else limits.linger
        if seconds:
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: bool(self._carry.queue) or self._leaving,
                    timeout=timedelta(seconds=seconds),
                    timeout_summary=f"idle: ends in {seconds:g} s unless a message comes",
                )

    def _quiet(self) -> bool:
        return not self._admitting and not self._background

    def _should_roll(self) -> bool:
        info = workflow.info()
        return info.is_continue_as_new_suggested() or info.get_current_history_length() >= self._carry.limits.roll_after

    async def _roll(self) -> None:
        # An activity in flight would be cancelled by continue-as-new: admissions and remembering end first. A message
        # may come even after this look: what is not admitted is still in the inbox, and goes along.
        await workflow.wait_condition(lambda: self._quiet() and not self._carry.inbox)
        workflow.continue_as_new(
            ThreadStart(carry=self._carry), task_timeout=timedelta(seconds=self._carry.limits.task_timeout)
        )

    def _say(self, remark: str) -> None:
        details.show(self._carry, remark)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _cancelled(self, admitter: asyncio.Task[None]) -> None:
        """Temporal was asked to cancel this workflow: stop the run under way and all that wait."""
        carry = self._carry
        # What was accepted is stored first, or it would be lost with this execution.
        await workflow.wait_condition(lambda: admitter.done() or not (self._admitting or carry.inbox))
        for run in ([carry.current] if carry.current else []) + carry.queue:
            run.stop = run.stop or "cancelled in Temporal"
            await self._loop().work(run)
        await workflow.wait_condition(lambda: admitter.done() or (self._quiet() and not carry.inbox))

    # ------------------------------------------------------------------------------------ admission

    async def _admit_all(self) -> None:
        """Store messages as soon as they come, also beside steps and approvals."""
        carry = self._carry
        while True:
            await workflow.wait_condition(lambda: bool(carry.inbox) or not carry.opened)
            batch = carry.inbox[: inbox.BATCH]  # they leave the inbox when they are stored, not before
            self._admitting = True
            admitted: Admitted = await options.execute(
                Activity.ADMIT,
                Admit(
                    writer=carry.writer,
                    started=carry.started or workflow.info().start_time,
                    messages=batch,
                    open=not carry.opened,
                    child=carry.child,
                ),
                Admitted,
                carry.limits,
                summary=f"admit {len(batch)} message{'s' if len(batch) != 1 else ''}",
            )
            del carry.inbox[: len(batch)]
            if admitted.limits is not None:
                carry.limits = admitted.limits
            held = {run.run_id for run in carry.queue} | ({carry.current.run_id} if carry.current else set())
            carry.queue.extend(run for run in admitted.runs if run.run_id not in held)
            if not carry.opened:
                carry.scope = admitted.scope
            if carry.child is not None and carry.child.message in batch:
                for run in carry.queue:
                    if run.message_id == carry.child.message.message_id:
                        run.stop = run.stop or carry.child_stop
                        run.stop_request = run.stop_request or carry.child_stop_request
                carry.child = carry.child_stop = carry.child_stop_request = None
            carry.opened = True
            self._admitting = False
            for run in admitted.ended:
                self._keep(asyncio.create_task(tell(run)))

    # ------------------------------------------------------------------------------------ what comes in

    @workflow.update(name="message")
    def message(self, message: Message) -> Accepted:
        """Take a message. It is answered by the run named here; the same message id always names the same run."""
        tenant, thread = split_workflow_id(workflow.info().workflow_id)
        run_id = run_id_for(tenant, thread, message.message_id)
        known = message.message_id in self._carry.known
        if not known:
            self._check_queue(message)
            inbox.remember_known(self._carry, message.message_id)
        if not known or message.notify is not None:
            self._carry.inbox.append(message.model_copy(update={"queue": None}))
        return Accepted(run_id=run_id, known=known)

    def _check_queue(self, message: Message) -> None:
        """Refuse a message for the workers of another task queue; if idle, end, so that the next try starts there.

        Raises:
            ApplicationError: `ThreadElsewhere`; the sender tries again.

        """
        carry, mine = self._carry, self._carry.limits.task_queue
        if mine is None or message.queue in (None, mine):
            return
        if carry.opened and carry.current is None and not (carry.queue or carry.inbox or self._admitting):
            self._leaving = True
        raise ApplicationError(
            f"the thread's workflow runs on the task queue {mine!r}, and the message is for {message.queue!r}: "
            "send it again when the thread is idle",
            type=inbox.ELSEWHERE,
            non_retryable=True,
        )

    def _take_child(self, start: ChildStart) -> None:
        carry = self._carry
        if start.message.message_id not in [message.message_id for message in carry.inbox]:
            inbox.remember_known(carry, start.message.message_id)
            carry.child = start
            carry.inbox.append(start.message)

    @workflow.signal(name="child")
    def child(self, start: ChildStart) -> None:
        """Hear from a run that it has asked, or asks again: as in the start, where this runs already."""
        try:
            inbox.check_message(start.message)
            self._take_child(start)
        except InvalidInput as exc:
            self._say(f"a question was refused: {exc}")

    @workflow.signal(name="ended")
    def ended(self, run_id: str) -> None:
        """Hear that the run of another agent has ended, which a call here waits for."""
        children.hear(self._carry, run_id)

    @message.validator
    def _check_message(self, message: Message) -> None:
        split_workflow_id(workflow.info().workflow_id)
        inbox.check_message(message)
        inbox.check_room(self._carry, message)

    @workflow.update(name="decide")
    def decide(self, decision: Decision) -> Receipt:
        """Approve or reject a pending call. Whether the word stood is in the audit row of its decision id."""
        try:
            return self._decide(decision)  # an update is no proof of who sent it either, until our API signs them
        except InvalidInput as exc:
            raise self._refusals.add(decision, exc) from None

    @decide.validator
    def _check_decide(self, decision: Decision) -> None:
        inbox.check_decision(decision)
        inbox.check_turn(self._carry, *split_workflow_id(workflow.info().workflow_id), decision.run_id)

    @workflow.signal(name="decide")
    def decide_by_signal(self, decision: Decision) -> None:
        """Decide from the Web UI or any client; who signals is not verified."""
        try:
            inbox.check_decision(decision)
        except InvalidInput as exc:  # nor could it be audited
            self._say(f"a decision was refused: {exc}")
            return
        try:
            self._decide(decision)
        except InvalidInput as exc:
            self._refusals.add(decision, exc)
            self._say(f"a decision was refused: {exc}")

    def _decide(self, decision: Decision) -> Receipt:
        if (held := inbox.decided_by(self._carry, decision)) is not None:
            return self._receipt(decision.decision_id or "", held.step_no)
        call = inbox.find_pending(self._carry, decision)
        decision_id = decision.decision_id or workflow.uuid4().hex
        call.pending = decision.model_copy(update={"decision_id": decision_id, "verified": False})
        call.state = "deciding"
        return self._receipt(call.pending.decision_id or "", call.step_no)

    @workflow.update(name="resolve")
    def resolve(self, word: Resolution) -> Receipt:
        """Settle a call in doubt."""
        try:
            return self._resolve(word)
        except InvalidInput as exc:
            raise self._refusals.add(word, exc) from None

    @resolve.validator
    def _check_resolve(self, word: Resolution) -> None:
        inbox.check_resolution(word)
        inbox.check_turn(self._carry, *split_workflow_id(workflow.info().workflow_id), word.run_id)

    @workflow.signal(name="resolve")
    def resolve_by_signal(self, word: Resolution) -> None:
        """Resolve from the Web UI or any client."""
        try:
            inbox.check_resolution(word)
        except InvalidInput as exc:
            self._say(f"a resolution was refused: {exc}")
            return
        try:
            self._resolve(word)
        except InvalidInput as exc:
            self._refusals.add(word, exc)
            self._say(f"a resolution was refused: {exc}")

    def _resolve(self, word: Resolution) -> Receipt:
        if (held := inbox.resolved_by(self._carry, word)) is not None:
            return self._receipt(word.decision_id or "", held.step_no)
        call = inbox.find_doubt(self._carry, word)
        call.resolution = word.model_copy(update={"decision_id": word.decision_id or workflow.uuid4().hex})
        if call.state != "ready":  # of a call under way the ledger judges, and it goes on meanwhile
            call.state = "resolving"
        return self._receipt(call.resolution.decision_id or "", call.step_no)

    @workflow.update(name="stop")
    def stop(self, request: StopRequest) -> Receipt:
        """Stop a run: steps in flight are cancelled, the ledger decides what became of them."""
        try:
            return self._stop(request)
        except InvalidInput as exc:
            raise self._refusals.add(request, exc) from None

    @stop.validator
    def _check_stop(self, request: StopRequest) -> None:
        inbox.check_stop(request)

    @workflow.signal(name="stop")
    def stop_by_signal(self, request: StopRequest) -> None:
        """Stop from the Web UI or any client."""
        try:
            inbox.check_stop(request)
        except InvalidInput as exc:
            self._say(f"a stop was refused: {exc}")
            return
        try:
            self._stop(request)
        except InvalidInput as exc:
            self._refusals.add(request, exc)
            self._say(f"a stop was refused: {exc}")

    def _stop(self, request: StopRequest) -> Receipt:
        request = request.model_copy(update={"decision_id": request.decision_id or workflow.uuid4().hex})
        by = f" by {request.actor}" if request.actor else ""
        why = f"stopped{by}{': ' + request.reason if request.reason else ''}"
        try:
            run = inbox.find_run(self._carry, request.run_id)
        except InvalidInput:
            child = self._carry.child
            tenant, thread = split_workflow_id(workflow.info().workflow_id)
            if child is None or request.run_id != run_id_for(tenant, thread, child.message.message_id):
                raise
            if self._carry.child_stop is None:  # asked for, and not admitted yet
                self._carry.child_stop, self._carry.child_stop_request = why, request
            elif self._carry.child_stop_request != request:  # the same one may come twice
                self._refusals.note(request, _STOPPING)
            return Receipt(decision_id=request.decision_id or "", run_id=request.run_id)
        if run.stop is None:
            run.stop, run.stop_request = why, request  # its audit row is written with the end of the run
        elif run.stop_request != request:
            self._refusals.note(request, _STOPPING)
        return Receipt(decision_id=request.decision_id or "", run_id=run.run_id)

    @workflow.signal(name="settled")
    def settled(self, step_no: int) -> None:
        """Proof of a call in doubt came late: read its ledger row again."""
        for call in self._carry.current.calls if self._carry.current else []:
            if call.step_no == step_no and call.state == "in_doubt":
                call.state = "ready"
            elif call.step_no == step_no and call.state == "ready":
                call.settled = True  # its attempt has yet to tell of the doubt: kept until then

    @workflow.query(name="state")
    def state(self) -> ThreadState:
        """Return what the workflow knows, without the conversation."""
        carry = self._carry
        return ThreadState(
            current=carry.current,
            queued=[run.run_id for run in carry.queue],
            accepted=[message.message_id for message in carry.inbox],
            step_no=carry.step_no,
            executions=carry.executions,
        )

    def _receipt(self, decision_id: str, step_no: int) -> Receipt:
        run = self._carry.current
        return Receipt(decision_id=decision_id, run_id=run.run_id if run else "", step_no=step_no)
