"""How long a model that refuses is asked again. `model_step` asks it at each refusal."""

from __future__ import annotations

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast.activities.deps import Deps
from holdfast.errors import ModelUnavailable
from holdfast.memory import model_refusals
from holdfast.memory.database import UNAVAILABLE

__all__ = ["ask_again"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # as `workflows.options.RETRY` has them

log = structlog.get_logger(__name__)


async def ask_again(deps: Deps, key: str, exc: ModelUnavailable, spent: float) -> Exception:
    """Return what to raise for a call of *spent* seconds that was refused: a pause, or the end of the patience.

    A pause that the provider asks for is kept, up to the end of the patience: the model is asked once more then.
    """
    patience = deps.settings.scaled(deps.settings.model_patience)
    try:
        async with deps.pool.acquire() as conn, conn.transaction():
            waited = await model_refusals.count(conn, key, spent)
            again = _pause(exc, patience - waited)
            if waited < patience:
                await model_refusals.pause(conn, key, again.retry_after or _backoff())
            else:
                await model_refusals.drop(conn, key)
    except UNAVAILABLE as away:  # time without a database does not count
        log.info("a refusal of the model is not counted, because PostgreSQL is unavailable", error=repr(away))
        return _pause(exc, patience)
    if waited < patience:
        return again
    asked = "" if exc.retry_after is None else f" The provider asked to wait {exc.retry_after:.0f} s more."
    return ApplicationError(
        f"the model did not answer for {waited:.0f} s: {exc}{asked} HOLDFAST_MODEL_PATIENCE allows more time.",
        type="ModelUnavailable",
        non_retryable=True,
    )


def _pause(exc: ModelUnavailable, left: float) -> ModelUnavailable:
    """Return the refusal with a pause that ends within the patience."""
    after = exc.retry_after
    if after is None:
        return exc
    if after <= left:
        return ModelUnavailable(str(exc), retry_after=max(after, _FIRST_PAUSE))
    return ModelUnavailable(
        f"{exc} The provider asks to wait {after:.0f} s; it is called once more in {left:.0f} s, when "
        "HOLDFAST_MODEL_PATIENCE ends.",
        retry_after=max(left, _FIRST_PAUSE),
    )


def _backoff() -> float:
    """Return the pause of Temporal's retry policy after this attempt."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(activity.info().attempt - 1, 30))
