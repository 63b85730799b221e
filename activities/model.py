"""The activity `model_step`: one model call over the thread, its reply committed together with its ledger row."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast import llm
from holdfast.activities.alone import alone
from holdfast.activities.answers import CORRECTION, check_model, correction, gave_up, problem_of
from holdfast.activities.attempts import only_believed_lost, watch
from holdfast.activities.bought import count_again, count_unrecorded
from holdfast.activities.calls import fitting
from holdfast.activities.deltas import DeltaWriter
from holdfast.activities.deps import Deps, Here, here
from holdfast.activities.hooks import Seen, Sent, placed, see_reply, see_request
from holdfast.activities.outcome import emit_notes
from holdfast.activities.patience import ask_again
from holdfast.activities.prices import unbound
from holdfast.activities.requests import build_request, digest_of, model_of, revealed, tokens_besides, window_limit
from holdfast.advice import CALL_AGAIN, OTHERS_NEXT, for_person
from holdfast.contracts import OPEN_STATES, PREVIEW, Activity, AgentDefinition, Call, ModelReply, ModelStep
from holdfast.errors import (
    ConfigurationError,
    ContextTooLong,
    HoldfastError,
    ModelUnavailable,
    StaleWriter,
    ToolArgumentsInvalid,
)
from holdfast.ids import args_hash, canonical_json, effect_key
from holdfast.llm import ModelRequest, ToolCallRequest, require_prices
from holdfast.memory import events, family, ledger, outbox, requests, runs, threads
from holdfast.memory.database import UNSTORABLE, Connection
from holdfast.memory.ledger import Step
from holdfast.memory.threads import ThreadRow
from holdfast.secrets import use

__all__ = ["ModelActivities"]

MODEL = "model"  # the tool name under which the ledger knows model calls
_NEARLY_FULL = 0.8
_TRIES_OF_THE_UNKNOWN = 5
_MOST_CALLS = 200  # of one reply: they travel in one payload
_WITHHELD = "withheld"
"""The role under which a thread has what stands for a reply that a plugin did not let pass."""

log = structlog.get_logger(__name__)


class _Lost(Exception):  # rolls the transaction back: another attempt was first
    pass


class ModelActivities:
    """Calls the model once per step; a recorded reply is returned, never bought again."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._under_way: dict[str, asyncio.Task[ModelReply]] = {}  # by key of the step
        self._unknown: Counter[str] = Counter()  # failures that nobody has a name for, by key of the step

    @activity.defn(name=Activity.MODEL_STEP)
    async def model_step(self, inp: ModelStep) -> ModelReply:
        """Return what the model decided, in ids and counts.

        On a starved machine Temporal may give an attempt up that is well: what it has asked for is paid, so it goes on,
        and the next attempt waits for the same reply, on this worker or on another.
        """
        at = here()
        step = Step(
            key=effect_key(at.scope(inp), inp.step_no, MODEL),
            run_id=inp.run_id,
            scope=at.scope(inp),
            step_no=inp.step_no,
            tool=MODEL,
            effect="pure",
            args_hash=inp.definition,
        )
        work = self._under_way.get(step.key)
        if work is None:
            work = self._under_way[step.key] = asyncio.create_task(self._alone(at, inp, step))
            work.add_done_callback(lambda _: self._under_way.pop(step.key))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if only_believed_lost():
                self._deps.spawn(self._see_out(work, at, inp.run_id))
            else:
                work.cancel()
            raise

    async def _see_out(self, work: asyncio.Task[ModelReply], at: Here, run_id: str) -> None:
        async def pointless() -> bool:
            async with self._deps.pool.acquire() as conn:
                run = await runs.by_id(conn, run_id)
            return run is None or run["state"] not in OPEN_STATES

        await watch(self._deps, at, work, pointless)
        await asyncio.wait([work])
        if not work.cancelled() and work.exception() is not None:
            log.info("a model call that Temporal gave up has failed", error=repr(work.exception()))

    async def _alone(self, at: Here, inp: ModelStep, step: Step) -> ModelReply:
        async with alone(self._deps, step.key, at.owner):
            return await self._take(at, inp, step)

    async def _take(self, at: Here, inp: ModelStep, step: Step) -> ModelReply:
        """Return the recorded reply, or have one and record it."""
        use(self._deps.secrets)
        at = await placed(self._deps, at, inp)
        definition = await self._deps.definition(inp.definition)
        settings = self._deps.settings
        check_model(definition, model_of(definition, settings))
        require_prices({definition.name: definition}, settings)  # the worker looked its own up when it started
        await self._deps.warm(model_of(definition, settings))
        async with self._deps.pool.acquire() as conn:
            done = await ledger.stored(conn, step.key)
            if done is not None:
                return ModelReply.model_validate(done[0])
            thread = await threads.find(conn, at.tenant, at.thread)
            if thread is None:
                raise StaleWriter(f"thread {at.thread} is not in the database")
            entries, ranges = await requests.sent_entries(conn, thread.id, inp.run_id, thread.window_from)
            hits = []
            if inp.recall_step is not None:
                hits = await outbox.get_recall(conn, inp.run_id, inp.recall_step)
            objection = await family.objection(conn, inp.run_id)
        last = entries[-1] if entries else None
        if last and last.run_id == inp.run_id and last.role == _WITHHELD:
            return ModelReply(status="invalid", seq=last.seq, error=str((last.body or {}).get("content")))
        if last and last.run_id == inp.run_id and last.role == "assistant" and not (last.body or {}).get("tool_calls"):
            # An earlier execution was cut off between the answer and the run's end.
            said = (last.body or {}).get("content")
            wrong = await problem_of(self._deps, definition, said, "stop")
            if definition.output is None or wrong is None:
                return ModelReply(seq=last.seq)
            return ModelReply(status="invalid", seq=last.seq, error=gave_up(definition.output, wrong, said))
        if objection is not None:  # not recorded: what is spent stays spent, and who has ended stays ended
            return ModelReply(status="over_budget" if objection[0] else "stopped", error=objection[1])
        unpriced = await unbound(self._deps, inp.run_id, definition)
        if unpriced is not None:
            raise ConfigurationError(unpriced)
        limit = window_limit(definition, settings)
        size = sum(entry.tokens for entry in entries) + tokens_besides(definition, hits)
        if size > limit:
            return await self._too_long(step, at)
        sent = await see_request(
            self._deps, at, inp, definition.name, build_request(definition, settings, entries, hits)
        )
        try:
            reply = await self._call(sent.request, inp, step)
        except ContextTooLong:
            return await self._too_long(step, at)
        try:
            seen = await see_reply(self._deps, at, inp, definition, reply, sent.notes)
            return await self._commit(at, inp, step, definition, sent, ranges, seen, size, limit)
        except _Lost:
            return await count_again(self._deps, step, at, reply)
        except asyncio.CancelledError:
            self._deps.spawn(count_unrecorded(self._deps, step, at, reply))
            raise
        except Exception as exc:  # such as a run that has ended meanwhile
            await count_unrecorded(self._deps, step, at, reply)
            if isinstance(exc, (ValueError, *UNSTORABLE)):  # each try would buy such a reply again
                raise ApplicationError(f"the reply cannot be stored: {exc!r}"[:2000], non_retryable=True) from exc
            raise

    async def _call(self, request: ModelRequest, inp: ModelStep, step: Step) -> llm.ModelReply:
        deltas = DeltaWriter(self._deps, inp.run_id, inp.step_no)
        guarded = self._deps.hooks.has("after_model") or self._deps.hooks.has("answer")
        began = time.monotonic()
        try:
            # What may yet be refused is not shown: nobody can take back tokens that were read.
            reply = await llm.complete(await revealed(request), on_delta=_unseen if guarded else deltas.add)
            self._unknown.pop(step.key, None)
            return reply
        except ModelUnavailable as exc:
            again = await ask_again(self._deps, step.key, exc, time.monotonic() - began)
            if again is exc:  # an exception that is its own cause has no end when Temporal converts it
                raise
            raise again from exc
        except HoldfastError:
            raise
        except Exception as exc:  # ours or the library's own fault: each try may cost money, so they are few
            # Not Temporal's count of attempts: those that an outage took have bought nothing.
            tries = self._unknown[step.key] = self._unknown[step.key] + 1
            if tries < _TRIES_OF_THE_UNKNOWN:
                raise
            del self._unknown[step.key]
            raise ApplicationError(
                f"the model call failed {tries} times: {type(exc).__name__}: {exc}"[:2000],
                type="ModelError",
                non_retryable=True,
            ) from exc
        finally:
            await deltas.close()

    async def _commit(
        self,
        at: Here,
        inp: ModelStep,
        step: Step,
        definition: AgentDefinition,
        sent: Sent,
        ranges: list[tuple[int, int]],
        seen: Seen,
        size: int,
        limit: int,
    ) -> ModelReply:
        """Append the reply, its slots and its ledger row in one transaction."""
        request, reply, usage = sent.request, seen.reply, seen.reply.usage
        digest = await digest_of(request, size)  # before anything is locked
        calls, size_of_reply = await asyncio.to_thread(self._read_reply, definition, inp, seen)
        out = ModelReply(
            tokens=usage.input_tokens + usage.output_tokens,
            cost_usd=reply.cost_usd or 0.0,
            unpriced=int(reply.cost_usd is None),
            preview=(reply.text or "")[:PREVIEW],
            compact=max(size, usage.input_tokens) + usage.output_tokens > _NEARLY_FULL * limit,
        )
        wrong = None
        if seen.withheld is not None:
            out.status, out.error = "invalid", seen.withheld
        elif not calls:
            wrong = await problem_of(self._deps, definition, reply.text, reply.finish_reason)

        async def write(conn: Connection) -> int:
            thread = await threads.lock_for_writer(conn, at.tenant, at.thread, inp.writer, at.execution)
            run = await runs.lock(conn, inp.run_id)
            if run is None or run["state"] not in OPEN_STATES:  # ended in Temporal, and nobody took the thread over yet
                raise StaleWriter(f"run {inp.run_id} has ended: nothing more is written to its thread")
            out.seq = await threads.append(
                conn,
                thread,
                run_id=inp.run_id,
                step_no=inp.step_no,
                role="assistant" if seen.withheld is None else _WITHHELD,
                body=reply.message,
                tokens=size_of_reply,
            )
            for call, why in calls:
                body = None if why is None else {"role": "tool", "tool_call_id": call.call_id, "content": why}
                call.seq = await threads.append(
                    conn,
                    thread,
                    run_id=inp.run_id,
                    step_no=call.step_no,
                    role="tool",
                    call_id=call.call_id,
                    body=body,
                )
            out.calls = [call for call, _ in calls]
            made = await self._correct(conn, thread, inp, definition, out, wrong, reply.text)
            if not await ledger.record_pure(conn, step, at.owner, out.model_dump(mode="json")):
                raise _Lost
            await requests.put(
                conn,
                inp.run_id,
                inp.step_no,
                definition=inp.definition,
                ranges=ranges,
                recall_step=inp.recall_step,
                params={"model": request.model}
                | ({"native": True} if request.response_format else {})
                | ({"api_base": request.api_base} if request.api_base else {})
                | ({"changed": sent.change} if sent.change else {}),
                digest=digest,
            )
            await sent.store(conn, at.tenant, thread.id)
            await runs.add_usage(conn, inp.run_id, usage.input_tokens, usage.output_tokens, reply.cost_usd, rounds=1)
            await events.drop_deltas(conn, inp.run_id, inp.step_no)
            await emit_notes(conn, inp.run_id, inp.step_no, sent.notes)
            seq = await events.emit(
                conn,
                inp.run_id,
                "replied",
                step=inp.step_no,
                text=(reply.text or "")[:500],
                calls=[
                    {"step": call.step_no, "call_id": call.call_id, "tool": call.tool, "args": asked.arguments[:200]}
                    | ({} if why is None else {"error": for_person(why)[:500]})  # it is not made
                    for (call, why), asked in zip(calls, reply.tool_calls, strict=True)
                ],
                tokens_in=usage.input_tokens,
                tokens_out=usage.output_tokens,
                cost_usd=out.cost_usd,
                **({"unpriced": 1} if out.unpriced else {}),
                seconds=round(reply.latency_s, 3),
                model=reply.model,
                seq=out.seq,
            )
            if wrong is not None and definition.output is not None:
                seq = await events.emit(
                    conn,
                    inp.run_id,
                    "invalid",
                    step=inp.step_no,
                    why=wrong[:500],
                    correction=made,
                    corrections=definition.output.corrections,
                )
            return seq

        self._deps.notifier.poke(inp.run_id, await self._deps.insist(write))  # an outage shall not have it bought again
        return out

    def _read_reply(
        self, definition: AgentDefinition, inp: ModelStep, seen: Seen
    ) -> tuple[list[tuple[Call, str | None]], int]:
        """Return calls and tokens of a reply, which may be megabytes: off the loop, before anything is locked."""
        calls = [
            self._read_call(definition, inp, number, call, asks=call.id in seen.asks)
            for number, call in enumerate(seen.reply.tool_calls)
        ]
        return calls, threads.tokens_of(json.dumps(seen.reply.message, ensure_ascii=False))

    async def _correct(
        self,
        conn: Connection,
        thread: ThreadRow,
        inp: ModelStep,
        definition: AgentDefinition,
        out: ModelReply,
        wrong: str | None,
        text: str | None,
    ) -> int:
        """Ask again, in the transaction that has the reply, or say that this was the last time; return which it is."""
        if wrong is None or definition.output is None:
            return 0
        out.status = "invalid"
        # Counted in the thread, not by the workflow: the same after a Reset, and for who takes the run over.
        made = await threads.count_of_run(conn, inp.run_id, CORRECTION)
        if made >= definition.output.corrections:
            out.error = gave_up(definition.output, wrong, text)
            return 0
        body = correction(definition.output, wrong)
        await threads.append(conn, thread, run_id=inp.run_id, step_no=inp.step_no, role=CORRECTION, body=body)
        return made + 1

    def _read_call(
        self, definition: AgentDefinition, inp: ModelStep, number: int, asked: ToolCallRequest, *, asks: bool = False
    ) -> tuple[Call, str | None]:
        """Return the call as the workflow gets it, and if it is malformed the error the model will read."""
        call = Call(step_no=inp.step_no + 1 + number, call_id=asked.id, tool=asked.name[:64], seq=0)
        declared = next((tool for tool in definition.tools if tool.name == asked.name), None)
        why: str | None = None
        args: dict[str, object] = {}
        text = ""
        if number >= _MOST_CALLS:
            why = f"error: one reply may contain at most {_MOST_CALLS} calls. {OTHERS_NEXT}"
        elif declared is None:
            names = ", ".join(tool.name for tool in definition.tools) or "none"
            why = f"error: there is no tool {asked.name[:64]!r}. The tools are: {names}"
        else:
            try:
                parsed = json.loads(asked.arguments or "{}")
                if not isinstance(parsed, dict):
                    raise ToolArgumentsInvalid("the arguments must be one JSON object")
                args = parsed
                text = canonical_json(args)
                text.encode()  # a lone surrogate has no bytes
                self._validate(definition.name, asked.name, args)
            except (ValueError, RecursionError, ToolArgumentsInvalid) as exc:
                why = f"error: the arguments of {asked.name} cannot be used: {exc}. {CALL_AGAIN}"
        if why is not None:
            call.error = True
            call.state = "done"
            call.args_hash = args_hash({"malformed": asked.arguments})
            return call, why
        call.args_hash = args_hash(args)
        call.args = text if len(text.encode()) <= self._deps.settings.args_inline else None
        if declared is not None:
            call.effect = declared.effect
            call.timeout = declared.timeout
            call.settle = declared.settle
            call.memory_queue = declared.queue == "memory"
            call.agent, call.handoff = declared.agent, declared.handoff
            if declared.approval == "always" or asks:
                call.state = "approval"
        return call, None

    def _validate(self, agent: str, tool: str, args: dict[str, object]) -> None:
        """Check arguments with the tool's own code, where this worker has it."""
        found = self._deps.tool(agent, tool)
        if found is not None:
            fitting(found, args)

    async def _too_long(self, step: Step, at: Here) -> ModelReply:
        """Record that nothing was sent: after a Reset the window has moved, and steps must be numbered as they were."""
        out = ModelReply(status="too_long")
        async with self._deps.pool.acquire() as conn, conn.transaction():
            if await ledger.record_pure(conn, step, at.owner, out.model_dump(mode="json")):
                return out
            done = await ledger.stored(conn, step.key)
        return out if done is None else ModelReply.model_validate(done[0])


def _unseen(_: str) -> None:
    """Take a piece of a reply that nobody may read yet."""
