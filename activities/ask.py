"""Activities of AskWorkflow: they talk to the thread's workflow as any client would, and read the answer."""

from __future__ import annotations

import uuid
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from holdfast.activities.deps import Deps
from holdfast.contracts import (
    Accepted,
    Activity,
    AgentDefinition,
    AskResult,
    Message,
    ReadAnswer,
    RunState,
    SendMessage,
)
from holdfast.errors import InvalidInput
from holdfast.ids import occurrence_thread, workflow_id_for
from holdfast.memory import runs, threads
from holdfast.sending import CLOSED_UNDER_US, ELSEWHERE, refused_as, update_with_start
from holdfast.template import fill
from holdfast.typed.answers import read_output

__all__ = ["AskActivities"]

_PASSES = ("ThreadFull", CLOSED_UNDER_US, ELSEWHERE)  # refusals that a later try does not meet


class AskActivities:
    """Sends a message, and reads how its run stands."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn(name=Activity.SEND_MESSAGE)
    async def send_message(self, inp: SendMessage) -> AskResult:
        """Send the message by update-with-start; the same message id is one run, however often this runs."""
        settings = self._deps.settings
        info = activity.info()
        text, tenant, named = _occurrence(inp, settings.tenant)
        size = len(text.encode())
        if not text.strip():
            raise InvalidInput("the text is empty: ask something")
        if "\x00" in text:
            raise InvalidInput("the text has a NUL character, which no text may have: remove it")
        if size > settings.text_max:
            raise InvalidInput(f"the text has {size} bytes, {settings.text_max} are allowed: shorten it")
        thread = inp.thread or named or _as_thread(info.workflow_id or "ask")
        message = Message(
            message_id=inp.message_id,
            agent=inp.ask.agent,
            text=text if size <= settings.text_inline else None,
            text_ref=None if size <= settings.text_inline else f"ask-{info.workflow_run_id}",
            mode=inp.ask.mode,
            notify=info.workflow_id if inp.ask.wait else None,
        )
        async with self._deps.pool.acquire() as conn:
            if message.text_ref is not None:
                await threads.put_blob(conn, tenant, text.encode(), blob_id=message.text_ref)
            queue = await threads.queue_with_work(conn, tenant, thread) or settings.task_queue
        try:
            accepted = await update_with_start(
                self._deps.client,
                settings,
                workflow_id_for(tenant, thread),
                "message",
                message.model_copy(update={"queue": queue}),
                update_id=f"message-{uuid.uuid4().hex}",
                result_type=Accepted,
                queue=queue,
            )
        except WorkflowUpdateFailedError as exc:
            kind = refused_as(exc)
            raise ApplicationError(
                str(exc.cause), type=kind or "InvalidInput", non_retryable=kind not in _PASSES
            ) from exc
        except RPCError as exc:
            if exc.status != RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise InvalidInput(f"Temporal does not take this message: {exc.message}") from exc
        return AskResult(run_id=accepted.run_id, thread=thread, state=RunState.QUEUED)

    @activity.defn(name=Activity.READ_ANSWER)
    async def read_answer(self, inp: ReadAnswer) -> AskResult:
        """Return how the run stands; a steering message's run is followed to the run it joined."""
        async with self._deps.pool.acquire() as conn:
            row = await runs.by_id(conn, inp.run_id)
            while row is not None and row["merged_into"] is not None:
                row = await runs.by_id(conn, str(row["merged_into"]))
            if row is None:
                return AskResult(run_id=inp.run_id, thread=inp.thread, state=RunState.QUEUED, stored=False)
            answer = await runs.answer_text(conn, str(row["run_id"]))
            definition = await runs.definition(conn, row["definition"]) if row["definition"] else None
        long = answer is not None and len(answer.encode()) > self._deps.settings.answer_inline
        return AskResult(
            run_id=str(row["run_id"]),
            thread=inp.thread,
            state=row["state"],
            answer=None if long else answer,
            output=None if long else _output(definition, answer),
            answer_ref=f"{row['tenant']}:{row['thread']}/{row['answer_seq']}" if long else None,
            error=row["error"],
            tokens=row["tokens_in"] + row["tokens_out"] + row["tokens_below"],
            cost_usd=float(row["cost_usd"] + row["cost_usd_below"]),
            unpriced=row["unpriced"] + row["unpriced_below"],
            steps=row["steps"],
        )


def _occurrence(inp: SendMessage, tenant: str) -> tuple[str, str, str | None]:
    """Return (text, tenant, thread if it names none) of a question; a Schedule's is filled with its time."""
    recurring = inp.ask.recurring
    if recurring is None:
        return inp.ask.text, tenant, None
    if inp.scheduled_at is None:
        raise InvalidInput("a recurring question comes from a Schedule, and this one does not say for which time")
    text = fill(inp.ask.text, schedule=recurring.schedule, at=inp.scheduled_at, time_zone=recurring.time_zone)
    return text, recurring.tenant, occurrence_thread(recurring.schedule, inp.scheduled_at)


def _output(definition: AgentDefinition | None, answer: str | None) -> Any:
    """Return the answer as JSON, where the agent gives typed ones."""
    typed = definition is not None and definition.output is not None and answer is not None
    return read_output(definition, answer or "") if typed else None


def _as_thread(workflow_id: str) -> str:
    """Return a thread name for a question that named none: its workflow's id, as far as a thread may be called so."""
    return "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in workflow_id)[-128:]
