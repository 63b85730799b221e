"""What goes into a model call and what comes out of it; anyone who calls the port may build and read these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast.contracts import Price

__all__ = ["OFFLINE_MODEL", "ModelReply", "ModelRequest", "OnDelta", "ToolCallRequest", "Usage"]

OFFLINE_MODEL = "offline/extractive"

OnDelta = Callable[[str], None]
"""Called on the event loop with each piece of the answer's text, in order; what it raises ends the call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """One call of a model. Messages and tools are JSON as OpenAI's chat completions protocol has it.

    `timeout` is in seconds, for the whole call, first byte to last. `params` are further fields of the protocol
    (`reasoning_effort`, `tool_choice`, …); they cannot replace the fields named here. `response_format` asks for JSON
    of a schema, for models of which `supports_schema` is true. `price` is the agent's, and is not sent; None: that of
    LiteLLM's table.
    """

    model: str
    messages: list[dict[str, Any]]  # Any: protocol JSON, which providers extend
    tools: list[dict[str, Any]] = field(default_factory=list)
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    api_base: str | None = None
    timeout: float = 600.0
    params: dict[str, Any] = field(default_factory=dict)
    response_format: dict[str, Any] | None = None
    price: Price | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of one call. `cached_tokens` is the part of `input_tokens` the provider had cached."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCallRequest:
    """A tool call as the model asked for it. `arguments` is its JSON text untouched: it may be malformed."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReply:
    """A whole reply; a cut one is an error, never this.

    `message` is the assistant message to store and to send again: role, content, tool_calls, nothing else.
    `cost_usd` is None when no price is known. `latency_s` is the time of the call in seconds.
    """

    message: dict[str, Any]
    text: str | None
    tool_calls: list[ToolCallRequest]
    usage: Usage
    cost_usd: float | None
    finish_reason: str
    model: str
    latency_s: float


def assistant_message(text: str | None, calls: list[ToolCallRequest]) -> dict[str, Any]:
    """Return the message that stands for this reply in the conversation, with only the fields the protocol knows."""
    message: dict[str, Any] = {"role": "assistant", "content": text if text or calls else ""}
    if calls:
        message["content"] = text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return message
