"""Two agent loops as one would write them on Temporal alone: messages in inputs, and messages in PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow

__all__ = ["MessagesInInputs", "MessagesInPostgres"]

Json = dict[str, Any]

_SOON = timedelta(seconds=60)


async def _do(name: str, *args: Any) -> Any:
    return await workflow.execute_activity(name, args=args, start_to_close_timeout=_SOON)


@workflow.defn
class MessagesInInputs:
    """The workflow holds the conversation and hands all of it to every model call."""

    @workflow.run
    async def run(self, question: str) -> str:
        """Return the answer."""
        messages: list[Json] = [{"role": "user", "content": question}]
        while True:
            reply = await _do("call_model", messages)
            messages.append(reply)
            if not reply.get("tool_calls"):
                return str(reply["content"])
            for call in reply["tool_calls"]:
                result = await _do("call_tool", call["function"]["name"], call["function"]["arguments"])
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


@workflow.defn
class MessagesInPostgres:
    """Activities read and write the conversation; the workflow holds the calls of one round."""

    @workflow.run
    async def run(self, question: str) -> str:
        """Return the answer."""
        thread = workflow.info().workflow_id
        await _do("store_question", thread, question)
        while True:
            reply = await _do("call_model_on_thread", thread)
            if not reply["calls"]:
                return str(reply["answer"])
            for call in reply["calls"]:
                await _do("call_tool_on_thread", thread, call)
