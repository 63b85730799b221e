"""One run, as a client holds it: read it, follow it, decide on it. `Client.start` and `Client.get` make these."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, Literal

from holdfast.contracts import Decision, Receipt, Resolution, Resolved, StopRequest
from holdfast.errors import DecisionRefused, HoldfastError, InvalidInput, StackError, UnknownRun
from holdfast.link import NotRunning
from holdfast.memory import decisions, ledger
from holdfast.memory.database import Connection
from holdfast.reading import RunReader
from holdfast.views import RunStatus

__all__ = ["RunHandle", "check_prefix"]

_Outcome = Literal["done", "not_done", "abandon"]
_NAMED = 5  # calls of other runs that a refusal names
_SETTLING = 3.0  # what was accepted a moment ago, or is taken up again after a crash, is known to its workflow by then


class RunHandle(RunReader):
    """A run of one thread. Reading goes to PostgreSQL, a person's word to the thread's workflow."""

    async def trouble(self) -> list[str]:
        """Return what holds the thread's workflow up right now: steps that failed and are tried again. Mostly nothing.

        Raises:
            StackError: Temporal does not answer.

        """
        return await (await self._link.wire()).trouble(self.workflow_id)

    async def approve(
        self, call: str | None = None, *, args: dict[str, Any] | None = None, actor: str | None = None
    ) -> Receipt:
        """Approve a pending call, identified by its step number as text; may be left out if only one is pending.

        With *args*, the call is made with these arguments instead. Returns once the decision stands.

        Raises:
            DecisionRefused: nothing fits, it was decided already, or the arguments do not fit the tool.
            StackError: nobody took the decision within `client_patience`; saying it again is safe.

        """
        if args is not None:
            size = len(json.dumps(args).encode())
            if size > self._link.settings.decision_args_max:
                raise InvalidInput(
                    f"the edited arguments have {size} bytes; at most {self._link.settings.decision_args_max} may "
                    "travel with a decision. Reject the call with a reason that tells the model what to change."
                )
        return await self._decide(Decision(approve=True, run_id=self.run_id, call_id=call, args=args, actor=actor))

    async def reject(self, call: str | None = None, *, reason: str, actor: str | None = None) -> Receipt:
        """Reject a pending call; the model sees the *reason*. Otherwise as `approve`."""
        if len(reason) > 2000:
            raise InvalidInput(f"the reason has {len(reason)} characters; give it in at most 2,000")
        return await self._decide(Decision(approve=False, run_id=self.run_id, call_id=call, reason=reason, actor=actor))

    async def _decide(self, decision: Decision) -> Receipt:
        try:
            receipt = await self._say("decide", decision)
        except DecisionRefused as exc:
            raise await self._elsewhere(exc, "approval") from exc
        await self._until_audited(receipt)
        return receipt

    async def _elsewhere(self, refused: DecisionRefused, kind: str) -> DecisionRefused:
        """Return the refusal; if no call waits in this run, add the calls that wait in runs of agents that it asked."""
        calls = [call for call in await self.waiting() if call.kind == kind]
        if not calls or any(call.run_id == self.run_id for call in calls):
            return refused
        word = "approve" if kind == "approval" else "resolve"
        where = "; ".join(
            f"step {call.step_no} ({call.tool}) of run {call.run_id[:8]} of agent {call.agent}: "
            f"`holdfast {word} {call.run_id[:8]} {call.step_no}{'' if kind == 'approval' else ' …'}`"
            for call in calls[:_NAMED]
        )
        more = f"; and {len(calls) - _NAMED} more" if len(calls) > _NAMED else ""
        return DecisionRefused(
            f"No call waits in run {self.run_id[:8]} itself ({refused}). These calls wait in runs of agents that it "
            "asked: "
            f"{where}{more}."
        )

    async def stop(self, reason: str | None = None, *, actor: str | None = None) -> Receipt:
        """Stop the run: a step in flight is cancelled, and the ledger decides what became of it.

        The audit row of the request has the receipt's `decision_id`, and is written when the run ends.

        Raises:
            InvalidInput: the run has ended already.
            StackError: nobody took the request within `client_patience`.

        """
        if reason is not None and len(reason) > 500:
            raise InvalidInput(f"the reason has {len(reason)} characters; give it in at most 500")
        request = StopRequest(run_id=self.run_id, reason=reason, actor=actor)
        return await self._say("stop", request)

    async def resolve(
        self,
        step: int,
        *,
        done: str | None = None,
        not_done: bool = False,
        abandon: bool = False,
        actor: str | None = None,
    ) -> Receipt:
        """Settle a call in doubt: `done` with its result, `not_done`, or `abandon`. Give exactly one.

        Raises:
            InvalidInput: not exactly one of them is given.
            DecisionRefused: the step is not in doubt, or the word does not fit it (yet); the message says why.
            StackError: nobody took it within `client_patience`; saying it again is safe.

        """
        given: dict[_Outcome, bool] = {
            "done": done is not None,
            "not_done": not_done,
            "abandon": abandon,
        }
        chosen: list[_Outcome] = [outcome for outcome, said in given.items() if said]
        if len(chosen) != 1:
            raise InvalidInput("give exactly one of: done with its result, not_done, abandon")
        word = Resolution(
            step_no=step,
            outcome=chosen[0],
            result=done,
            run_id=self.run_id,
            actor=actor,
        )
        status = await self.status()
        if not status.ended:
            try:
                receipt = await self._say("resolve", word)
            except NotRunning:
                pass
            except DecisionRefused as exc:
                raise await self._elsewhere(exc, "in_doubt") from exc
            else:
                await self._until_audited(receipt)
                return receipt
        return await self._resolve_directly(word.model_copy(update={"decision_id": uuid.uuid4().hex}))

    async def _resolve_directly(self, word: Resolution) -> Receipt:
        """Settle a ledger row whose workflow has closed: nobody else will."""
        from holdfast.memory.resolve import resolve_step

        async def settle(conn: Connection) -> Resolved:
            async with conn.transaction():
                said, _ = await resolve_step(
                    conn, tenant=self._link.tenant, thread=self.thread, run_id=self.run_id, resolution=word
                )
            return said

        said = await self._link.read(settle)
        if not said.accepted:
            raise DecisionRefused(said.why)
        return Receipt(decision_id=word.decision_id or "", run_id=self.run_id, step_no=word.step_no)

    async def _say(self, name: str, word: Decision | Resolution | StopRequest) -> Receipt:
        """Send an update; for a moment also against a refusal, if the workflow may not know yet what we know.

        Each time under ids of its own: a refusal that the workflow has audited would be the answer to the same ones.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._link.settings.scaled(_SETTLING)
        while True:
            word_id = uuid.uuid4().hex
            word = word.model_copy(update={"decision_id": word_id})
            try:
                wire = await self._link.wire()
                return await wire.update(self.workflow_id, name, word, update_id=word_id, result_type=Receipt)
            except (InvalidInput, NotRunning) as exc:
                status = await self.status()
                if status.ended and name != "resolve":
                    raise self._too_late(name, status) from exc
                settling = (
                    status.state in ("accepted", "queued") or isinstance(exc, NotRunning) or await self._open(word)
                )
                if not settling or loop.time() > deadline:
                    if isinstance(exc, NotRunning) and name != "resolve":
                        raise StackError(
                            f"The workflow of thread {self.thread} does not run, though run {self.run_id} has not "
                            "ended. Workers take it up again within seconds: check that one is up "
                            "(`holdfast doctor`), then say it again."
                        ) from exc
                    raise
            await asyncio.sleep(0.5)

    async def _open(self, word: Decision | Resolution | StopRequest) -> bool:
        """Say whether PostgreSQL has this step in doubt, or an approval pending: the workflow hears a moment later."""
        if isinstance(word, Decision):
            asked = await self._link.read(lambda conn: decisions.of_run(conn, self.run_id))
            meant = [each for each in asked if word.call_id in (None, each["call_id"], str(each["step_no"]))]
            return any(each["state"] == "pending" for each in meant)
        if not isinstance(word, Resolution):
            return False
        row = await self._link.read(lambda conn: ledger.find(conn, self.run_id, word.step_no))
        return row is not None and row["state"] == "in_doubt"

    def _too_late(self, name: str, status: RunStatus) -> HoldfastError:
        if name == "stop":
            return InvalidInput(f"run {self.run_id} has ended already ({status.state}): there is nothing to stop")
        return DecisionRefused(f"run {self.run_id} has ended ({status.state}): no approval is pending")

    async def _until_audited(self, receipt: Receipt) -> None:
        """Wait until the word was carried out: a workflow only takes it."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._link.patience, 0.02
        while loop.time() < deadline:
            said = await self._link.read(lambda conn: decisions.audited(conn, receipt.decision_id))
            if said is not None:
                if not said.accepted:
                    raise DecisionRefused(f"refused: {said.detail.get('why') or 'it does not fit what is pending'}")
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)
        raise StackError(
            f"Decision {receipt.decision_id} was taken, but is not written down yet: no worker has come to it. "
            "It stands in the workflow's history and will be carried out; `holdfast doctor` shows what is missing."
        )


def check_prefix(run: str) -> str:
    """Return *run* in the spelling of run ids.

    Raises:
        UnknownRun: no run id begins so.

    """
    prefix = run.strip().lower()
    if not prefix or len(prefix) > 36 or set(prefix) - set("0123456789abcdef-"):
        raise UnknownRun(f"{run[:80]!r} is no run id. `holdfast runs` lists the runs there are.")
    return prefix
