"""The model port: the one way to a language model. Activities, runtime and CLI may call it; it knows no store.

Importing this is light: LiteLLM and the embeddings load at the first call that needs them, or by `warm()`.
"""

from __future__ import annotations

from holdfast.llm.models import OFFLINE_MODEL, ModelReply, ModelRequest, ToolCallRequest, Usage
from holdfast.llm.port import close, complete, context_window, count_tokens, supports_schema, warm
from holdfast.llm.prices import price_of, require_prices, unpriced_model, would_never_bind
from holdfast.llm.resolve import model_for, resolve_model

__all__ = [
    "OFFLINE_MODEL",
    "ModelReply",
    "ModelRequest",
    "ToolCallRequest",
    "Usage",
    "close",
    "complete",
    "context_window",
    "count_tokens",
    "model_for",
    "price_of",
    "require_prices",
    "resolve_model",
    "supports_schema",
    "unpriced_model",
    "warm",
    "would_never_bind",
]
