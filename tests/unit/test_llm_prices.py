"""Prices belong to agents: what a call costs, which prices are known, and which budgets could never bind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast import Agent, Budget, Price
from holdfast.cli.text import cost
from holdfast.errors import ConfigurationError
from holdfast.llm.models import Usage
from holdfast.llm.prices import cost_of, knows_price, price_of, require_prices
from holdfast.server.trial import _load
from holdfast.settings import Settings


def definitions(*agents: Agent) -> dict[str, Any]:
    """Return agents as the runtime hands them over."""
    return {agent.name: agent.definition for agent in agents}


def here(**more: Any) -> Settings:
    """Return settings under which any model is called."""
    return Settings(api_base="http://127.0.0.1:9/v1", **more)


def test_a_call_costs_what_the_agent_says() -> None:
    """Per million tokens; what the provider had cached may cost less."""
    usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=400)
    assert cost_of(Price(input=1, output=10), usage) == pytest.approx(0.002)
    assert cost_of(Price(input=1, output=10, cached=0.5), usage) == pytest.approx(0.0018)
    assert cost_of(Price(input=0, output=0), usage) == 0.0


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("openai/gpt-5-mini", True),
        ("gpt-5-mini", True),
        ("anthropic/claude-sonnet-4-5", True),
        ("offline/extractive", True),
        ("openai/no-such-model", False),
        ("hosted_vllm/qwen3", False),
        ("hosted_vllm/gpt-5-mini", False),
    ],
)
def test_a_price_is_known_by_provider_and_name(model: str, known: bool) -> None:
    """A server of one's own that calls its model like a provider's has no price of that provider."""
    assert knows_price(model) is known


def test_a_budget_in_dollars_that_could_never_bind_is_refused() -> None:
    """Also where an agent that is asked has no known price; the message has the line to add."""
    bare = Agent("bare", "hosted_vllm/qwen3", budget=Budget(usd=0.5))
    with pytest.raises(ConfigurationError, match=r'Agent\("bare", …, price=Price\(input=') as raised:
        require_prices(definitions(bare), here())
    assert "the price of hosted_vllm/qwen3 is unknown, so the budget would never take effect" in str(raised.value)
    below = Agent("below", "hosted_vllm/qwen3", "Help.")
    boss = Agent("boss", "openai/gpt-5-mini", tools=[below], budget=Budget(usd=0))
    with pytest.raises(ConfigurationError, match=r"'boss' has a budget of 0\.0 USD, which asks agent 'below'"):
        require_prices(definitions(boss, below), here())
    sends = Agent("sends", "openai/gpt-5-mini", handoffs=["below"], budget=Budget(usd=2))
    with pytest.raises(ConfigurationError, match=r"2\.0 USD, which hands over to agent 'below'"):
        require_prices(definitions(sends, below), here())
    free = Agent("free", "hosted_vllm/qwen3", price=Price(input=0, output=0), budget=Budget(usd=1))
    require_prices(definitions(free, below, Agent("known", "gpt-5-mini", budget=Budget(usd=1))), here())


def test_another_model_in_an_agents_place_has_a_price_of_its_own() -> None:
    """The agent's price is that of its own model, not of what HOLDFAST_MODEL names."""
    agent = Agent("a", "hosted_vllm/qwen3", price=Price(input=1, output=2), budget=Budget(usd=1))
    assert price_of(agent.definition, here()) == Price(input=1, output=2)
    with pytest.raises(ConfigurationError, match=r"HOLDFAST_MODEL_PRICE=0\.25/2\.00"):
        require_prices(definitions(agent), here(model="hosted_vllm/other"))
    priced = here(model="hosted_vllm/other", model_price="0.1/0.5")
    require_prices(definitions(agent), priced)
    assert price_of(agent.definition, priced) == Price(input=0.1, output=0.5)


@pytest.mark.parametrize("name", ["input_cost_per_token", "cache_read_input_token_cost", "model_info"])
def test_a_price_among_the_parameters_is_refused(name: str) -> None:
    """LiteLLM would register it for the whole process."""
    with pytest.raises(
        ConfigurationError, match=f"params contains {name}, a price that LiteLLM would use for every agent"
    ):
        Agent("a", "openai/x", params={name: 1})
    with pytest.raises(ConfigurationError, match="price is 3; use price=Price"):
        Agent("a", "openai/x", price=3)  # type: ignore[arg-type]


def test_a_reload_is_told_of_a_budget_that_could_never_bind(tmp_path: Path) -> None:
    """The workers stay as they are, as with any file that cannot be used."""
    path = tmp_path / "agents.py"
    path.write_text(
        'from holdfast import Agent, Budget\na = Agent("a", "hosted_vllm/x", api_base="http://127.0.0.1:9/v1",\n'
        "          budget=Budget(usd=1))\n"
    )
    assert "would never take effect" in (_load(Settings(agents=path)).error or "")


def test_what_is_not_known_is_never_shown_as_nothing() -> None:
    """Alone as `$?`, beside what is known as a sum that lacks it."""
    assert [cost(0, 0), cost(0, 2), cost(0.5, 1), cost(0.5)] == ["$0", "$?", "$0.5000 + $?", "$0.5000"]
