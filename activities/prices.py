"""Whether a run's budget in USD could bind for an agent that it reaches, which may be another worker's."""

from __future__ import annotations

import asyncio

from holdfast.activities.deps import Deps
from holdfast.contracts import AgentDefinition
from holdfast.errors import ConfigurationError
from holdfast.llm import unpriced_model, would_never_bind
from holdfast.memory import family

__all__ = ["unbound"]


async def unbound(deps: Deps, run_id: str, reached: AgentDefinition, *, how: str = "asks") -> str | None:
    """Return why *reached* may not be called in this run: a budget pays for it, and its price is not known."""
    try:
        model = await asyncio.to_thread(unpriced_model, reached, deps.settings)
    except ConfigurationError:  # this worker has no key for its model: another one calls it, or its own run says so
        return None
    if model is None:
        return None
    async with deps.pool.acquire() as conn:
        bound = await family.budget_in_usd(conn, run_id)
    return None if bound is None else would_never_bind(*bound, reached, model, deps.settings, how)
