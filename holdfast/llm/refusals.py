"""Turns a provider's failure into one of our errors, by status and headers alone; only the LiteLLM adapter calls it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from holdfast.errors import ContextTooLong, ModelError, ModelRefused, ModelUnavailable
from holdfast.llm.resolve import KEY_VARIABLES, split_model

__all__ = ["model_error", "retry_after_seconds"]

_WORTH_A_TRY = {408, 409, 425, 429}
_LONGEST = 600  # characters of a provider's own words in our message


def retry_after_seconds(headers: Mapping[str, str] | None, *, now: datetime | None = None) -> float | None:
    """Return the seconds to wait that `Retry-After` asks for, as a number or an HTTP date (RFC 9110, 10.2.3).

    `retry-after-ms`, which OpenAI and Azure send, goes first. None when there is no such header or it makes no sense.
    A date is compared with the `Date` of the same answer, for our clock may be wrong; without one, with *now*.
    """
    lower = {str(name).lower(): str(value).strip() for name, value in (headers or {}).items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = lower.get(name) or lower.get(f"llm_provider-{name}")
        if not value:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            at = _date(value)
            if at is None:
                continue
            said = _date(lower.get("date") or lower.get("llm_provider-date") or "")
            seconds = (at - (said or now or datetime.now(UTC))).total_seconds()
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _what_to_do(status: int, model: str, api_base: str | None) -> str:
    provider = split_model(model)[0]
    where = f" at {api_base}" if api_base else ""
    variables = KEY_VARIABLES.get(provider, ())
    key = variables[0] if variables else "the provider's key"
    return {
        401: f"The key was not accepted{where}: check {key}.",
        402: "The account has no credit: top it up, or use another model.",
        403: f"The key may not use this model{where}: check what {key} is allowed.",
        404: f"There is no such model{where}: check the name {model}"
        + (" and that the address ends like the provider's own, often in /v1." if api_base else "."),
    }.get(status, "Change what the message names: a parameter of the agent, a tool's schema, or the model.")


def model_error(
    status: int | None,
    words: str,
    *,
    model: str,
    api_base: str | None = None,
    headers: Mapping[str, str] | None = None,
    too_long: bool = False,
) -> ModelError:
    """Return the error for a provider's answer *status* (None: there was no answer), quoting its *words*."""
    said = words.strip()
    said = said[:_LONGEST] + "…" if len(said) > _LONGEST else said
    if too_long:
        return ContextTooLong(
            f"The conversation does not fit the context window of {model}: {said} "
            "Set the agent's `window` to fewer tokens, or use a model that reads more."
        )
    if status is None or status >= 500 or status in _WORTH_A_TRY:
        where = f" at {api_base}" if api_base else ""
        what = f"did not answer{where}" if status is None else f"answered {status}"
        return ModelUnavailable(
            f"{model} {what}: {said} Another try may succeed.", retry_after=retry_after_seconds(headers)
        )
    return ModelRefused(f"{model} refused the request ({status}): {said} {_what_to_do(status, model, api_base)}")
