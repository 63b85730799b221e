"""What becomes of a reply that was bought and does not become part of its run. `model_step` calls it."""

from __future__ import annotations

from holdfast import llm
from holdfast.activities.deps import Deps, Here
from holdfast.contracts import ModelReply
from holdfast.errors import StaleWriter
from holdfast.ids import storable
from holdfast.memory import ledger, runs
from holdfast.memory.database import Connection
from holdfast.memory.ledger import Step

__all__ = ["count_again", "count_unrecorded"]


async def count_again(deps: Deps, step: Step, at: Here, reply: llm.ModelReply) -> ModelReply:
    """A reply was recorded before: return it. If it was another attempt's, count what this one cost."""

    async def count(conn: Connection) -> tuple[ModelReply, bool]:
        done = await ledger.stored(conn, step.key)
        if done is None:
            raise StaleWriter(f"step {step.step_no} was recorded, but its row no longer exists")
        out = ModelReply.model_validate(done[0])
        return out, await _charge(conn, step, at, reply)

    out, twice = await deps.insist(count)  # what it cost, this worker alone knows
    if not twice:
        return out
    tokens = reply.usage.input_tokens + reply.usage.output_tokens
    return out.model_copy(update={"tokens": out.tokens + tokens, "cost_usd": out.cost_usd + (reply.cost_usd or 0.0)})


async def count_unrecorded(deps: Deps, step: Step, at: Here, reply: llm.ModelReply) -> None:
    """Charge the run for a reply that cannot be recorded: the run has ended, was stopped, or is another workflow's."""

    async def count(conn: Connection) -> None:
        await _charge(conn, step, at, reply)

    await deps.insist(count)


async def _charge(conn: Connection, step: Step, at: Here, reply: llm.ModelReply) -> bool:
    """Add a reply that is not in the thread to its run, once. False: this attempt has recorded it after all."""
    if await ledger.recorded_by(conn, step.key, at.owner):  # by the commit whose answer got lost
        return False
    usage = reply.usage
    outcome = {"text": storable((reply.text or "")[:500]), "run_id": step.run_id, "step_no": step.step_no}
    tokens = usage.input_tokens + usage.output_tokens
    if await ledger.late(conn, step.key, 0, at.owner, outcome, tokens=tokens, cost_usd=reply.cost_usd or 0.0):
        await runs.add_usage(conn, step.run_id, usage.input_tokens, usage.output_tokens, reply.cost_usd)
    return True
