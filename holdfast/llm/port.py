"""The model port: one call to any model, by its name. Activities, runtime and CLI may call it.

A registry of providers stands behind it: `offline/…` is answered in process, everything else goes through LiteLLM.
Nothing here tries again: Temporal owns retries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from holdfast.llm.models import OFFLINE_MODEL, ModelReply, ModelRequest, OnDelta, ToolCallRequest, Usage
from holdfast.llm.resolve import resolve_model

__all__ = [
    "DEFAULT_WINDOW",
    "OFFLINE_MODEL",
    "ModelReply",
    "ModelRequest",
    "ToolCallRequest",
    "Usage",
    "close",
    "complete",
    "context_window",
    "count_tokens",
    "resolve_model",
    "supports_schema",
    "warm",
]

DEFAULT_WINDOW = 8192
"""Tokens a model is taken to read when nobody knows better."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Provider:
    """What the port asks of whoever answers for a family of models."""

    complete: Callable[[ModelRequest, OnDelta | None], Awaitable[ModelReply]]
    count_tokens: Callable[[str, list[Json], list[Json]], int]
    context_window: Callable[[str], int | None]
    warm: Callable[[], None]
    supports_schema: Callable[[str, bool], bool]


def _offline() -> Provider:
    from holdfast.llm import extractive

    return Provider(
        extractive.complete,
        extractive.count_tokens,
        extractive.context_window,
        extractive.warm,
        lambda _model, _tools: False,
    )


def _litellm() -> Provider:
    from holdfast.llm import litellm_adapter

    return Provider(
        litellm_adapter.complete,
        litellm_adapter.count_tokens,
        litellm_adapter.context_window,
        litellm_adapter.warm,
        litellm_adapter.supports_schema,
    )


_PROVIDERS: dict[str, Callable[[], Provider]] = {"offline": _offline}


def _provider(model: str) -> Provider:
    return _PROVIDERS.get(model.partition("/")[0], _litellm)()


async def complete(request: ModelRequest, *, on_delta: OnDelta | None = None) -> ModelReply:
    """Call the model once and return its whole reply; with *on_delta*, stream the text to it meanwhile.

    Cancelling the task ends the call and its connection.

    Raises:
        ModelUnavailable: no answer, or a cut one; another try may succeed, after `retry_after` seconds if given.
        ModelRefused: the provider refused the request; another try will not help.
        ContextTooLong: the conversation does not fit.

    """
    return await _provider(request.model).complete(request, on_delta)


def count_tokens(model: str, messages: list[Json], tools: list[Json] | None = None) -> int:
    """Return about how many input tokens these messages and tools are (25 ms for 1,000 messages of 100 tokens)."""
    return _provider(model).count_tokens(model, messages, tools or [])


def context_window(model: str) -> int:
    """Return how many tokens the model reads at most; 8,192 when unknown."""
    return _provider(model).context_window(model) or DEFAULT_WINDOW


def supports_schema(model: str, *, tools: bool = False) -> bool:
    """Say whether the model can be held to a JSON schema, with *tools* beside it, by `response_format`."""
    return _provider(model).supports_schema(model, tools)


def warm(model: str = "openai/any") -> None:
    """Load what answers for *model*: LiteLLM takes about 6 CPU-seconds, the offline stand-in one.

    Blocks: a worker calls it in a thread, before it polls and before a model it has not called yet.
    """
    _provider(model).warm()


async def close() -> None:
    """Close the connections this event loop has open to providers, if any. A worker calls this when it ends."""
    from holdfast.llm import litellm_adapter

    await litellm_adapter.close()
