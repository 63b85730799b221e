"""An agent and its tools as data: what is stored by hash when a run is admitted."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from holdfast.contracts.base import ApprovalPolicy, EffectClass, Stored


class Budget(Stored):
    """What a run may spend. A limit that is None does not bind; a misspelt one is an error, never no limit."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    usd: float | None = Field(default=None, ge=0, description="US dollars of model calls")
    rounds: int | None = Field(default=50, ge=1, description="model calls")
    tokens: int | None = Field(default=None, ge=1, description="input plus output tokens")


class Price(Stored):
    """Price of a model's tokens, in US dollars per million. `cached` is the price of cached input tokens."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="None: same as other input")


class ToolDefinition(Stored):
    """A tool as the model and the policies see it; its code lives in the worker."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    effect: EffectClass = "once"
    approval: ApprovalPolicy = "never"
    timeout: float = Field(default=60.0, gt=0, description="seconds for one try, the total deadline of a send")
    attempts: int = Field(default=3, ge=1, description="tries before a repeated failure is told to the model")
    settle: float = Field(default=0.0, ge=0, description="seconds a sent request may still land (verifiable)")
    key_lifetime: float | None = Field(
        default=None, gt=0, description="seconds for which the remote remembers an idempotency key (keyed)"
    )
    single_request: bool = Field(
        default=False, description="the body opens exactly one connection: if connecting fails, nothing was sent"
    )
    queue: Literal["agents", "memory"] = "agents"
    version: str = "1"
    agent: str | None = Field(default=None, description="the agent that is asked, or that takes the conversation over")
    handoff: bool = Field(default=False, description="the conversation moves to `agent` for good")


class AnswerDefinition(Stored):
    """What the final answer must be: one JSON value of this schema. The type behind it lives in the worker."""

    name: str = Field(default="answer", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    shape: dict[str, Any] = Field(description="its JSON schema")
    wrapped: bool = Field(
        default=False, description="the type is no object, so its value is the one member `value` of one"
    )
    corrections: int = Field(default=2, ge=0, le=10, description="rounds in which the model may correct itself")
    native: bool | None = Field(default=None, description="ask by the provider's own means; None: where it has them")


class AgentDefinition(Stored):
    """An agent as it was when a run was admitted. Stored once by hash."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    description: str = Field(default="", description="what other agents are told of it")
    model: str
    instructions: str = ""
    tools: list[ToolDefinition] = []
    budget: Budget = Budget()
    memory: bool = False
    window: int | None = Field(
        default=None, ge=256, description="tokens of conversation sent; None: what the model takes"
    )
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    api_base: str | None = None
    params: dict[str, Any] = {}
    output: AnswerDefinition | None = None
    price: Price | None = Field(default=None, description="None: the price in LiteLLM's table")
