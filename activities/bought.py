"""What becomes of a reply that was bought although another had been recorded. `model_step` calls it."""

from __future__ import annotations

from holdfast import llm
from holdfast.activities.deps import Deps, Here
from holdfast.contracts import ModelReply
from holdfast.errors import StaleWriter
from holdfast.memory import ledger, runs
from holdfast.memory.database import Connection
from holdfast.memory.ledger import Step

__all__ = ["count_again"]


async def count_again(deps: Deps, step: Step, at: Here, reply: llm.ModelReply) -> ModelReply:
    """A reply was recorded before: return it. If it was another attempt's, count what this one cost."""
    usage, cost = reply.usage, reply.cost_usd or 0.0
    tokens = usage.input_tokens + usage.output_tokens

    async def count(conn: Connection) -> tuple[ModelReply, bool]:
        done = await ledger.stored(conn, step.key)
        if done is None:
            raise StaleWriter(f"step {step.step_no} was recorded and is gone")
        out = ModelReply.model_validate(done[0])
        if await ledger.recorded_by(conn, step.key, at.owner):  # by the commit whose answer got lost
            return out, False
        text = {"text": (reply.text or "")[:500]}
        if await ledger.late(conn, step.key, 0, at.owner, text, tokens=tokens, cost_usd=cost):
            await runs.add_usage(conn, step.run_id, usage.input_tokens, usage.output_tokens, reply.cost_usd)
        return out, True

    out, twice = await deps.insist(count)  # what it cost, this worker alone knows
    if not twice:
        return out
    return out.model_copy(update={"tokens": out.tokens + tokens, "cost_usd": out.cost_usd + cost})
