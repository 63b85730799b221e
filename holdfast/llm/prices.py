"""What a model call costs, and whether its price is known. The port, the runtime and the reloader's trial call it.

A price belongs to an agent. Nothing is registered with LiteLLM, whose prices are global: one agent's price would be
another's in the same worker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holdfast.contracts import AgentDefinition, Price
from holdfast.errors import ConfigurationError
from holdfast.llm.models import Usage
from holdfast.llm.resolve import model_for, split_model
from holdfast.settings import Settings

__all__ = [
    "cost_of",
    "has_price",
    "is_pricing",
    "knows_price",
    "price_of",
    "require_prices",
    "unpriced_model",
    "would_never_bind",
]

_TABLE = "model_prices_and_context_window_backup.json"
_PRICES = ("input_cost_per_token", "output_cost_per_token", "tiered_pricing")
_MILLION = 1_000_000


def cost_of(price: Price, usage: Usage) -> float:
    """Return the US dollars of a call; cached input tokens cost `price.cached`, or as much as others."""
    cached = min(usage.cached_tokens, usage.input_tokens)
    per_cached = price.input if price.cached is None else price.cached
    spent = (usage.input_tokens - cached) * price.input + cached * per_cached + usage.output_tokens * price.output
    return spent / _MILLION


def is_pricing(name: str) -> bool:
    """Say whether a parameter tells LiteLLM a price, which it would register for every agent of the process."""
    return "cost_per_" in name or "token_cost" in name or name in ("tiered_pricing", "model_info", "base_model")


def price_of(definition: AgentDefinition, settings: Settings) -> Price | None:
    """Return the price that counts for an agent; None: that of LiteLLM's table, if the model is in it.

    Where HOLDFAST_MODEL puts another model in place of the agent's own, the agent's price is not that model's.
    """
    if settings.model is None or settings.model == definition.model:
        return definition.price
    if settings.model_price is None:
        return None
    given, made = settings.model_price.split("/")
    return Price(input=float(given), output=float(made))


@lru_cache(maxsize=1024)
def knows_price(model: str) -> bool:
    """Say whether a model's price is known without its agent: from LiteLLM's table, or because it runs in process."""
    if model.startswith("offline/"):
        return True
    provider, name = split_model(model)
    entries = (_table().get(key) for key in (f"{provider}/{name}", name))
    if any(has_price(entry) and entry.get("litellm_provider") == provider for entry in entries if entry):
        return True
    from holdfast.llm import litellm_adapter

    return litellm_adapter.knows_price(model)  # it knows more spellings of a name, and takes seconds to import


def has_price(entry: Mapping[str, Any] | None) -> bool:
    """Say whether an entry of LiteLLM's table prices tokens: 0 is a price, and LiteLLM takes a missing one for 0."""
    return entry is not None and any(entry.get(name) is not None for name in _PRICES)


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    """Read the table that comes with LiteLLM, without importing LiteLLM."""
    spec = find_spec("litellm")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / _TABLE
        if path.is_file():
            found: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
            return found
    return {}


def unpriced_model(definition: AgentDefinition, settings: Settings) -> str | None:
    """Return an agent's model if its price is not known. Blocks the first time, as `knows_price` does."""
    model = model_for(definition, settings)
    return model if price_of(definition, settings) is None and not knows_price(model) else None


def require_prices(definitions: Mapping[str, AgentDefinition], settings: Settings) -> None:
    """Refuse a budget in USD that could never bind: of an agent whose price is unknown, or that reaches such a one.

    A run's budget pays for the agents that it asks and for those that it is handed over to. Agents of other workers
    are not known here: `would_never_bind` is for where they are reached.

    Raises:
        ConfigurationError: the message has the line to add.

    """
    for definition in definitions.values():
        if definition.budget.usd is None:
            continue
        for reached, how in _reached(definition, definitions):
            model = unpriced_model(reached, settings)
            if model is not None:
                raise ConfigurationError(
                    would_never_bind(definition.name, definition.budget.usd, reached, model, settings, how)
                )


def would_never_bind(
    whose: str, usd: float, reached: AgentDefinition, model: str, settings: Settings, how: str = "asks"
) -> str:
    """Say that a budget in USD could never bind, because the price of a model is not known, and what to add."""
    below = "" if reached.name == whose else f", which {how} agent {reached.name!r}"
    if settings.model is not None and settings.model != reached.model:
        line = "HOLDFAST_MODEL_PRICE=0.25/2.00  # USD per million input and output tokens"
    else:
        line = f'Agent("{reached.name}", …, price=Price(input=0.25, output=2.00))  # USD per million tokens'
    return (
        f"agent {whose!r} has a budget of {usd} USD{below}, but the price of {model} is unknown, so the budget would "
        f"never take effect. Add the price (0 if it costs nothing), for example:\n  {line}\n"
        "or limit the run by tokens: Budget(tokens=…)."
    )


def _reached(
    definition: AgentDefinition, definitions: Mapping[str, AgentDefinition]
) -> list[tuple[AgentDefinition, str]]:
    """Return an agent, and how it reaches each of those whose calls its budget pays for."""
    found, waiting = {definition.name: (definition, "")}, [definition]
    while waiting:
        for tool in waiting.pop().tools:
            other = definitions.get(tool.agent or "")
            if other is not None and other.name not in found:
                found[other.name] = (other, "hands over to" if tool.handoff else "asks")
                waiting.append(other)
    return list(found.values())
